//! Tests the search for an object whose owner is not known.

use super::*;
use crate::ids::{Namespace, ObjectId, OrganizationId};

const NOT_FOUND: ScriptedStep = ScriptedStep::Answer(404, Verdict::ObjectNotFound, BufferedRest::Whole);

/// Runs a turn that names the response `resp_1`.
async fn run_search(gateway: &Arc<Gateway>, script: UpstreamScript<'_>) -> (Vec<String>, Ended) {
    run_as(gateway, script, Repeatability::Repeatable).await
}

async fn run_as(
    gateway: &Arc<Gateway>,
    script: UpstreamScript<'_>,
    repeatability: Repeatability,
) -> (Vec<String>, Ended) {
    let mut scenario = Scenario::new(gateway, script);
    scenario.previous_response = Some("resp_1");
    scenario.repeatability = repeatability;
    scenario.run().await
}

fn owner(gateway: &Gateway) -> Option<UpstreamId> {
    let key = OwnedKey::from_object(Namespace::of_group(""), ObjectId::from_text(b"resp_1"));
    gateway.runtime.owners.peek(key, gateway.clock.now())
}

#[tokio::test(start_paused = true)]
async fn each_upstream_is_asked_once_in_order_and_the_owner_is_remembered() {
    for repeatability in [Repeatability::Safe, Repeatability::Repeatable, Repeatability::Once] {
        let gateway = three_upstreams("[retry]\nattempts = 1\n");
        spend_retry_budget(&gateway);
        let order = order(&gateway);
        let script: [(&str, &[ScriptedStep]); 3] = [
            (&order[0], &[NOT_FOUND]),
            (&order[1], &[NOT_FOUND]),
            (&order[2], &[SERVED, SERVED]),
        ];
        let (sent, ended) = run_as(&gateway, &script, repeatability).await;
        assert_eq!(
            (&sent, ended),
            (&order, answer(order[2].clone(), 200)),
            "{repeatability:?}"
        );
        assert_eq!(owner(&gateway), Some(UpstreamId::from_name(&order[2])));
        assert_eq!(pin(&gateway), Some(UpstreamId::from_name(&order[2])));
        let (sent, _) = run_search(&gateway, &script[2..]).await;
        assert_eq!(sent, order[2..], "the owner is known now");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_is_passed_on_if_no_upstream_has_the_object() {
    let gateway = three_upstreams("");
    let order = order(&gateway);
    let script: [(&str, &[ScriptedStep]); 3] = ["a", "b", "c"].map(|name| (name, &[NOT_FOUND][..]));
    let expected = answer(order[0].clone(), 404);
    let (sent, ended) = run_search(&gateway, &script).await;
    assert_eq!((&sent, &ended), (&order, &expected));
    let (sent, ended) = run_search(&gateway, &script).await;
    assert_eq!(
        (&sent[..], &ended),
        (&order[..1], &expected),
        "it is known to be absent"
    );
    tokio::time::advance(Duration::from_secs(61)).await;
    let (sent, ended) = run_search(&gateway, &script).await;
    assert_eq!((sent, ended), (order, expected), "it is searched for again");
    assert_eq!((owner(&gateway), pin(&gateway)), (None, None));
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_fails_or_takes_no_requests_does_not_show_that_the_object_is_absent() {
    for obstacle in ["failed", "limited", "disabled", "other refusal"] {
        let gateway = three_upstreams("");
        let order = order(&gateway);
        if obstacle == "disabled" {
            failover::disable(&gateway, &order[1]).await;
        }
        let step = match obstacle {
            "failed" => FAILED,
            "limited" => limited(429, LONG),
            _ => BAD_REQUEST,
        };
        let script: [(&str, &[ScriptedStep]); 3] = [
            (&order[0], &[NOT_FOUND]),
            (&order[1], &[step]),
            (&order[2], &[NOT_FOUND]),
        ];
        let (mut sent, ended) = run_search(&gateway, &script).await;
        if obstacle == "disabled" {
            sent.insert(1, order[1].clone());
        }
        assert_eq!((&sent, ended), (&order, answer(order[0].clone(), 404)), "{obstacle}");
        let is_absent = gateway.runtime.absent.len() == 1;
        assert_eq!(is_absent, obstacle == "other refusal", "{obstacle}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_an_upstream_may_have_begun_is_not_searched_for_elsewhere() {
    let gateway = three_upstreams("");
    let order = order(&gateway);
    let script: [(&str, &[ScriptedStep]); 3] = [
        (&order[0], &[NOT_FOUND]),
        (&order[1], &[FAILED]),
        (&order[2], &[SERVED]),
    ];
    let (sent, ended) = run_as(&gateway, &script, Repeatability::Once).await;
    assert_eq!((&sent[..], ended), (&order[..2], answer(order[1].clone(), 500)));
}

#[tokio::test(start_paused = true)]
async fn the_siblings_of_an_upstream_are_not_asked() {
    let gateway = testing::configured(
        &["a", "b", "c"]
            .map(|name| {
                let organization = if name == "c" { "other" } else { "team" };
                format!(
                    "[[upstream]]\nname = \"{name}\"\nbase_url = \"http://{name}.test/v1\"\napi_key = \"env:K\"\n\
                     organization = \"{organization}\"\n"
                )
            })
            .concat(),
    );
    let snapshot = gateway.snapshot();
    let organization = |name: &str| {
        let index = snapshot.rendezvous.position(UpstreamId::from_name(name));
        snapshot
            .rendezvous
            .member(index.expect("a known upstream"))
            .organization
    };
    let script: [(&str, &[ScriptedStep]); 3] = ["a", "b", "c"].map(|name| (name, &[NOT_FOUND][..]));
    let (sent, ended) = run_search(&gateway, &script).await;
    assert_eq!(ended, answer(order(&gateway)[0].clone(), 404));
    let asked: Vec<OrganizationId> = sent.iter().map(|name| organization(name)).collect();
    assert!(asked.len() == 2 && asked[0] != asked[1], "{sent:?}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_kept_or_another_source_of_sessions_excludes_the_search() {
    let gateway = three_upstreams("");
    let script: [(&str, &[ScriptedStep]); 3] = ["a", "b", "c"].map(|name| (name, &[NOT_FOUND][..]));
    let mut scenario = Scenario::new(&gateway, &script);
    (scenario.previous_response, scenario.bodies) = (Some("resp_1"), 1);
    let (sent, ended) = scenario.run().await;
    let first = order(&gateway)[0].clone();
    assert_eq!((sent.len(), ended), (1, answer(first, 404)));
    let gateway = three_upstreams("[affinity]\nsources = [\"body:prompt_cache_key\"]\n");
    let (sent, _) = run_search(&gateway, &script).await;
    assert_eq!(sent.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_search_harms_no_upstream() {
    let gateway = three_upstreams("");
    for _ in 0..20 {
        let script: [(&str, &[ScriptedStep]); 3] = ["a", "b", "c"].map(|name| (name, &[NOT_FOUND][..]));
        run_search(&gateway, &script).await;
        tokio::time::advance(Duration::from_secs(61)).await;
    }
    assert!(gateway.runtime.brakes.are_idle());
    let snapshot = gateway.snapshot();
    for upstream in snapshot.upstreams() {
        let availability = upstream.state.availability(RequestClass::generation(None));
        assert_eq!(availability, Availability::Ready, "{}", upstream.name);
    }
}

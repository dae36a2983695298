//! Tests answers that may refuse the credential of an upstream.

use super::*;
use crate::policy::{Availability, RequestClass};

fn is_disabled(gateway: &Gateway, name: &str) -> bool {
    let snapshot = gateway.snapshot();
    let upstream = snapshot
        .upstream_of(UpstreamId::from_name(name))
        .expect("a configured upstream");
    matches!(
        upstream.state.availability(RequestClass::generation(None)),
        Availability::Disabled { .. }
    )
}

/// Lets a moment pass, because a refusal counts only if its request was sent after the credential was configured.
async fn pass_a_moment() {
    tokio::time::advance(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_bare_401_disables_the_upstream_only_if_a_second_request_confirms_it() {
    for (check, calls, ended) in [
        (
            RefusalCheck::Refused,
            ["a", "check a", "b"].as_slice(),
            answer("b", 200),
        ),
        (RefusalCheck::NotRefused, &["a", "check a"], answer("a", 401)),
        (RefusalCheck::NotAsked, &["a", "check a"], answer("a", 401)),
    ] {
        let gateway = testing::gateway("");
        set_pin(&gateway, "a");
        pass_a_moment().await;
        let mut scenario = Scenario::new(&gateway, &[("a", &[UNAUTHORIZED]), ("b", &[SERVED])]);
        scenario.check = check;
        let (sent, actual) = scenario.run().await;
        assert_eq!(
            (sent, actual),
            (calls.iter().map(|call| (*call).to_owned()).collect(), ended)
        );
        assert_eq!(is_disabled(&gateway, "a"), check == RefusalCheck::Refused);
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_refused_at_the_same_time_share_one_check() {
    for check in [RefusalCheck::Refused, RefusalCheck::NotRefused, RefusalCheck::NotAsked] {
        let gateway = testing::gateway("");
        set_pin(&gateway, "a");
        pass_a_moment().await;
        let turns: Vec<_> = (0..10)
            .map(|_| {
                let mut scenario = Scenario::new(&gateway, &[("a", &[UNAUTHORIZED]), ("b", &[SERVED])]);
                scenario.check = check;
                tokio::spawn(async move { scenario.run_charged(&mut Charge::default()).await })
            })
            .collect();
        let mut checks = 0;
        for turn in turns {
            let (sent, ended) = turn.await.expect("no panic");
            checks += sent.iter().filter(|call| call.starts_with("check")).count();
            let expected = match check {
                RefusalCheck::Refused => answer("b", 200),
                RefusalCheck::NotRefused | RefusalCheck::NotAsked => answer("a", 401),
            };
            assert_eq!(ended, expected);
        }
        assert_eq!(checks, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_is_never_the_answer_to_a_caller() {
    let gateway =
        testing::configured("[[upstream]]\nname = \"a\"\nbase_url = \"http://a.test/v1\"\napi_key = \"env:A\"\n");
    pass_a_moment().await;
    let (sent, ended) = Scenario::new(&gateway, &[("a", &[REFUSED])]).run().await;
    assert_eq!((sent.len(), ended), (1, Ended::Fault("upstream_credential_refused")));
    assert!(is_disabled(&gateway, "a"));
}

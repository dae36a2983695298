//! Requests that fail at every upstream: the client that repeats them, and the other clients.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};
use steadfast::sim::{Act, Close, Point, Rule, ScriptedAnswer, Sim};

use crate::kit::{
    client::{self, Reply},
    gateway::Gateway,
    sessions::{key_with_home, send_turn},
    sims, until,
    wire::{self, End},
};

/// The retry budget lets every request be tried at three upstreams, so that only the brake stops it.
const GENEROUS: &str = "[retry]\nattempts = 3\nbudget = 1.0\n";

fn failing() -> Act {
    let error = json!({"error": {"message": "no", "type": "server_error", "param": null, "code": "c"}});
    Act::reply(StatusCode::INTERNAL_SERVER_ERROR, &error)
}

/// The number of requests that have reached the accounts.
fn calls(sims: &[Sim]) -> u64 {
    sims.iter().map(|sim| sim.counts().requests).sum()
}

/// Checks that the gateway itself has refused the request, and names the time of the next attempt.
fn assert_is_braked(reply: &Reply) {
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.text());
    let error = &reply.json()["error"];
    assert_eq!(error["code"], "upstreams_unavailable", "{error}");
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains("failed at every upstream"), "{message}");
    let retry: u64 = reply.header("retry-after").parse().expect("whole seconds");
    assert!((1..=30).contains(&retry), "{retry}");
}

fn is_braked(reply: &Reply) -> bool {
    reply.text().contains("failed at every upstream")
}

async fn ejected(gateway: &Gateway) -> f64 {
    gateway.metric("steadfast_upstream_state{state=\"ejected\"").await
}

#[tokio::test]
async fn a_client_that_repeats_a_failing_request_is_braked() {
    for act in [failing(), Act::answer(ScriptedAnswer::Close(Close::Fin))] {
        let sims = sims(3).await;
        let gateway = Gateway::before(&sims, GENEROUS).await;
        sims.iter().for_each(|sim| sim.script().always(act.clone()));
        let mut refused = 0;
        for number in 0..30 {
            let reply = send_turn(&gateway, "session").await;
            assert_ne!(reply.status.as_u16(), 200);
            if is_braked(&reply) {
                assert_is_braked(&reply);
                refused += 1;
            } else {
                assert!(number < 2 || calls(&sims) > 6, "the first two requests are sent");
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(calls(&sims) <= 12, "{} requests upstream", calls(&sims));
        assert!(refused >= 26, "{refused} of 30 requests are answered from memory");
        let rejected = gateway
            .metric("steadfast_rejected_requests_total{reason=\"unavailable\"}")
            .await;
        assert_eq!(rejected, f64::from(refused));
        let braked = gateway
            .metric("steadfast_braked_requests_total{reason=\"session\"}")
            .await;
        assert_eq!(braked, f64::from(refused));

        // The accounts work again: the next probe is served, and then every request.
        sims.iter().for_each(|sim| sim.script().clear());
        until("a served probe", || async {
            (send_turn(&gateway, "session").await.status == StatusCode::OK).then_some(())
        })
        .await;
        assert_eq!(send_turn(&gateway, "session").await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn requests_that_were_sent_at_the_same_time_are_one_failure() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, GENEROUS).await;
    for sim in &sims {
        let slow = Act {
            delay: Duration::from_millis(200),
            ..failing()
        };
        sim.script().add(Rule::new(slow).times(8));
    }
    let wave: Vec<_> = (0..8)
        .map(|_| {
            let (address, body) = (
                gateway.address,
                json!({"model": "gpt-5.2", "input": "hi", "prompt_cache_key": "session"}),
            );
            tokio::spawn(async move { client::post_json(address, "/v1/responses", &body).await })
        })
        .collect();
    for request in wave {
        let reply = request.await.expect("an answer");
        assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", reply.text());
    }
    let reply = send_turn(&gateway, "session").await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
}

/// One client repeats a poisoned request, while the sessions of other clients run.
#[tokio::test]
async fn a_poisoned_request_harms_only_its_own_session() {
    for accounts in [2, 4, 6] {
        let sims = sims(accounts).await;
        let gateway = Gateway::before(&sims, GENEROUS).await;
        for sim in &sims {
            let poisoned = |body: &Value| body["input"] == "poison";
            sim.script().add(Rule::new(failing()).body(poisoned));
        }
        let mut homes = Vec::new();
        for number in 0..30 {
            let key = format!("good-{number}");
            let reply = send_turn(&gateway, &key).await;
            homes.push((key, reply.routed().0.to_owned()));
        }
        let poison = json!({"model": "gpt-5.2", "input": "poison", "prompt_cache_key": "bad"});
        for (key, home) in &homes {
            let reply = client::post_json(gateway.address, "/v1/responses", &poison).await;
            assert!(reply.status.is_server_error(), "{}", reply.text());
            let reply = send_turn(&gateway, key).await;
            assert_eq!((reply.status.as_u16(), reply.routed()), (200, (home.as_str(), "pin")));
        }
        assert_eq!(ejected(&gateway).await, 0.0, "{accounts} accounts");
        let calls = calls(&sims) as usize;
        assert!(
            calls <= 60 + 12,
            "{calls} requests upstream, 60 of them of good sessions"
        );
    }
}

#[tokio::test]
async fn a_pool_that_is_down_is_left_alone_but_for_probes() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, GENEROUS).await;
    sims.iter().for_each(|sim| sim.script().always(failing()));
    for number in 0..5 {
        let reply = send_turn(&gateway, &format!("session-{number}")).await;
        assert_eq!(reply.status, StatusCode::INTERNAL_SERVER_ERROR, "{}", reply.text());
    }
    let begun = Instant::now();
    assert!(calls(&sims) <= 15);
    let mut refused = 0;
    for number in 5..60 {
        let reply = send_turn(&gateway, &format!("session-{number}")).await;
        if is_braked(&reply) {
            assert_is_braked(&reply);
            refused += 1;
        }
    }
    // A probe is due after 1 s, then after 2 s more, and so on.
    let probes = 1 + begun.elapsed().as_secs();
    assert!(
        refused >= 55 - probes,
        "{refused} of 55 requests are answered from memory"
    );
    assert!(calls(&sims) <= 15 + probes, "{} requests upstream", calls(&sims));
    gateway.log_until("have failed at every upstream").await;

    sims.iter().for_each(|sim| sim.script().clear());
    until("a served probe", || async {
        (send_turn(&gateway, "new").await.status == StatusCode::OK).then_some(())
    })
    .await;
    for number in 60..80 {
        let reply = send_turn(&gateway, &format!("session-{number}")).await;
        assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    }
    let log = gateway.log_until("requests are sent to the upstreams again").await;
    let begins = log.iter().filter(|line| line.contains("5 sessions in a row"));
    assert_eq!(begins.count(), 1, "{log:?}");
}

#[tokio::test]
async fn a_reload_ends_all_brakes() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, GENEROUS).await;
    sims.iter().for_each(|sim| sim.script().always(failing()));
    for _ in 0..8 {
        send_turn(&gateway, "session").await;
    }
    assert_is_braked(&send_turn(&gateway, "session").await);
    sims.iter().for_each(|sim| sim.script().clear());
    let reload = client::send(gateway.admin, client::post("/api/reload", "")).await;
    assert_eq!(reload.status.as_u16(), 200, "{}", reload.text());
    assert_eq!(send_turn(&gateway, "session").await.status, StatusCode::OK);
}

#[tokio::test]
async fn after_a_broken_response_the_session_goes_to_another_account() {
    for point in [Point::Events(6), Point::Bytes(2_500)] {
        let sims = sims(3).await;
        let gateway = Gateway::before(&sims, "").await;
        let key = key_with_home(&gateway, "a").await;
        let body = json!({"model": "gpt-5.2", "input": "hi", "stream": true, "prompt_cache_key": key});
        let request = wire::post("/v1/responses", &body.to_string());
        assert_eq!(wire::ask(gateway.address, request.clone()).await.status, 200);
        sims[0].script().always(Act::cut(point, Close::Reset));
        let broken = wire::ask(gateway.address, request.clone()).await;
        assert_ne!(broken.end, End::Whole, "{broken:?}");
        assert_eq!(broken.header("x-steadfast-upstream"), Some("a"));
        let next = wire::ask(gateway.address, request.clone()).await;
        assert_eq!((next.status, next.end), (200, End::Whole), "{next:?}");
        let moved = next.header("x-steadfast-upstream").expect("a name").to_owned();
        assert_ne!(moved, "a");
        assert_eq!(next.header("x-steadfast-route"), Some("moved"));
        // Another session is not concerned.
        let other = (0..).map(|number| format!("other-{number}"));
        for key in other.take(3) {
            let order = gateway.ask(&format!("/api/route?key={key}")).await.json();
            let reply = send_turn(&gateway, &key).await;
            if order["upstreams"][0]["name"] != "a" {
                assert_eq!(reply.routed().1, "home");
            }
        }
        // The session's cache is at the other account now.
        let reply = send_turn(&gateway, &key).await;
        assert_eq!(reply.routed(), (moved.as_str(), "pin"));
    }
}

#[tokio::test]
async fn after_a_broken_response_owned_state_stays_in_its_organization() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    let id = send_turn(&gateway, &key).await.json()["id"].clone();
    let next = json!({
        "model": "gpt-5.2", "input": "and?", "stream": true, "prompt_cache_key": key, "previous_response_id": id,
    });
    let request = wire::post("/v1/responses", &next.to_string());
    sims[0]
        .script()
        .once("/v1/responses", Act::cut(Point::Events(6), Close::Reset));
    let broken = wire::ask(gateway.address, request.clone()).await;
    assert_ne!(broken.end, End::Whole, "{broken:?}");
    let again = wire::ask(gateway.address, request).await;
    assert_eq!((again.status, again.end), (200, End::Whole), "{again:?}");
    assert_eq!(again.header("x-steadfast-upstream"), Some("a"));
}

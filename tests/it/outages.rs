//! Outages and poisoned requests: what the accounts get, what the callers get, and how soon an account that is back is
//! used again.

use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::{Value, json};
use steadfast::sim::{Act, Close, Rule, ScriptedAnswer, Sim, SimConfig};
use tokio::task::JoinSet;

use crate::kit::{
    client::{self, Reply},
    gateway::Gateway,
    sessions::{key_with_home, responses_request, send_turn, usage_limit_reached},
    sims, until,
};

fn failing() -> Act {
    let error = json!({"error": {"message": "no", "type": "server_error", "param": null, "code": null}});
    Act::reply(StatusCode::INTERNAL_SERVER_ERROR, &error)
}

/// The number of requests that have reached the accounts.
fn calls(sims: &[Sim]) -> u64 {
    sims.iter().map(|sim| sim.counts().requests).sum()
}

/// Sends one request of each of `keys` at the same time.
async fn wave(gateway: &Gateway, keys: impl Iterator<Item = String>) -> Vec<(String, Reply)> {
    let turn = |key: String| {
        let address = gateway.address;
        let body = json!({"model": "gpt-5.2", "input": "hi", "prompt_cache_key": key});
        async move { (key, client::post_json(address, "/v1/responses", &body).await) }
    };
    keys.map(turn).collect::<JoinSet<_>>().join_all().await
}

#[tokio::test]
async fn requests_at_the_same_time_leave_limited_accounts_alone_too() {
    for resets_in in [100, 3_600] {
        let sims = sims(3).await;
        let gateway = Gateway::before(&sims, "").await;
        sims.iter()
            .for_each(|sim| sim.script().always(usage_limit_reached(resets_in)));
        assert_eq!(send_turn(&gateway, "first").await.status, 429);
        for round in 0..20 {
            for (_, reply) in wave(
                &gateway,
                (0..10).map(|number| format!("session-{}", round * 5 + number)),
            )
            .await
            {
                assert_eq!(reply.status, 429, "{}", reply.text());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(calls(&sims), 3, "each account was asked once");
    }
}

#[tokio::test]
async fn callers_are_told_the_next_probe_while_all_accounts_are_ejected() {
    for count in [1, 2, 3] {
        let accounts = sims(count).await;
        let gateway = Gateway::before(&accounts, "[health]\nmax_ejected = 1.0\n[retry]\nbudget = 1.0\n").await;
        let addresses: Vec<_> = accounts.iter().map(Sim::address).collect();
        for sim in accounts {
            sim.stop().await;
        }
        let begun = Instant::now();
        until("all accounts to be ejected", || async {
            let keys = (0..10).map(|number| format!("session-{number}-{:?}", begun.elapsed()));
            wave(&gateway, keys).await;
            let all = gateway.states().await.iter().all(|state| state == "ejected");
            all.then_some(())
        })
        .await;
        // The accounts work again, but only a probe may reach them.
        let mut back = Vec::new();
        for (address, name) in addresses.iter().zip('a'..) {
            let config = SimConfig {
                name: name.to_string(),
                record: true,
                ..SimConfig::default()
            };
            back.push(Sim::start(*address, config).await.expect("the port is free"));
        }
        for number in 0..20 {
            let asked = Instant::now();
            let reply = send_turn(&gateway, &format!("later-{number}")).await;
            assert_eq!(reply.status.as_u16(), 503, "{}", reply.text());
            let retry: u64 = reply.header("retry-after").parse().expect("whole seconds");
            assert!((15..=38).contains(&retry), "{retry}: {}", reply.text());
            assert!(reply.text().contains("has failed several times"), "{}", reply.text());
            assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        }
        assert_eq!(calls(&back), 0);
        client::send(gateway.admin, client::post("/api/upstreams/a/enable", "")).await;
        let reply = send_turn(&gateway, "enabled").await;
        assert_eq!(reply.status.as_u16(), 200, "{}", reply.text());
    }
}

#[tokio::test]
async fn accounts_that_refuse_connections_cost_few_dials_and_are_used_soon_after_they_are_back() {
    for (count, session_count) in [(1, 1), (1, 20), (3, 20)] {
        let accounts = sims(count).await;
        let gateway = Gateway::before(&accounts, "").await;
        let addresses: Vec<_> = accounts.iter().map(Sim::address).collect();
        for sim in accounts {
            sim.stop().await;
        }
        let begun = Instant::now();
        let (mut number, mut failed_dials) = (0, 0);
        while begun.elapsed() < Duration::from_secs(5) {
            let reply = send_turn(&gateway, &format!("session-{}", number % session_count)).await;
            assert!(matches!(reply.status.as_u16(), 502 | 503), "{}", reply.text());
            failed_dials += u32::from(reply.status == 502);
            number += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let mut back = Vec::new();
        for (address, name) in addresses.iter().zip('a'..) {
            let config = SimConfig {
                name: name.to_string(),
                record: true,
                ..SimConfig::default()
            };
            back.push(Sim::start(*address, config).await.expect("the port is free"));
        }
        assert!(
            failed_dials <= 10,
            "{failed_dials} of {number} requests reached for an account"
        );
        let returned = Instant::now();
        until("a served request", || async {
            let reply = send_turn(&gateway, &format!("session-{}", 3 % session_count)).await;
            (reply.status == 200).then_some(())
        })
        .await;
        assert!(returned.elapsed() < Duration::from_secs(10));
    }
}

/// Poisoned requests: a body that the accounts answer with 500, and one on which they hang up because it is long.
fn poison(sims: &[Sim]) {
    for sim in sims {
        sim.script()
            .add(Rule::new(failing()).body(|body: &Value| body["input"] == "poison"));
        let is_long = |head: &steadfast::sim::RecordedHead| {
            let length = head.headers.get("content-length").and_then(|value| value.to_str().ok());
            length.is_some_and(|length| length.parse::<u64>().expect("a length") > 1_180_000)
        };
        sim.script()
            .add(Rule::new(Act::answer(ScriptedAnswer::Close(Close::Reset))).head(is_long));
    }
}

/// The session keys of the poisoned requests.
#[derive(Clone, Copy, Debug, PartialEq)]
enum PoisonedKeys {
    Same,
    Distinct,
    None,
}

/// When the poisoned requests are sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Order {
    BetweenGoodRequests,
    BeforeGoodRequests,
}

async fn send_poison(gateway: &Gateway, input: &str, keys: PoisonedKeys, number: usize) {
    let mut body = json!({"model": "gpt-5.2", "input": input});
    match keys {
        PoisonedKeys::Same => body["prompt_cache_key"] = json!("bad"),
        PoisonedKeys::Distinct => body["prompt_cache_key"] = json!(format!("bad-{number}")),
        PoisonedKeys::None => {}
    }
    let reply = client::post_json(gateway.address, "/v1/responses", &body).await;
    assert!(reply.status.is_server_error(), "{}", reply.text());
}

#[tokio::test]
async fn poisoned_requests_leave_the_other_sessions_at_home() {
    use Order::{BeforeGoodRequests, BetweenGoodRequests};
    for (accounts, keys, length, order) in [
        (2, PoisonedKeys::Distinct, 6, BetweenGoodRequests),
        (2, PoisonedKeys::Same, 1_200_000, BeforeGoodRequests),
        (4, PoisonedKeys::Distinct, 1_200_000, BeforeGoodRequests),
        (4, PoisonedKeys::None, 1_200_000, BetweenGoodRequests),
        (6, PoisonedKeys::Distinct, 6, BeforeGoodRequests),
        (6, PoisonedKeys::None, 6, BeforeGoodRequests),
    ] {
        let label = format!("{accounts} {keys:?} {length} {order:?}");
        let input = &"poison".repeat(length / 6);
        let sims = sims(accounts).await;
        let gateway = Gateway::before(&sims, "").await;
        poison(&sims);
        let mut homes = Vec::new();
        for number in 0..30 {
            let key = format!("good-{number}");
            let reply = send_turn(&gateway, &key).await;
            homes.push((key, reply.routed().0.to_owned()));
        }
        if order == BeforeGoodRequests {
            for number in 0..30 {
                send_poison(&gateway, input, keys, number).await;
            }
        }
        for (number, (key, home)) in homes.iter().enumerate() {
            if order == BetweenGoodRequests {
                send_poison(&gateway, input, keys, number).await;
            }
            let reply = send_turn(&gateway, key).await;
            let expected = (200, (home.as_str(), "pin"));
            assert_eq!(
                (reply.status.as_u16(), reply.routed()),
                expected,
                "{label}: {}",
                reply.text()
            );
        }
        let reply = send_turn(&gateway, "new").await;
        assert_eq!(
            reply.status,
            200,
            "a session served ended the brake. {label}: {}",
            reply.text()
        );
        let ready = gateway.states().await;
        assert!(ready.iter().all(|state| state == "ready"), "{label}: {ready:?}");
    }
}

#[tokio::test]
async fn requests_of_other_classes_leave_the_pin_of_their_session() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    let turn = || responses_request(json!({"input": "hi"}), &[("session-id", &key)]);
    assert_eq!(client::send(gateway.address, turn()).await.routed(), ("a", "home"));
    for (path, body) in [
        (
            "/v1/images/generations",
            json!({"model": "gpt-image-1", "prompt": "a boat ".repeat(4_000)}),
        ),
        (
            "/v1/embeddings",
            json!({"model": "text-embedding-3-small", "input": "a boat ".repeat(4_000)}),
        ),
        (
            "/v1/audio/speech",
            json!({"model": "tts-1", "voice": "x", "input": "a boat ".repeat(4_000)}),
        ),
    ] {
        for act in [usage_limit_reached(600), usage_limit_reached(20), failing()] {
            sims[0].script().add(Rule::new(act).path(path));
            for _ in 0..6 {
                let mut request = client::post(path, body.to_string());
                request
                    .headers_mut()
                    .insert("session-id", key.parse().expect("a header value"));
                let asked = Instant::now();
                client::send(gateway.address, request).await;
                assert!(
                    asked.elapsed() < Duration::from_secs(1),
                    "there is no cache to wait for: {path}"
                );
                let reply = client::send(gateway.address, turn()).await;
                assert_eq!(reply.routed(), ("a", "pin"), "{path}");
            }
            sims[0].script().clear();
            client::send(gateway.admin, client::post("/api/upstreams/a/enable", "")).await;
        }
    }
}

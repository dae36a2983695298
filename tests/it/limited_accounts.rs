//! What upstreams get while they are limited or fail: a limited account is left alone, trouble of one class of endpoints
//! concerns no other class, and a part of the pool is never ejected.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};
use steadfast::sim::{Act, Rule, Sim};

use crate::kit::{
    WHOLE, client,
    gateway::{Gateway, upstream},
    gateway_with_sim,
    sessions::{key_with_home, send_turn, usage_limit_reached},
    sims,
    streams::{Dialect, Effect, check_failover},
    wire,
};

/// The number of requests that all accounts have received.
fn received(sims: &[Sim]) -> usize {
    sims.iter().map(|sim| sim.requests().len()).sum()
}

fn failure(status: u16) -> Act {
    let status = StatusCode::from_u16(status).expect("a valid status");
    Act::reply(
        status,
        &json!({"error": {"message": "no", "type": "server_error", "code": null}}),
    )
}

#[tokio::test]
async fn limited_accounts_are_left_alone() {
    for (resets_in, count) in [(3_600, 3), (90, 2)] {
        let sims = sims(count).await;
        let gateway = Gateway::before(&sims, "").await;
        for sim in &sims {
            sim.script().always(usage_limit_reached(resets_in));
        }
        for number in 0..50 {
            let reply = send_turn(&gateway, &format!("session-{number}")).await;
            assert_eq!(reply.status, 429, "{}", reply.text());
        }
        assert_eq!(received(&sims), count, "each account was asked once");
    }
}

#[tokio::test]
async fn a_limit_of_images_concerns_no_other_requests() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("a", "home"));
    for sim in &sims {
        sim.script()
            .add(Rule::new(usage_limit_reached(600)).path("/v1/images/generations"));
    }
    let image = json!({"model": "gpt-image-1", "prompt": "a boat"});
    for _ in 0..10 {
        let reply = client::post_json(gateway.address, "/v1/images/generations", &image).await;
        assert_eq!(reply.status, 429, "{}", reply.text());
    }
    assert_eq!(received(&sims), 3, "each account was asked for one image");
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("a", "pin"));
    for upstream in gateway.ask("/api/upstreams").await.json()["upstreams"]
        .as_array()
        .expect("a list")
    {
        assert_eq!(upstream["state"], "ready", "{upstream}");
        let classes = upstream["endpoints"].as_array().expect("a list");
        assert_eq!(classes.len(), 1, "{upstream}");
        assert_eq!(
            (&classes[0]["class"], &classes[0]["state"]),
            (&json!("images"), &json!("cooling"))
        );
    }
}

#[tokio::test]
async fn failures_of_files_eject_nothing_that_generates() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("a", "home"));
    for sim in &sims {
        sim.script().add(Rule::new(failure(503)).path("/v1/files"));
    }
    for _ in 0..20 {
        let reply = client::get(gateway.address, "/v1/files").await;
        assert!(reply.status.is_server_error(), "{}", reply.text());
    }
    assert_eq!(send_turn(&gateway, &key).await.routed(), ("a", "pin"));
    let upstreams = gateway.ask("/api/upstreams").await.json();
    for upstream in upstreams["upstreams"].as_array().expect("a list") {
        assert_eq!(
            (&upstream["state"], &upstream["consecutive_failures"]),
            (&json!("ready"), &json!(0))
        );
    }
}

/// Stops one account after the other, sends requests after each until the failures have had their effect, and returns
/// how many upstreams are ejected at the end.
///
/// The accounts do not stop together, because requests that fail everywhere brake the pool before it has counted enough
/// failures.
async fn ejected_after_all_have_stopped(accounts: usize, max_ejected: &str) -> usize {
    let sims = sims(accounts).await;
    let mut config = format!("[health]\nmax_ejected = {max_ejected}\n");
    for sim in &sims {
        config += &upstream(sim, "");
    }
    let gateway = Gateway::configured(&config).await;
    for (stopped, sim) in sims.into_iter().enumerate() {
        sim.stop().await;
        for number in 0..accounts * 15 {
            let reply = send_turn(&gateway, &format!("session-{stopped}-{number}")).await;
            let all_have_stopped = stopped + 1 == accounts;
            assert!(reply.status.is_server_error() || !all_have_stopped, "{}", reply.text());
        }
    }
    let described = gateway.ask("/api/upstreams").await.json();
    let upstreams = described["upstreams"].as_array().expect("a list").iter();
    upstreams.filter(|upstream| upstream["state"] == "ejected").count()
}

#[tokio::test]
async fn at_most_a_part_of_the_pool_is_ejected() {
    for (accounts, max_ejected, ejected) in [
        (1, "0.5", 0),
        (1, "1.0", 1),
        (2, "0.5", 1),
        (4, "0.5", 2),
        (3, "1.0", 3),
    ] {
        assert_eq!(
            ejected_after_all_have_stopped(accounts, max_ejected).await,
            ejected,
            "{max_ejected} of {accounts}"
        );
    }
}

#[tokio::test]
async fn an_account_cools_down_for_the_longest_time_that_its_answer_names() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    let at = now.as_secs() + 44;
    let millis = (at * 1000).to_string();
    let message = json!({"error": {"code": "rate_limit_exceeded", "message": "Please try again in 44s."}});
    let plain = json!({"error": {"code": "rate_limit_exceeded", "message": "no"}});
    let answers: [(&[(&'static str, &str)], Value); 6] = [
        (&[("retry-after", "1")], message.clone()),
        (
            &[("retry-after", "0"), ("x-ratelimit-reset-tokens", "0s")],
            message.clone(),
        ),
        (&[("retry-after-ms", "-1"), ("retry-after", "44")], plain.clone()),
        (
            &[("retry-after", "1")],
            json!({"error": {"type": "usage_limit_reached", "resets_at": at * 1_000_000}}),
        ),
        (&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &millis)], plain),
        (&[("retry-after", "Mon, 01 Jan 2024 00:00:00 GMT")], json!([message])),
    ];
    for (fields, body) in answers {
        let act = fields.iter().fold(
            Act::reply(StatusCode::TOO_MANY_REQUESTS, &body),
            |act, (name, value)| {
                let value = HeaderValue::from_str(value).expect("a header value");
                act.header(HeaderName::from_static(name), value)
            },
        );
        check_failover(
            Dialect::Responses,
            act,
            Effect::Cooling(44),
            &format!("{fields:?} {body}"),
        )
        .await;
    }
}

#[tokio::test]
async fn an_account_cools_down_for_seven_days_at_most() {
    const SEVEN_DAYS: u64 = 7 * 86_400;
    for (name, value) in [
        ("retry-after", "604801"),
        ("retry-after", "99999999"),
        ("retry-after", "18446744073709551616"),
        ("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT"),
        ("retry-after-ms", "999999999999999"),
        ("x-ratelimit-reset-tokens", "9000d"),
    ] {
        let (sim, gateway) = gateway_with_sim("").await;
        let plain = json!({"error": {"code": "rate_limit_exceeded", "message": "no"}});
        let act = Act::reply(StatusCode::TOO_MANY_REQUESTS, &plain);
        sim.script()
            .always(act.header(HeaderName::from_static(name), HeaderValue::from_static(value)));
        for _ in 0..2 {
            let answer = wire::ask(gateway.address, wire::post("/v1/responses", WHOLE)).await;
            let seconds = answer
                .header("retry-after")
                .and_then(|seconds| seconds.parse::<u64>().ok());
            let is_bound = seconds.is_some_and(|seconds| (SEVEN_DAYS - 60..=SEVEN_DAYS).contains(&seconds));
            assert!(answer.status == 429 && is_bound, "{name}: {value}: {answer:?}");
        }
    }
}

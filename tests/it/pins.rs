//! Pins: a session stays on the upstream that served it last.

use serde_json::json;
use steadfast::sim::Act;

use crate::kit::{
    client::{self, Reply},
    gateway::{Gateway, upstream},
    sessions::{key_with_home, responses_request},
    sims,
};

async fn send(gateway: &Gateway, fields: serde_json::Value) -> Reply {
    client::send(gateway.address, responses_request(fields, &[])).await
}

#[tokio::test]
async fn a_session_stays_on_the_owner_of_its_state() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let (a, b) = (key_with_home(&gateway, "a").await, key_with_home(&gateway, "b").await);
    let first = send(&gateway, json!({"input": "hi", "prompt_cache_key": a}))
        .await
        .json();
    let led = json!({"input": "on", "prompt_cache_key": b, "previous_response_id": first["id"]});
    assert_eq!(send(&gateway, led.clone()).await.routed(), ("a", "owner"));
    assert_eq!(
        send(&gateway, json!({"input": "on", "prompt_cache_key": b}))
            .await
            .routed(),
        ("a", "pin")
    );
    assert_eq!(
        send(&gateway, led).await.routed(),
        ("a", "pin"),
        "the owner is the pinned upstream already"
    );
    let told = gateway.ask(&format!("/api/route?key={b}")).await.json();
    assert_eq!(
        (&told["upstreams"][0]["name"], &told["pin"]),
        (&json!("b"), &json!("a"))
    );
}

#[tokio::test]
async fn only_a_successful_response_pins_a_session() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = key_with_home(&gateway, "a").await;
    let fields = json!({"input": "hi", "prompt_cache_key": key});
    for status in [400, 404, 422, 302] {
        let status = status.try_into().expect("a status");
        sims[0].script().once(
            "/v1/responses",
            Act::reply(status, &json!({"error": {"message": "no"}})),
        );
        let reply = send(&gateway, fields.clone()).await;
        assert_eq!((reply.status, reply.routed()), (status, ("a", "home")));
    }
    assert_eq!(gateway.metric("steadfast_pins").await, 0.0);
    assert_eq!(send(&gateway, fields.clone()).await.routed(), ("a", "home"));
    assert_eq!(send(&gateway, fields).await.routed(), ("a", "pin"));
}

#[tokio::test]
async fn a_pin_of_an_idle_session_expires() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "[affinity]\nidle = \"1s\"\n").await;
    let key = key_with_home(&gateway, "a").await;
    let fields = json!({"input": "hi", "prompt_cache_key": key});
    assert_eq!(send(&gateway, fields.clone()).await.routed().1, "home");
    assert_eq!(send(&gateway, fields.clone()).await.routed().1, "pin");
    let asked = format!("/api/route?key={key}");
    crate::kit::until("the pin to expire", || async {
        gateway.ask(&asked).await.json()["pin"].is_null().then_some(())
    })
    .await;
    assert_eq!(send(&gateway, fields).await.routed(), ("a", "home"));
}

#[tokio::test]
async fn concurrent_requests_of_a_session_use_one_upstream() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    let (address, home) = (gateway.address, gateway.home("crowd").await);
    let at_once = (0..40).map(|number| {
        let request = responses_request(
            json!({"input": "hi", "prompt_cache_key": "crowd", "stream": number % 2 == 0}),
            &[],
        );
        tokio::spawn(async move { client::send(address, request).await })
    });
    for reply in at_once.collect::<Vec<_>>() {
        assert_eq!(reply.await.expect("a response").routed().0, home);
    }
}

#[tokio::test]
async fn the_order_of_upstreams_in_the_file_does_not_matter() {
    let sims = sims(4).await;
    let one = Gateway::before(&sims, "").await;
    let reversed: String = sims.iter().rev().map(|sim| upstream(sim, "")).collect();
    let other = Gateway::configured(&reversed).await;
    for number in 0..20 {
        let content = json!({"input": format!("conversation {number}")});
        let named = json!({"input": "hi", "prompt_cache_key": format!("session-{number}")});
        for fields in [content, named] {
            let first = send(&one, fields.clone()).await;
            assert_eq!(send(&other, fields).await.routed(), first.routed());
        }
    }
}

#[tokio::test]
async fn a_request_for_a_model_of_another_upstream_keeps_the_pin() {
    let sims = sims(3).await;
    let models = |list: &str| format!("models = {list}");
    let config: String = [(0, r#"["m1"]"#), (1, r#"["m2"]"#), (2, r#"["m1"]"#)]
        .map(|(index, list): (usize, _)| upstream(&sims[index], &models(list)))
        .concat();
    let gateway = Gateway::configured(&config).await;
    // The home of this session is `a`; a response that `c` owns routes it to `c`.
    let ask = |key: &str, more: serde_json::Value| {
        let mut fields = json!({"model": "m1", "input": "hi", "prompt_cache_key": key});
        fields
            .as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        fields
    };
    let address = gateway.address;
    let post = |body: serde_json::Value| async move { client::post_json(address, "/v1/responses", &body).await };
    let mut at_a = None;
    let mut made_by_c = None;
    for number in 0..100 {
        let key = format!("session-{number}");
        let reply = post(ask(&key, json!({}))).await;
        match reply.routed().0 {
            "a" => at_a = Some(key),
            _ => made_by_c = Some(reply.json()["id"].clone()),
        }
        if at_a.is_some() && made_by_c.is_some() {
            break;
        }
    }
    let (key, id) = (at_a.expect("a key at a"), made_by_c.expect("a response of c"));
    assert_eq!(
        post(ask(&key, json!({"previous_response_id": id}))).await.routed(),
        ("c", "owner")
    );
    assert_eq!(post(ask(&key, json!({"model": "m2"}))).await.routed().0, "b");
    assert_eq!(post(ask(&key, json!({}))).await.routed(), ("c", "pin"));
}

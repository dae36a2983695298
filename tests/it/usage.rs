//! The usage of each response counts once, in limits and in metrics, and is read in every dialect.

use std::sync::Arc;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use steadfast::sim::{Act, Close, Point, Rule, Sim};

use crate::kit::{
    client,
    gateway::Gateway,
    keys::{ALICE, BOB, get_as, group, key, post_as, with_key},
    sim, until,
};

/// The tokens per minute of Alice and of Bob.
const LIMIT: u64 = 10_000;
const RESPONSE: &str = "/v1/responses/resp_1";

/// Starts a gateway in front of `sim`, with Alice and Bob in one group.
async fn limited(sim: &Sim) -> Gateway {
    let limits = format!("tokens_per_minute = {LIMIT}");
    let head = group("team", &limits) + &key("alice", ALICE, "team", "") + &key("bob", BOB, "team", "");
    Gateway::before(std::slice::from_ref(sim), &head).await
}

/// Returns the number of tokens that `key` has used. The request for it costs none.
async fn used(gateway: &Gateway, key: &str) -> u64 {
    let reply = get_as(gateway, key, "/v1/models").await;
    let left: u64 = reply.header("x-ratelimit-remaining-tokens").parse().expect("a number");
    LIMIT - left
}

/// Waits until `key` has used this many tokens.
async fn used_reaches(gateway: &Gateway, key: &str, tokens: u64) {
    until(&format!("{tokens} tokens to be used"), async || {
        (used(gateway, key).await == tokens).then_some(())
    })
    .await;
}

/// Checks the input, cached and output tokens that all requests of the group have used.
async fn counted(gateway: &Gateway, expected: [f64; 3]) {
    let names = ["input", "cached_input", "output"];
    let totals = names.map(|kind| format!("steadfast_group_{kind}_tokens_total{{group=\"team\"}}"));
    for (name, expected) in totals.iter().zip(expected) {
        gateway.metric_reaches(name, expected).await;
    }
    gateway
        .metric_reaches("steadfast_input_tokens_total{", expected[0])
        .await;
}

/// A response that is made in the background, in this state. Only a completed one has a usage: 300 input tokens, of which
/// 200 are cached, and 50 output tokens.
fn response(status: &str, is_background: Value) -> Value {
    let usage = json!({"input_tokens": 300, "input_tokens_details": {"cached_tokens": 200}, "output_tokens": 50});
    let usage = if status == "completed" { usage } else { Value::Null };
    json!({
        "id": "resp_1", "object": "response", "status": status, "background": is_background, "output": [],
        "store": true, "usage": usage,
    })
}

fn reply(body: &Value) -> Act {
    Act::reply(StatusCode::OK, body)
}

/// A request for a response of about 500 estimated tokens.
fn long_request(more: Value) -> Value {
    let mut body = json!({"model": "gpt-5.2", "input": "x".repeat(1_950), "prompt_cache_key": "s"});
    let members = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(members);
    body
}

async fn cancel(gateway: &Gateway, key: &str) {
    let request = client::request(Method::POST, &format!("{RESPONSE}/cancel"), "");
    let reply = client::send(gateway.address, with_key(request, key)).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
}

#[tokio::test]
async fn a_background_response_costs_its_estimate_until_its_usage_is_known_and_then_that() {
    let sim = sim("a").await;
    let gateway = limited(&sim).await;
    sim.script()
        .once("/v1/responses", reply(&response("queued", json!(true))));
    let made = post_as(&gateway, ALICE, &long_request(json!({"background": true}))).await;
    assert_eq!(made.json()["status"], "queued");
    let estimate = used(&gateway, ALICE).await;
    assert!((490..540).contains(&estimate), "{estimate}");
    for status in ["queued", "in_progress", "in_progress"] {
        sim.script().once(RESPONSE, reply(&response(status, json!(true))));
        assert_eq!(get_as(&gateway, ALICE, RESPONSE).await.json()["status"], status);
    }
    assert_eq!(used(&gateway, ALICE).await, estimate);
    counted(&gateway, [0.0; 3]).await;
    // Bob learns the usage first. Alice, who made the response, gets the difference back.
    sim.script()
        .add(Rule::new(reply(&response("completed", json!(true)))).path(RESPONSE));
    let poll = get_as(&gateway, BOB, RESPONSE).await;
    assert_eq!(poll.json()["status"], "completed");
    used_reaches(&gateway, ALICE, 350).await;
    counted(&gateway, [300.0, 200.0, 50.0]).await;
    sim.script()
        .add(Rule::new(reply(&response("completed", json!(true)))).path(&format!("{RESPONSE}/cancel")));
    for _ in 0..5 {
        get_as(&gateway, ALICE, RESPONSE).await;
        cancel(&gateway, BOB).await;
    }
    assert_eq!((used(&gateway, ALICE).await, used(&gateway, BOB).await), (350, 0));
    counted(&gateway, [300.0, 200.0, 50.0]).await;
}

#[tokio::test]
async fn a_background_response_that_costs_more_than_its_estimate_is_charged_the_rest() {
    let sim = sim("a").await;
    let gateway = limited(&sim).await;
    let body = json!({"model": "gpt-5.2", "input": "x", "background": true});
    sim.script()
        .once("/v1/responses", reply(&response("in_progress", json!(true))));
    post_as(&gateway, ALICE, &body).await;
    let estimate = used(&gateway, ALICE).await;
    assert!(estimate < 30, "{estimate}");
    sim.script()
        .add(Rule::new(reply(&response("completed", json!(true)))).path(&format!("{RESPONSE}/cancel")));
    cancel(&gateway, ALICE).await;
    used_reaches(&gateway, ALICE, 350).await;
    counted(&gateway, [300.0, 200.0, 50.0]).await;
}

#[tokio::test]
async fn a_stored_response_that_is_read_again_costs_nothing() {
    let sim = sim("a").await;
    let gateway = limited(&sim).await;
    let done = response("completed", json!(false));
    sim.script().once("/v1/responses", reply(&done));
    post_as(&gateway, ALICE, &long_request(json!({}))).await;
    used_reaches(&gateway, ALICE, 350).await;
    sim.script().add(Rule::new(reply(&done)).path(RESPONSE));
    for _ in 0..19 {
        let read = get_as(&gateway, ALICE, RESPONSE).await;
        assert_eq!(read.json()["usage"]["input_tokens"], 300);
    }
    assert_eq!((used(&gateway, ALICE).await, used(&gateway, BOB).await), (350, 0));
    counted(&gateway, [300.0, 200.0, 50.0]).await;
    // The lines of the reads have no usage, so that the sum over all lines is what was used.
    let lines = until("the lines of all reads", async || {
        let lines = gateway.access();
        let reads = lines.iter().filter(|line| line["path"] == RESPONSE);
        (reads.count() == 19).then_some(lines)
    })
    .await;
    assert_eq!(lines.iter().filter(|line| line["input_tokens"] == 300).count(), 1);
    // A stored chat completion is an object too.
    let chat = "/v1/chat/completions/chatcmpl-1";
    let usage = json!({"prompt_tokens": 70, "completion_tokens": 5});
    sim.script()
        .once(chat, reply(&json!({"id": "chatcmpl-1", "usage": usage})));
    get_as(&gateway, ALICE, chat).await;
    assert_eq!(used(&gateway, ALICE).await, 350);
    counted(&gateway, [300.0, 200.0, 50.0]).await;
}

#[tokio::test]
async fn of_a_response_that_was_made_elsewhere_only_one_in_the_background_is_counted() {
    for (is_background, expected) in [(json!(false), 0), (Value::Null, 0), (json!(true), 350)] {
        let sim = sim("a").await;
        let gateway = limited(&sim).await;
        sim.script()
            .add(Rule::new(reply(&response("completed", is_background.clone()))).path(RESPONSE));
        get_as(&gateway, ALICE, RESPONSE).await;
        get_as(&gateway, ALICE, RESPONSE).await;
        used_reaches(&gateway, ALICE, expected).await;
        let share = |tokens: f64| if expected == 0 { 0.0 } else { tokens };
        counted(&gateway, [share(300.0), share(200.0), share(50.0)]).await;
    }
}

#[tokio::test]
async fn polls_at_the_same_time_count_once() {
    let sim = sim("a").await;
    let gateway = Arc::new(limited(&sim).await);
    sim.script()
        .once("/v1/responses", reply(&response("queued", json!(true))));
    post_as(&gateway, ALICE, &long_request(json!({"background": true}))).await;
    sim.script()
        .add(Rule::new(reply(&response("completed", json!(true)))).path(RESPONSE));
    let mut polls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let gateway = gateway.clone();
        polls.spawn(async move { get_as(&gateway, ALICE, RESPONSE).await.status });
    }
    while let Some(status) = polls.join_next().await {
        assert_eq!(status.expect("the poll ends"), StatusCode::OK);
    }
    used_reaches(&gateway, ALICE, 350).await;
    counted(&gateway, [300.0, 200.0, 50.0]).await;
}

#[tokio::test]
async fn a_background_stream_that_breaks_and_is_resumed_counts_once() {
    let sim = sim("a").await;
    let gateway = limited(&sim).await;
    let event = |kind: &str, status: &str| json!({"type": kind, "response": response(status, json!(true))});
    let created = event("response.created", "queued");
    let delta = json!({"type": "response.output_text.delta", "delta": "a"});
    let completed = event("response.completed", "completed");
    let mut broken = Act::events(&[created, delta.clone(), completed.clone()]);
    broken.cut = Some((Point::Events(2), Close::Reset));
    sim.script().once("/v1/responses", broken);
    let request = client::post(
        "/v1/responses",
        long_request(json!({"background": true, "stream": true})).to_string(),
    );
    let mut stream = client::open(gateway.address, with_key(request, ALICE))
        .await
        .into_body();
    while let Some(Ok(_)) = http_body_util::BodyExt::frame(&mut stream).await {}
    let estimate = used(&gateway, ALICE).await;
    assert!((490..560).contains(&estimate), "{estimate}");
    counted(&gateway, [0.0; 3]).await;
    let resumed = Act::events(&[delta, completed]);
    sim.script().add(Rule::new(resumed).path(RESPONSE));
    for _ in 0..3 {
        let path = format!("{RESPONSE}?stream=true&starting_after=1");
        assert_eq!(get_as(&gateway, ALICE, &path).await.status, StatusCode::OK);
    }
    used_reaches(&gateway, ALICE, 350).await;
    counted(&gateway, [300.0, 200.0, 50.0]).await;
}

#[tokio::test]
async fn a_background_stream_that_is_read_to_its_end_counts_once() {
    let sim = sim("a").await;
    let gateway = limited(&sim).await;
    let event = |kind: &str, status: &str| json!({"type": kind, "response": response(status, json!(true))});
    let events = [
        event("response.created", "queued"),
        event("response.completed", "completed"),
    ];
    sim.script().once("/v1/responses", Act::events(&events));
    post_as(
        &gateway,
        ALICE,
        &long_request(json!({"background": true, "stream": true})),
    )
    .await;
    used_reaches(&gateway, ALICE, 350).await;
    sim.script()
        .add(Rule::new(reply(&response("completed", json!(true)))).path(RESPONSE));
    get_as(&gateway, ALICE, RESPONSE).await;
    assert_eq!(used(&gateway, ALICE).await, 350);
    counted(&gateway, [300.0, 200.0, 50.0]).await;
}

#[tokio::test]
async fn every_dialect_of_usage_is_counted() {
    let sim = sim("a").await;
    let gateway = limited(&sim).await;
    let message = json!({"id": "msg_1", "usage": {
        "input_tokens": 10, "cache_read_input_tokens": 60, "cache_creation_input_tokens": 30, "output_tokens": 1,
    }});
    let messages = Act::events(&[
        json!({"type": "message_start", "message": message}),
        json!({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 7}}),
        json!({"type": "message_stop"}),
    ]);
    let chunk = |more: Value| {
        let first = json!({"id": "c", "choices": [{"index": 0, "delta": {"content": "a"}}]});
        Act::events(&[first, more])
    };
    let kimi = json!({"prompt_tokens": 100.0, "completion_tokens": 7, "cached_tokens": 60});
    let groq = json!({"id": "req_1", "usage": {"prompt_tokens": 100, "completion_tokens": 7}});
    let deepseek = json!({"prompt_tokens": 100, "completion_tokens": 7, "prompt_cache_hit_tokens": 60,
        "completion_tokens_details": {"reasoning_tokens": 4}});
    let responses = json!({
        "input_tokens": 100, "input_tokens_details": {"cached_tokens": 60, "cache_write_tokens": 30},
        "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 4},
    });
    let mut totals = [0.0; 5];
    for (path, act, expected) in [
        ("/v1/messages", messages, [100.0, 60.0, 30.0, 7.0, 0.0]),
        (
            "/v1/chat/completions",
            chunk(json!({"id": "c", "choices": [{"index": 0, "delta": {}, "usage": kimi}]})),
            [100.0, 60.0, 0.0, 7.0, 0.0],
        ),
        (
            "/v1/chat/completions",
            chunk(json!({"id": "c", "choices": [], "x_groq": groq})),
            [100.0, 0.0, 0.0, 7.0, 0.0],
        ),
        (
            "/v1/chat/completions",
            reply(&json!({"id": "c", "choices": [], "usage": deepseek})),
            [100.0, 60.0, 0.0, 7.0, 4.0],
        ),
        (
            "/v1/responses",
            Act::reply(
                StatusCode::CREATED,
                &json!({"id": "r", "output": [], "usage": responses}),
            ),
            [100.0, 60.0, 30.0, 7.0, 4.0],
        ),
    ] {
        sim.script().once(path, act);
        let body = json!({"model": "gpt-5.2", "messages": [], "input": "x"});
        let request = client::post(path, body.to_string());
        let reply = client::send(gateway.address, with_key(request, ALICE)).await;
        assert!(reply.status.is_success(), "{}", reply.text());
        let names = ["input", "cached_input", "cache_write", "output", "reasoning"];
        for (name, (total, tokens)) in names.iter().zip(totals.iter_mut().zip(expected)) {
            *total += tokens;
            let metric = format!("steadfast_group_{name}_tokens_total{{group=\"team\"}}");
            gateway.metric_reaches(&metric, *total).await;
            gateway
                .metric_reaches(&format!("steadfast_{name}_tokens_total{{"), *total)
                .await;
        }
    }
}

//! Tests of background responses: polled, cancelled, and streamed again.

use super::super::Act;
use super::*;

const LONG: Duration = Duration::from_secs(3600);

fn in_background(stream: Value) -> Value {
    json!({"model": "gpt-5.2", "input": "Say hello.", "background": true, "stream": stream})
}

async fn with_delay(background: Duration) -> Sim {
    let config = SimConfig {
        background,
        ..SimConfig::default()
    };
    start(config).await
}

async fn poll_until(sim: &Sim, path: &str, status: &str) -> Value {
    let poll = async {
        loop {
            let seen = get(sim, path).await.json();
            if seen["status"] == status {
                break seen;
            }
        }
    };
    timeout(PATIENCE, poll).await.unwrap()
}

#[tokio::test]
async fn a_background_response_completes_on_its_own() {
    let sim = with_delay(Duration::from_millis(20)).await;
    let made = ask(&sim, &in_background(json!(false))).await.json();
    assert_eq!((&made["status"], &made["background"]), (&json!("queued"), &json!(true)));
    assert_eq!((&made["usage"], &made["output"]), (&Value::Null, &json!([])));
    let done = poll_until(&sim, &format!("/v1/responses/{}", id_of(&made)), "completed").await;
    assert_eq!(done["usage"]["input_tokens"], 3);
    assert!(
        done["output"][0]["content"][0]["text"]
            .as_str()
            .unwrap()
            .starts_with("sim answers")
    );
    let unstored = json!({"model": "m", "input": "x", "background": true, "store": false});
    assert_eq!(ask(&sim, &unstored).await.status, StatusCode::BAD_REQUEST);
    sim.stop().await;
}

#[tokio::test]
async fn a_background_response_in_progress_has_no_usage_and_can_be_cancelled() {
    let sim = with_delay(LONG).await;
    let path = format!(
        "/v1/responses/{}",
        id_of(&ask(&sim, &in_background(json!(false))).await.json())
    );
    let polled = get(&sim, &path).await.json();
    assert_eq!(
        (&polled["status"], &polled["usage"]),
        (&json!("in_progress"), &Value::Null)
    );
    let cancelled = post(&sim, &format!("{path}/cancel"), &json!({})).await.json();
    assert_eq!(
        (&cancelled["status"], &cancelled["usage"]),
        (&json!("cancelled"), &Value::Null)
    );
    assert_eq!(get(&sim, &path).await.json(), cancelled);
    let events = get(&sim, &format!("{path}?stream=true")).await.events();
    assert_eq!(events.last().unwrap()["type"], "response.cancelled");
    sim.stop().await;
}

#[tokio::test]
async fn the_script_sets_how_long_a_response_is_in_progress() {
    let sim = with_delay(LONG).await;
    let act = Act {
        background: Some(Duration::ZERO),
        ..Act::default()
    };
    sim.script().once("/v1/responses", act);
    let path = format!(
        "/v1/responses/{}",
        id_of(&ask(&sim, &in_background(json!(false))).await.json())
    );
    assert_eq!(get(&sim, &path).await.json()["status"], "completed");
    sim.stop().await;
}

#[tokio::test]
async fn a_background_stream_is_resumed_after_any_event() {
    let sim = with_delay(Duration::from_millis(20)).await;
    let events = ask(&sim, &in_background(json!(true))).await.events();
    let kinds: Vec<&str> = events
        .iter()
        .take(3)
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["response.created", "response.queued", "response.in_progress"]);
    let path = format!("/v1/responses/{}?stream=true", id_of(&events[0]["response"]));
    assert_eq!(get(&sim, &path).await.events(), events);
    for number in [0, 2, 5, events.len() - 1, 1000] {
        let rest = get(&sim, &format!("{path}&starting_after={number}")).await;
        let expected = events.get(number + 1..).unwrap_or_default();
        if expected.is_empty() {
            assert!(rest.body.is_empty(), "{number}");
        } else {
            assert_eq!(rest.events(), expected, "{number}");
        }
    }
    let wrong = get(&sim, &format!("{path}&starting_after=x")).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
    sim.stop().await;
}

#[tokio::test]
async fn the_output_of_a_background_stream_comes_when_it_is_due() {
    let sim = with_delay(LONG).await;
    let mut tcp = dial(&sim, &raw(&in_background(json!(true)))).await;
    let seen = String::from_utf8(read_until(&mut tcp, "response.in_progress").await).unwrap();
    assert!(!seen.contains("response.output_item.added"), "{seen}");
    let path = format!("/v1/responses/{}", id_in(&seen));
    assert_eq!(get(&sim, &path).await.json()["status"], "in_progress");
    let resume = format!("GET {path}?stream=true&starting_after=0 HTTP/1.1\r\nhost: sim\r\n\r\n");
    let mut second = dial(&sim, resume.as_bytes()).await;
    let seen = String::from_utf8(read_until(&mut second, "response.in_progress").await).unwrap();
    assert!(
        !seen.contains("response.created") && !seen.contains("response.output_item.added"),
        "{seen}"
    );
    sim.stop().await;
}

#[tokio::test]
async fn a_background_stream_that_was_dropped_goes_on() {
    let sim = with_delay(Duration::from_millis(50)).await;
    let mut tcp = dial(&sim, &raw(&in_background(json!(true)))).await;
    let id = id_in(&String::from_utf8(read_until(&mut tcp, "response.queued").await).unwrap());
    drop(tcp);
    let rest = get(&sim, &format!("/v1/responses/{id}?stream=true&starting_after=0"))
        .await
        .events();
    assert_eq!(rest[0]["type"], "response.queued");
    let last = rest.last().unwrap();
    assert_eq!(
        (&last["type"], id_of(&last["response"])),
        (&json!("response.completed"), id)
    );
    sim.stop().await;
}

/// Returns the first id in the text of a stream.
fn id_in(stream: &str) -> String {
    stream
        .split("\"id\":\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap()
        .to_owned()
}

//! Streams that fail: before the first output the request goes to another account and the caller does not notice; after
//! it the account's health is told, and the caller receives the stream unchanged.

use std::time::Duration;

use serde_json::json;
use steadfast::sim::{Act, Close, Point};

use crate::kit::{
    gateway::{self, Gateway},
    streams::*,
    until, until_true,
    upstream::{request, serve_connections},
    wire::{self, End, Wire},
};

async fn check_failures(dialect: Dialect) {
    let openings = dialect.openings();
    for (number, failure) in dialect.failures().into_iter().enumerate() {
        for shift in 0..2 {
            let opening = &openings[(2 * number + shift) % openings.len()];
            let mut act = stream(&[opening.clone(), failure.events.clone()].concat());
            act.split = [None, Some(1009), Some(64)][(number + shift) % 3];
            let what = format!("{dialect:?} {} {:?} {:.300}", failure.name, act.split, opening.concat());
            check_failover(dialect, act, failure.effect, &what).await;
        }
    }
}

#[tokio::test]
async fn a_responses_stream_that_fails_before_its_first_output_is_replaced() {
    check_failures(Responses).await;
}

#[tokio::test]
async fn a_chat_stream_that_fails_before_its_first_output_is_replaced() {
    check_failures(Chat).await;
}

#[tokio::test]
async fn a_messages_stream_that_fails_before_its_first_output_is_replaced() {
    check_failures(Messages).await;
}

#[tokio::test]
async fn a_stream_that_ends_or_breaks_before_its_first_output_is_replaced() {
    for dialect in [Responses, Chat, Messages] {
        for (number, opening) in dialect.openings().into_iter().enumerate() {
            let cut = |how| Act {
                cut: Some((Point::Events(opening.len()), how)),
                ..stream(&opening)
            };
            let how = [Close::Fin, Close::Reset][number % 2];
            check_failover(dialect, cut(how), Failed, &format!("{dialect:?} {how:?} {number}")).await;
            check_failover(dialect, stream(&opening), Failed, &format!("{dialect:?} end {number}")).await;
        }
    }
}

#[tokio::test]
async fn a_failure_that_the_request_has_caused_is_passed_on() {
    let no_code = json!({"type": "error", "code": null, "message": "no", "param": null});
    let failed = response_failed(json!({"code": "context_length_exceeded", "message": "no"}));
    let responses = [&Responses.openings()[1][..], &[event(&no_code), event(&failed)]].concat();
    let incomplete = json!({"type": "response.incomplete", "response": {"id": "resp_1"}});
    let filtered = [&Responses.openings()[1][..], &[event(&incomplete)]].concat();
    let invalid = json!({"type": "error", "error": {"type": "invalid_request_error", "message": "no"}});
    let messages = [&Messages.openings()[0][..], &[event(&invalid)]].concat();
    for (dialect, pieces) in [(Responses, responses), (Responses, filtered), (Messages, messages)] {
        let (sims, gateway, key) = start(dialect, HEAD).await;
        sims[0].script().once(dialect.path(), stream(&pieces));
        let answer = ask(&gateway, dialect, &key).await;
        assert_eq!((answer.end, answer.text()), (End::Whole, text(&pieces)));
        assert_eq!(answer.header("x-steadfast-route"), Some("home"));
        check_effect(&gateway, Nothing, "passed on").await;
    }
}

#[tokio::test]
async fn when_the_streams_of_all_accounts_fail_the_last_one_is_passed_on() {
    let (sims, gateway, key) = start(Responses, HEAD).await;
    let overloaded = &responses_failures()[2];
    let pieces = [&Responses.openings()[2][..], &overloaded.events].concat();
    for sim in &sims {
        sim.script().clear();
        sim.script().always(stream(&pieces));
    }
    let answer = ask(&gateway, Responses, &key).await;
    assert_eq!((answer.status, answer.text()), (200, text(&pieces)));
    // A stream that says nothing is of no use.
    for sim in &sims {
        sim.script().clear();
        sim.script().always(stream(&Responses.openings()[1]));
    }
    let answer = ask(&gateway, Responses, &key).await;
    assert_eq!((answer.status, answer.error_code().as_str()), (502, "upstream_broken"));
}

#[tokio::test]
async fn a_stream_is_held_back_no_further_than_configured() {
    let failure = &responses_failures()[0];
    let pieces = [&Responses.openings()[2][..], &failure.events].concat();
    for limit in ["decide_bytes = \"4KiB\"", "decide_within = \"0s\""] {
        let (sims, gateway, key) = start(Responses, &format!("{HEAD}{limit}\n")).await;
        sims[0].script().once("/v1/responses", stream(&pieces));
        let answer = ask(&gateway, Responses, &key).await;
        assert_eq!((answer.end, answer.text()), (End::Whole, text(&pieces)), "{limit}");
        assert_eq!(answer.header("x-steadfast-upstream"), Some("a"), "{limit}");
        // The account's health is told all the same.
        check_effect(&gateway, failure.effect, limit).await;
        assert_eq!(
            ask(&gateway, Responses, &key).await.header("x-steadfast-upstream"),
            Some("b")
        );
    }
}

#[tokio::test]
async fn a_silent_stream_is_passed_on_after_the_configured_time() {
    let opening = Responses.openings()[1].concat();
    let begun = opening.clone();
    let upstream = serve_connections(move |mut wire: Wire| {
        let begun = begun.clone();
        async move {
            request(&mut wire).await;
            wire.send(format!("{}{}", wire::EVENTS, wire::chunk(&begun))).await;
            wire.closing().await;
        }
    })
    .await;
    let config = format!("{HEAD}decide_within = \"150ms\"\n");
    let config = config + &gateway::upstream_at("a", &format!("http://{upstream}/v1"), "");
    let gateway = Gateway::configured(&config).await;
    let mut client = Wire::open(gateway.address).await;
    client.send(wire::post("/v1/responses", crate::kit::STREAM)).await;
    let begun = std::time::Instant::now();
    client.skip_to(opening.trim_end()).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_that_leaves_while_its_stream_is_held_back_cancels_the_request() {
    let (sims, gateway, key) = start(Responses, &format!("{HEAD}decide_within = \"60s\"\n")).await;
    sims[0].script().always(Act {
        stall: Some(Point::Events(1)),
        ..stream(&Responses.openings()[1])
    });
    let body = json!({"model": "gpt-5.2", "input": "hi", "stream": true, "prompt_cache_key": key});
    let mut client = Wire::open(gateway.address).await;
    client.send(wire::post("/v1/responses", &body.to_string())).await;
    until_true("the request to be in flight", || sims[0].counts().in_flight == 1).await;
    assert_eq!(client.rest(), "", "the stream is held back");
    drop(client);
    until_true("the request to be cancelled", || sims[0].counts().in_flight == 0).await;
    assert_eq!((sims[0].counts().aborted, sims[1].counts().requests), (1, 0));
    check_effect(&gateway, Nothing, "the client left").await;
}

#[tokio::test]
async fn a_failure_after_the_first_output_reaches_the_caller_and_the_accounts_health() {
    for dialect in [Responses, Chat, Messages] {
        let begun = [&dialect.openings()[0][..], &[dialect.output(), dialect.output()]].concat();
        for (number, failure) in dialect.failures().into_iter().enumerate() {
            let pieces = [begun.clone(), failure.events].concat();
            let mut act = stream(&pieces);
            act.split = [None, Some(100)][number % 2];
            check_late(dialect, act, &pieces, End::Whole, failure.effect).await;
        }
    }
}

#[tokio::test]
async fn the_reset_of_a_late_limit_may_be_named_by_its_second_event() {
    let begun = [&Responses.openings()[0][..], &[Responses.output()]].concat();
    let error = json!({"type": "error", "code": "rate_limit_exceeded", "message": "no"});
    let failed = response_failed(json!({"code": "rate_limit_exceeded", "message": "Try again in 44s."}));
    let pieces = [&begun[..], &[event(&error), event(&failed)]].concat();
    let mut act = stream(&pieces);
    act.split = Some(50);
    check_late(Responses, act, &pieces, End::Whole, Cooling(44)).await;
}

#[tokio::test]
async fn a_stream_that_is_cut_after_its_first_output_is_a_failure_of_the_account() {
    for dialect in [Responses, Chat, Messages] {
        let begun = [&dialect.openings()[0][..], &[dialect.output()]].concat();
        let cut = Act {
            cut: Some((Point::Events(begun.len()), Close::Fin)),
            ..stream(&begun)
        };
        check_late(dialect, cut, &begun, End::Cut, Failed).await;
        // A chat completion may end without `[DONE]`.
        let effect = if dialect == Chat { Nothing } else { Failed };
        check_late(dialect, stream(&begun), &begun, End::Whole, effect).await;
        let whole = [&begun[..], &[dialect.last()]].concat();
        check_late(dialect, stream(&whole), &whole, End::Whole, Nothing).await;
    }
}

#[tokio::test]
async fn a_failure_after_the_first_output_that_the_request_has_caused_is_not_the_accounts() {
    let begun = [&Responses.openings()[0][..], &[Responses.output()]].concat();
    for last in [
        response_failed(json!({"code": "context_length_exceeded", "message": "no"})),
        response_failed(json!({"code": "content_filter", "message": "no"})),
        json!({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}}),
    ] {
        let pieces = [&begun[..], &[event(&last)]].concat();
        check_late(Responses, stream(&pieces), &pieces, End::Whole, Nothing).await;
    }
}

#[tokio::test]
async fn a_client_that_leaves_after_the_first_output_is_no_failure() {
    let (sims, gateway, key) = start(Responses, HEAD).await;
    let pieces = [&Responses.openings()[1][..], &[Responses.output()]].concat();
    sims[0].script().once(
        "/v1/responses",
        Act {
            stall: Some(Point::Events(pieces.len())),
            ..stream(&pieces)
        },
    );
    let body = json!({"model": "gpt-5.2", "input": "hi", "stream": true, "prompt_cache_key": key});
    let mut client = Wire::open(gateway.address).await;
    client.send(wire::post("/v1/responses", &body.to_string())).await;
    client.skip_to("output_text.delta").await;
    drop(client);
    until_true("the request to be cancelled", || sims[0].counts().in_flight == 0).await;
    let line = until("an access log line", || std::future::ready(gateway.access().pop())).await;
    assert_eq!(line["outcome"], "client_gone");
    check_effect(&gateway, Nothing, "the client left").await;
}

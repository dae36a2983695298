//! Tests what happens if upstreams answer that they do not have the model.

use super::*;
use crate::{ids::ModelKey, policy::health::HealthState};

/// The upstreams in the session's order, with the steps of each.
fn script<'a>(order: &'a [String], steps: &'a [&'a [ScriptedStep]]) -> Vec<(&'a str, &'a [ScriptedStep])> {
    order.iter().map(String::as_str).zip(steps.iter().copied()).collect()
}

/// Records that the list of an upstream names the model of the turns, or another model only.
fn list(gateway: &Gateway, name: &str, model: &str) {
    let snapshot = gateway.snapshot();
    let upstream = snapshot.upstream_of(UpstreamId::from_name(name)).expect("an upstream");
    let models = [ModelKey::from_name(model)];
    gateway
        .runtime
        .models
        .record_list(upstream.account, models, gateway.clock.now());
}

#[tokio::test(start_paused = true)]
async fn the_turn_moves_on_without_attempts_and_retries_and_the_refusal_is_remembered() {
    let gateway = three_upstreams("[retry]\nattempts = 1\nbudget = 0.0");
    let order = order(&gateway);
    spend_retry_budget(&gateway);
    let steps: [&[ScriptedStep]; 3] = [&[MODEL_NOT_FOUND], &[MODEL_NOT_FOUND], &[SERVED, SERVED]];
    let script = script(&order, &steps);
    let ended = Scenario::new(&gateway, &script).run().await;
    assert_eq!(ended, (order.clone(), answer(&*order[2], 200)));
    let ended = Scenario::new(&gateway, &[(&order[2], &[SERVED])]).run().await;
    assert_eq!(ended, (vec![order[2].clone()], answer(&*order[2], 200)));
    assert_eq!(pin(&gateway), Some(UpstreamId::from_name(&order[2])));
    for upstream in gateway.snapshot().upstreams() {
        assert_eq!(upstream.state.status().state, HealthState::Ready, "{}", upstream.name);
    }
}

#[tokio::test(start_paused = true)]
async fn if_every_upstream_refuses_the_model_the_caller_gets_their_answer_and_later_one_is_asked() {
    let gateway = three_upstreams("");
    let order = order(&gateway);
    let steps: [&[ScriptedStep]; 3] = [&[MODEL_NOT_FOUND]; 3];
    let ended = Scenario::new(&gateway, &script(&order, &steps)).run().await;
    assert_eq!(ended, (order.clone(), answer(&*order[0], 404)));
    for _ in 0..3 {
        let again = Scenario::new(&gateway, &[(&order[0], &[MODEL_NOT_FOUND])]).run().await;
        assert_eq!(again, (vec![order[0].clone()], answer(&*order[0], 404)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_better_answer_than_a_missing_model_is_passed_on() {
    for (first, status, code) in [
        (FAILED, Some(500), ""),
        (UNREACHABLE, None, "upstream_unreachable"),
        (limited(429, LONG), None, "usage_limit_reached"),
    ] {
        let gateway = three_upstreams("");
        let order = order(&gateway);
        let steps: [&[ScriptedStep]; 3] = [&[first], &[MODEL_NOT_FOUND], &[MODEL_NOT_FOUND]];
        let (sent, ended) = Scenario::new(&gateway, &script(&order, &steps)).run().await;
        assert_eq!(sent, order);
        let expected = status.map_or(Ended::Fault(code), |status| answer(&*order[0], status));
        assert_eq!(ended, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_limited_upstream_counts_only_if_it_is_known_to_have_the_model() {
    for (listed, expected) in [("other", None), ("gpt-5.2", Some("usage_limit_reached"))] {
        let gateway = three_upstreams("");
        let order = order(&gateway);
        let steps: [&[ScriptedStep]; 2] = [&[limited(429, LONG)], &[SERVED]];
        Scenario::new(&gateway, &script(&order, &steps)).run().await;
        list(&gateway, &order[0], listed);
        let steps: [&[ScriptedStep]; 3] = [&[], &[MODEL_NOT_FOUND], &[MODEL_NOT_FOUND]];
        let (sent, ended) = Scenario::new(&gateway, &script(&order, &steps)).run().await;
        assert_eq!(sent, order[1..]);
        let expected = expected.map_or(answer(&*order[1], 404), Ended::Fault);
        assert_eq!(ended, expected, "the limited upstream lists {listed}");
    }
}

#[tokio::test(start_paused = true)]
async fn upstreams_that_list_the_model_come_first_and_the_others_only_after_their_refusal() {
    let gateway = three_upstreams("");
    let order = order(&gateway);
    for name in &order[..2] {
        list(&gateway, name, "other");
    }
    list(&gateway, &order[2], "gpt-5.2");
    let ended = Scenario::new(&gateway, &[(&order[2], &[SERVED])]).run().await;
    assert_eq!(ended, (vec![order[2].clone()], answer(&*order[2], 200)));
    let steps: [&[ScriptedStep]; 3] = [&[SERVED], &[], &[MODEL_NOT_FOUND]];
    let ended = Scenario::new(&gateway, &script(&order, &steps)).run().await;
    assert_eq!(
        ended,
        (vec![order[2].clone(), order[0].clone()], answer(&*order[0], 200))
    );
}

#[tokio::test(start_paused = true)]
async fn the_owner_of_named_state_is_asked_whatever_is_known_and_its_answer_is_passed_on() {
    let gateway = three_upstreams("");
    list(&gateway, "a", "gpt-5.2");
    list(&gateway, "b", "other");
    let snapshot = gateway.snapshot();
    let key = OwnedKey::from_object(
        snapshot.access.anonymous().namespace,
        kit::previous_response("resp_1").id,
    );
    gateway
        .runtime
        .owners
        .confirm(key, None, UpstreamId::from_name("b"), gateway.clock.now());
    for _ in 0..2 {
        let mut scenario = Scenario::new(&gateway, &[("b", &[MODEL_NOT_FOUND])]);
        scenario.previous_response = Some("resp_1");
        assert_eq!(scenario.run().await, (vec!["b".to_owned()], answer("b", 404)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_keeps_its_pin_at_an_upstream_that_lacks_one_model() {
    let gateway = three_upstreams("");
    let order = order(&gateway);
    set_pin(&gateway, &order[1]);
    let steps: [&[ScriptedStep]; 3] = [&[SERVED, SERVED], &[MODEL_NOT_FOUND], &[]];
    let script = script(&order, &steps);
    for _ in 0..2 {
        let ended = Scenario::new(&gateway, &script).run().await;
        assert_eq!(ended.1, answer(&*order[0], 200));
        assert_eq!(pin(&gateway), Some(UpstreamId::from_name(&order[1])));
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_a_body_to_repeat_ends_with_the_answer() {
    let gateway = three_upstreams("");
    let order = order(&gateway);
    let mut scenario = Scenario::new(&gateway, &[(&order[0], &[MODEL_NOT_FOUND])]);
    scenario.bodies = 1;
    assert_eq!(scenario.run().await, (vec![order[0].clone()], answer(&*order[0], 404)));
}

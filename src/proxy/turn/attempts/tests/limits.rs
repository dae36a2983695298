//! Tests how a turn waits out limits, and what that costs.

use super::*;

const SHORT: ScriptedStep = limited(429, Duration::from_secs(2));

#[tokio::test(start_paused = true)]
async fn every_request_waits_while_all_upstreams_are_limited_for_a_short_time() {
    for is_pinned in [false, true] {
        for seconds in [1, 2, 4, 10, 50] {
            let gateway = three_upstreams("[retry]\nattempts = 3\n");
            if is_pinned {
                set_pin(&gateway, "a");
            }
            let limit = limited(429, Duration::from_secs(seconds));
            let steps = [limit, SERVED];
            let script: [(&str, &[ScriptedStep]); 3] = ["a", "b", "c"].map(|name| (name, &steps[..]));
            let began = Instant::now();
            let (sent, ended) = Scenario::new(&gateway, &script).run().await;
            assert!(
                matches!(ended, Ended::Answer(_, 200)),
                "{seconds} s, {is_pinned}: {ended:?} {sent:?}"
            );
            let took = began.elapsed();
            assert!(
                took >= Duration::from_secs(seconds) && took < Duration::from_secs(seconds + 1),
                "{took:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_is_waited_out_is_no_attempt_and_costs_no_retry() {
    for attempts in [1, 3] {
        let gateway = testing::gateway(&format!("[retry]\nattempts = {attempts}\n"));
        set_pin(&gateway, "a");
        spend_retry_budget(&gateway);
        let (sent, ended) = Scenario::new(&gateway, &[("a", &[SHORT, SHORT, SHORT, SHORT, SERVED])])
            .run()
            .await;
        assert_eq!((sent.len(), ended), (5, answer("a", 200)), "{attempts} attempts");
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_may_not_be_tried_elsewhere_waits_for_the_upstreams_that_have_limited_it() {
    let gateway = three_upstreams("[retry]\nattempts = 1\n");
    let order = order(&gateway);
    let (sent, ended) = Scenario::new(&gateway, &[(&order[0], &[SHORT, SERVED])]).run().await;
    let own = order[0].clone();
    assert_eq!((sent, ended), (vec![own.clone(), own.clone()], answer(own, 200)));
}

#[tokio::test(start_paused = true)]
async fn a_limit_costs_no_retry_and_a_failure_does() {
    for (step, is_served) in [(SHORT, true), (FAILED, false)] {
        let gateway = three_upstreams("");
        spend_retry_budget(&gateway);
        let order = order(&gateway);
        let script: [(&str, &[ScriptedStep]); 2] = [(&order[0], std::slice::from_ref(&step)), (&order[1], &[SERVED])];
        let (_, ended) = Scenario::new(&gateway, &script).run().await;
        assert_eq!(ended == answer(order[1].clone(), 200), is_served, "{ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_without_credit_is_not_waited_for() {
    let gateway = three_upstreams("");
    let quota = limited_by(429, None, LimitCause::Quota);
    let script: [(&str, &[ScriptedStep]); 3] = ["a", "b", "c"].map(|name| (name, std::slice::from_ref(&quota)));
    let began = Instant::now();
    let (sent, ended) = Scenario::new(&gateway, &script).run().await;
    assert_eq!((sent.len(), began.elapsed()), (3, Duration::ZERO));
    assert!(matches!(ended, Ended::Fault(_)), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_limit_without_a_reset_is_waited_out_in_growing_steps() {
    for is_pinned in [false, true] {
        let gateway = testing::gateway("");
        if is_pinned {
            set_pin(&gateway, "a");
        }
        let bare = limited_by(429, None, LimitCause::Rate);
        let steps = [bare, bare, bare, bare, SERVED];
        let script: [(&str, &[ScriptedStep]); 2] = ["a", "b"].map(|name| (name, &steps[..]));
        let began = Instant::now();
        let (sent, ended) = Scenario::new(&gateway, &script).run().await;
        assert!(matches!(ended, Ended::Answer(_, 200)), "{ended:?} {sent:?}");
        assert!(sent.len() <= 9, "{sent:?}");
        let took = began.elapsed();
        assert!(
            took > Duration::from_secs(9) && took < Duration::from_secs(25),
            "{took:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_health_does_not_believe_does_not_end_the_turn() {
    let gateway = testing::gateway("");
    set_pin(&gateway, "a");
    let snapshot = gateway.snapshot();
    let state = snapshot.upstreams()[0].state.clone();
    // The operator enables the upstream while the request is in flight.
    let enable = move || {
        state.enable();
        limited(429, LONG)
    };
    let mut scenario = Scenario::new(&gateway, &[("a", &[SERVED])]);
    scenario.first = Some(Box::new(enable));
    let (sent, ended) = scenario.run().await;
    assert_eq!((sent, ended), (vec!["a".to_owned(), "a".to_owned()], answer("a", 200)));
}

#[tokio::test(start_paused = true)]
async fn a_turn_whose_upstream_is_limited_and_the_others_fail_waits_for_the_limit() {
    let gateway = three_upstreams("[retry]\nattempts = 3\n");
    let order = order(&gateway);
    let script: [(&str, &[ScriptedStep]); 3] = [
        (&order[0], &[SHORT, SERVED]),
        (&order[1], &[FAILED]),
        (&order[2], &[UNREACHABLE]),
    ];
    let (sent, ended) = Scenario::new(&gateway, &script).run().await;
    assert_eq!((sent.len(), ended), (4, answer(order[0].clone(), 200)));
}

//! What attempts leave behind: the health of upstreams, metrics, the log line and the charge.

use super::*;
use crate::{
    policy::Availability,
    proxy::{request_log::testing::AccessLog, turn::limits::FinalUsage},
    state::DeferredCharges,
};

#[tokio::test(start_paused = true)]
async fn only_the_upstreams_own_failures_count_against_its_health() {
    // Whether the failure counts if the other upstream serves the request, answers that it is wrong, or fails as well.
    for (number, (step, if_served, otherwise)) in [
        (UNREACHABLE, true, true),
        (BROKEN, true, false),
        (FAILED, true, false),
        (BROKEN_OFF, true, false),
        (TIMEOUT, false, false),
        (NOT_SENDABLE, false, false),
        (NO_BODY, false, false),
        (BAD_REQUEST, false, false),
    ]
    .into_iter()
    .enumerate()
    {
        for (other, is_counted) in [(SERVED, if_served), (BAD_REQUEST, otherwise), (FAILED, otherwise)] {
            let gateway = testing::gateway("[retry]\non_timeout = true\nbudget = 1.0\n");
            let other_id = UpstreamId::from_name("b");
            for _ in 0..8 {
                // Moments apart, as failures of separate requests are.
                tokio::time::advance(Duration::from_millis(10)).await;
                // The brake of the session would stop the turns.
                gateway.runtime.brakes.clear();
                gateway.runtime.pins.remove(kit::session_key(&gateway));
                set_pin(&gateway, "a");
                Scenario::new(&gateway, &[("a", &[step]), ("b", &[other])]).run().await;
            }
            let snapshot = gateway.snapshot();
            let is_ejected = |id| {
                let upstream = snapshot.upstream_of(id).expect("a configured upstream");
                matches!(
                    upstream.state.availability(RequestClass::generation(None)),
                    Availability::Ejected { .. }
                )
            };
            assert_eq!(is_ejected(UpstreamId::from_name("a")), is_counted, "row {number}");
            assert!(!is_ejected(other_id), "row {number}: the other upstream");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failover_is_counted_with_its_reason_at_the_upstream_that_failed() {
    for (step, reason) in [
        (UNREACHABLE, "connect"),
        (TIMEOUT, "timeout"),
        (BROKEN, "broken"),
        (FAILED, "failed"),
        (REFUSED, "refused"),
        (limited(429, LONG), "limited"),
    ] {
        let gateway = testing::gateway("[retry]\non_timeout = true\n");
        let order = order(&gateway);
        let script: [(&str, &[ScriptedStep]); 2] = [(&order[0], &[step]), (&order[1], &[SERVED])];
        Scenario::new(&gateway, &script).run().await;
        let scrape = gateway.scrape();
        let failovers: Vec<&str> = scrape
            .lines()
            .filter(|line| line.starts_with("steadfast_failovers_total{"))
            .collect();
        let expected = format!(
            "steadfast_failovers_total{{reason=\"{reason}\",upstream=\"{}\"}} 1",
            order[0]
        );
        assert_eq!(failovers, [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_is_counted_even_if_no_other_upstream_gets_the_request() {
    for (step, reason) in [
        (UNREACHABLE, "connect"),
        (TIMEOUT, "timeout"),
        (BROKEN, "broken"),
        (FAILED, "failed"),
        (REFUSED, "refused"),
        (limited(429, LONG), "limited"),
    ] {
        let gateway = testing::gateway("[retry]\nattempts = 1\n");
        let order = order(&gateway);
        Scenario::new(&gateway, &[(&order[0], &[step])]).run().await;
        let scrape = gateway.scrape();
        let name = &order[0];
        let expected = format!("steadfast_failed_attempts_total{{reason=\"{reason}\",upstream=\"{name}\"}} 1");
        assert!(scrape.lines().any(|line| line == expected), "{expected}");
        assert!(!scrape.contains("steadfast_failovers_total{"), "{reason}");
    }
    let gateway = testing::gateway("");
    Scenario::new(&gateway, &[("a", &[SERVED]), ("b", &[BAD_REQUEST])])
        .run()
        .await;
    assert!(!gateway.scrape().contains("steadfast_failed_attempts_total{"));
}

#[tokio::test(start_paused = true)]
async fn a_second_attempt_at_the_same_upstream_is_no_failover() {
    let gateway = testing::gateway("");
    set_pin(&gateway, "a");
    let limit = limited(429, Duration::from_secs(2));
    Scenario::new(&gateway, &[("a", &[limit, SERVED])]).run().await;
    assert!(!gateway.scrape().contains("steadfast_failovers_total{"));
}

#[tokio::test(start_paused = true)]
async fn a_request_counts_once_for_the_retry_budget_and_the_overhead_however_often_it_is_sent() {
    let gateway = testing::gateway("[retry]\nbudget = 1.0\n");
    spend_retry_budget(&gateway);
    for _ in 0..3 {
        Scenario::new(&gateway, &[("a", &[SERVED]), ("b", &[SERVED])])
            .run()
            .await;
    }
    assert!(gateway.scrape().contains("steadfast_proxy_overhead_seconds_count 3"));
    let granted = (0..10).take_while(|_| gateway.runtime.retries.try_spend()).count();
    assert_eq!(granted, 3, "each request has earned one retry");
}

#[tokio::test(start_paused = true)]
async fn the_log_line_has_the_number_of_attempts_and_the_time_of_waiting() {
    let access_log = AccessLog::default();
    let _capturing = access_log.capture();
    let gateway = testing::gateway("");
    set_pin(&gateway, "a");
    let limit = limited(429, Duration::from_secs(2));
    Scenario::new(&gateway, &[("a", &[limit, SERVED])]).run().await;
    let line = access_log.only_line();
    assert_eq!(line["attempts"], 2);
    let waited = line["waited_ms"].as_f64().expect("a time");
    assert!((2_000.0..3_000.0).contains(&waited), "{waited}");
}

#[tokio::test(start_paused = true)]
async fn a_request_is_charged_from_the_moment_it_is_sent() {
    for (attempts, cost) in [(0, 0), (1, 100)] {
        let gateway = testing::gateway("");
        let key = testing::limited_key("tokens_per_minute = 1000\n");
        let rate_limits = key.rate_limits.as_ref().expect("a limited key");
        let mut charge = Charge::default();
        charge.admit(Some(rate_limits), 400).expect("within the limits");
        let mut scenario = Scenario::new(&gateway, &[("a", &[SERVED]), ("b", &[SERVED])]);
        if attempts == 0 {
            scenario.previous_response = Some("resp_1");
            let namespace = gateway.snapshot().access.anonymous().namespace;
            let (key, now) = (
                OwnedKey::from_object(namespace, crate::ids::ObjectId::from_text(b"resp_1")),
                gateway.clock.now(),
            );
            let removed = UpstreamId::from_name("removed");
            gateway.runtime.owners.confirm(key, None, removed, now);
        }
        let (sent, _) = scenario.run_charged(&mut charge).await;
        assert_eq!(sent.len(), attempts);
        charge.end(FinalUsage::NONE, &DeferredCharges::default());
        let remaining = rate_limits.usage().tokens.expect("a limit on tokens").remaining;
        assert_eq!(remaining, 1_000 - cost);
    }
}

//! What attempts leave behind: the health of upstreams, metrics, the log line and the charge.

use super::*;
use crate::{
    policy::Availability,
    proxy::{request_log::testing::AccessLog, turn::limits::FinalUsage},
};

#[tokio::test(start_paused = true)]
async fn only_the_upstreams_own_failures_count_against_its_health() {
    for (step, is_counted) in [
        (UNREACHABLE, true),
        (TIMEOUT, true),
        (BROKEN, true),
        (FAILED, true),
        (NOT_SENDABLE, false),
        (NO_BODY, false),
        (BAD_REQUEST, false),
    ] {
        let gateway =
            testing::configured("[[upstream]]\nname = \"a\"\nbase_url = \"http://a.test/v1\"\napi_key = \"env:A\"\n");
        for _ in 0..20 {
            // Moments apart, as failures of separate requests are.
            tokio::time::advance(Duration::from_millis(10)).await;
            // The brake of the session would stop the turns.
            gateway.runtime.brakes.clear();
            Scenario::new(&gateway, &[("a", &[step; 5])]).run().await;
        }
        let availability = gateway.snapshot().upstreams()[0].state.availability(None);
        let is_ejected = matches!(availability, Availability::Ejected { .. });
        assert_eq!(is_ejected, is_counted, "{availability:?}");
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
        let gateway = testing::gateway("");
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
            let (key, now) = (OwnedKey::from_response_id(namespace, "resp_1"), gateway.clock.now());
            let removed = UpstreamId::from_name("removed");
            gateway.runtime.owners.confirm(key, None, removed, now);
        }
        let (sent, _) = scenario.run_charged(&mut charge).await;
        assert_eq!(sent.len(), attempts);
        charge.end(FinalUsage::NONE);
        let remaining = rate_limits.usage().tokens.expect("a limit on tokens").remaining;
        assert_eq!(remaining, 1_000 - cost);
    }
}

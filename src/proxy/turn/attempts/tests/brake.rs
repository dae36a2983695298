//! Tests how the brake stops turns that fail everywhere, and how a session goes elsewhere after a failure.

use super::*;

const BRAKED: Ended = Ended::Fault("upstreams_unavailable");

/// Runs a turn whose upstreams all behave like this, however often they are called.
async fn run_all(gateway: &Arc<Gateway>, step: ScriptedStep) -> (Vec<String>, Ended) {
    let steps = [step; 3];
    Scenario::new(gateway, &[("a", &steps), ("b", &steps), ("c", &steps)])
        .run()
        .await
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

/// Makes two turns fail everywhere.
async fn brake_session(gateway: &Arc<Gateway>) {
    for _ in 0..2 {
        let (called, ended) = run_all(gateway, FAILED).await;
        assert_eq!(called.len(), 3);
        assert!(matches!(ended, Ended::Answer(_, 500)), "{ended:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_failed_everywhere_twice_is_refused_except_for_single_probes() {
    let gateway = three_upstreams("");
    brake_session(&gateway).await;
    assert_eq!(run_all(&gateway, FAILED).await, (vec![], BRAKED));
    let mut probed = Vec::new();
    for delay in [4, 8, 16] {
        pass(delay - 1).await;
        assert_eq!(run_all(&gateway, FAILED).await, (vec![], BRAKED));
        pass(1).await;
        let (called, ended) = run_all(&gateway, FAILED).await;
        assert_eq!(called.len(), 1, "a probe is a single attempt");
        assert!(matches!(ended, Ended::Answer(_, 500)), "{ended:?}");
        probed.extend(called);
    }
    assert_eq!(probed, order(&gateway), "the probes go to one upstream after the other");
    let refused = "steadfast_braked_requests_total{reason=\"session\"} 4";
    assert!(gateway.scrape().lines().any(|line| line == refused));
    pass(32).await;
    assert!(matches!(run_all(&gateway, SERVED).await.1, Ended::Answer(_, 200)));
    assert!(matches!(run_all(&gateway, SERVED).await.1, Ended::Answer(_, 200)));
}

#[tokio::test(start_paused = true)]
async fn every_failure_of_an_upstream_brakes() {
    for step in [FAILED, OVERLOADED, UNREACHABLE, BROKEN, BROKEN_OFF] {
        let gateway = three_upstreams("[retry]\nbudget = 1.0\n");
        for _ in 0..2 {
            assert!(!run_all(&gateway, step).await.0.is_empty());
        }
        assert_eq!(run_all(&gateway, step).await, (vec![], BRAKED));
    }
}

#[tokio::test(start_paused = true)]
async fn limits_timeouts_and_errors_of_the_caller_do_not_brake() {
    for step in [TIMEOUT, NOT_SENDABLE, NO_BODY, REFUSED, BAD_REQUEST, limited(429, LONG)] {
        let gateway = three_upstreams("");
        for _ in 0..3 {
            run_all(&gateway, step).await;
            assert!(gateway.runtime.brakes.are_idle());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_before_a_timeout_does_not_count() {
    let gateway = three_upstreams("");
    let order = order(&gateway);
    for _ in 0..3 {
        let steps: Vec<(&str, &[ScriptedStep])> = vec![
            (&order[0], &[FAILED]),
            (&order[1], &[TIMEOUT, TIMEOUT]),
            (&order[2], &[TIMEOUT, TIMEOUT]),
        ];
        assert_eq!(
            Scenario::new(&gateway, &steps).run().await.1,
            Ended::Fault("upstream_timeout")
        );
        assert!(gateway.runtime.brakes.are_idle(), "the last upstream may be working");
    }
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_no_upstream_serves_is_tried_at_the_others_next() {
    let gateway = three_upstreams("[retry]\nattempts = 2\n");
    let order = order(&gateway);
    let first: UpstreamScript = &[(&order[0], &[FAILED]), (&order[1], &[FAILED])];
    assert_eq!(Scenario::new(&gateway, first).run().await.0, order[..2]);
    let second: UpstreamScript = &[(&order[2], &[SERVED])];
    assert_eq!(Scenario::new(&gateway, second).run().await.1, answer(&*order[2], 200));
}

#[tokio::test(start_paused = true)]
async fn a_braked_session_goes_to_an_upstream_that_it_was_not_tried_at() {
    let gateway = three_upstreams("[retry]\nattempts = 1\n");
    let order = order(&gateway);
    for name in &order {
        assert_eq!(run_all(&gateway, FAILED).await.0, [name.as_str()]);
    }
    assert_eq!(run_all(&gateway, FAILED).await, (vec![], BRAKED));
    pass(4).await;
    assert_eq!(run_all(&gateway, FAILED).await.0, order[..1], "the probe");
}

#[tokio::test(start_paused = true)]
async fn a_braked_session_goes_to_an_upstream_that_becomes_ready() {
    let gateway = three_upstreams("");
    let order = order(&gateway);
    let snapshot = gateway.snapshot();
    let last = snapshot.upstreams().iter().find(|upstream| *upstream.name == order[2]);
    let last = &last.expect("a configured upstream").state;
    last.drain();
    for _ in 0..2 {
        assert_eq!(run_all(&gateway, FAILED).await.0, order[..2]);
    }
    assert_eq!(run_all(&gateway, SERVED).await, (vec![], BRAKED));
    last.enable();
    assert_eq!(run_all(&gateway, SERVED).await.1, answer(&*order[2], 200));
    assert!(matches!(run_all(&gateway, SERVED).await.1, Ended::Answer(_, 200)));
}

#[tokio::test(start_paused = true)]
async fn a_session_leaves_an_upstream_that_broke_its_response_if_another_is_ready() {
    let gateway = three_upstreams("");
    let order = order(&gateway);
    set_pin(&gateway, &order[0]);
    let snapshot = gateway.snapshot();
    let turn = open(&gateway, &snapshot, None).expect("nothing is braked");
    let session = turn.class_session().expect("the turn has a session");
    drop(turn);
    let broken = UpstreamId::from_name(&order[0]);
    gateway.runtime.brakes.record_failure_after_output(session, broken);
    let next: UpstreamScript = &[(&order[1], &[SERVED])];
    assert_eq!(Scenario::new(&gateway, next).run().await.1, answer(&*order[1], 200));
    assert_eq!(pin(&gateway), Some(UpstreamId::from_name(&order[1])));

    // A session with owned state stays, because only its own upstream can serve it.
    let owned = OwnedKey::from_object(
        gateway.snapshot().access.anonymous().namespace,
        crate::ids::ObjectId::from_text(b"resp_1"),
    );
    let owner = UpstreamId::from_name(&order[0]);
    gateway.runtime.owners.confirm(owned, None, owner, gateway.clock.now());
    gateway.runtime.brakes.record_failure_after_output(session, broken);
    let script: UpstreamScript = &[(&order[0], &[SERVED])];
    let mut scenario = Scenario::new(&gateway, script);
    scenario.previous_response = Some("resp_1");
    assert_eq!(scenario.run().await.1, answer(&*order[0], 200));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_gives_its_probe_back() {
    let gateway = three_upstreams("");
    brake_session(&gateway).await;
    pass(4).await;
    let snapshot = gateway.snapshot();
    let turn = open(&gateway, &snapshot, None).expect("a probe is due");
    assert!(turn.is_probe());
    assert!(open(&gateway, &snapshot, None).is_err(), "there is one probe at a time");
    drop(turn);
    assert!(
        open(&gateway, &snapshot, None)
            .expect("the probe was given back")
            .is_probe()
    );
}

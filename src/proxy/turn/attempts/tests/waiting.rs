//! Tests which upstreams a session waits for, and which upstreams may receive its state.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_session_waits_for_its_own_upstream_while_that_cools_down_and_holds_no_slot_meanwhile() {
    let gateway = testing::gateway("");
    set_pin(&gateway, "a");
    let began = Instant::now();
    let limit = limited(429, Duration::from_secs(2));
    let waiting = tokio::spawn(Scenario::new(&gateway, &[("a", &[limit, SERVED])]).run());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let snapshot = gateway.snapshot();
    assert_eq!(
        snapshot.upstreams()[0].state.in_flight(),
        0,
        "the lease is given back before the wait"
    );
    assert_eq!(gateway.runtime.waiting(), 1);
    let (sent, ended) = waiting.await.expect("no panic");
    assert_eq!((sent, ended), (vec!["a".to_owned(), "a".to_owned()], answer("a", 200)));
    let took = began.elapsed();
    assert!(
        took >= Duration::from_secs(2) && took < Duration::from_secs(3),
        "{took:?}"
    );
    assert_eq!(pin(&gateway), Some(UpstreamId::from_name("a")));
}

#[tokio::test(start_paused = true)]
async fn a_session_leaves_an_upstream_that_cools_down_for_longer_than_it_waits() {
    let gateway = testing::gateway("");
    set_pin(&gateway, "a");
    let began = Instant::now();
    let (sent, ended) = Scenario::new(&gateway, &[("a", &[limited(429, LONG)]), ("b", &[SERVED])])
        .run()
        .await;
    assert_eq!((sent, ended), (vec!["a".to_owned(), "b".to_owned()], answer("b", 200)));
    assert_eq!(began.elapsed(), Duration::ZERO);
    assert_eq!(pin(&gateway), Some(UpstreamId::from_name("b")), "the session has moved");
}

#[tokio::test(start_paused = true)]
async fn a_session_waits_for_a_slot_at_its_full_upstream() {
    let gateway = testing::configured(
        "[[upstream]]\nname = \"a\"\nbase_url = \"http://a.test/v1\"\napi_key = \"env:A\"\nmax_in_flight = 1\n",
    );
    set_pin(&gateway, "a");
    let snapshot = gateway.snapshot();
    let lease = snapshot.upstreams()[0]
        .state
        .try_acquire(RequestClass::generation(None))
        .expect("a free slot");
    let began = Instant::now();
    let waiting = tokio::spawn(Scenario::new(&gateway, &[("a", &[SERVED])]).run());
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(lease);
    let (sent, ended) = waiting.await.expect("no panic");
    assert_eq!((sent, ended), (vec!["a".to_owned()], answer("a", 200)));
    assert_eq!(began.elapsed(), Duration::from_millis(500));
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_the_same_reset_share_the_slots_of_the_upstream() {
    let gateway = testing::configured(
        "[[upstream]]\nname = \"a\"\nbase_url = \"http://a.test/v1\"\napi_key = \"env:A\"\nmax_in_flight = 2\n",
    );
    let snapshot = gateway.snapshot();
    let state = &snapshot.upstreams()[0].state;
    let request = RequestClass::generation(None);
    let mut limited = state.try_acquire(request).expect("a free slot");
    limited.report(Verdict::Limited {
        reset: Some(Duration::from_secs(10)),
        scope: Scope::Upstream,
        cause: LimitCause::Rate,
    });
    drop(limited);
    let waiting: Vec<_> = (0..20)
        .map(|_| {
            let gateway = gateway.clone();
            tokio::spawn(async move {
                let snapshot = gateway.snapshot();
                let mut turn = open(&gateway, &snapshot, None).expect("the upstream serves every model");
                let picked = turn.next_upstream().await.expect("a slot");
                tokio::time::sleep(Duration::from_millis(150)).await;
                drop(picked);
                Instant::now()
            })
        })
        .collect();
    let began = Instant::now();
    let mut last = began;
    for turn in waiting {
        last = last.max(turn.await.expect("every request gets a slot"));
    }
    let took = last - began;
    assert!(
        took > Duration::from_millis(11_400) && took < Duration::from_millis(11_700),
        "{took:?}"
    );
    // A request that gets no slot does not wait for longer than a new one.
    let _held = [(); 2].map(|()| state.try_acquire(request).expect("a free slot"));
    let mut turn = open(&gateway, &snapshot, None).expect("the upstream serves every model");
    let began = Instant::now();
    assert!(turn.next_upstream().await.is_none());
    assert_eq!(began.elapsed(), Duration::from_secs(2));
}

/// The upstreams `a` and `b` of one organization, and `c` of another. The response `resp_1` was made by `owner`.
fn owned_by(owner: &str) -> Arc<Gateway> {
    let upstream = |name: &str, more: &str| {
        format!(
            "[[upstream]]\nname = \"{name}\"\nbase_url = \"http://{name}.test/v1\"\napi_key = \"env:K{name}\"\n{more}\n"
        )
    };
    let organization = "organization = \"team\"";
    let gateway =
        testing::configured(&(upstream("a", organization) + &upstream("b", organization) + &upstream("c", "")));
    let namespace = gateway.snapshot().access.anonymous().namespace;
    let key = OwnedKey::from_object(namespace, crate::ids::ObjectId::from_text(b"resp_1"));
    let owner = UpstreamId::from_name(owner);
    gateway.runtime.owners.confirm(key, None, owner, gateway.clock.now());
    gateway
}

#[tokio::test(start_paused = true)]
async fn owned_state_is_never_sent_outside_its_organization() {
    let limit = limited(429, LONG);
    let rows: [(&str, UpstreamScript, &[&str], Ended); 6] = [
        ("a", &[("a", &[SERVED])], &["a"], answer("a", 200)),
        (
            "a",
            &[("a", &[FAILED]), ("b", &[SERVED])],
            &["a", "b"],
            answer("b", 200),
        ),
        (
            "b",
            &[("b", &[UNREACHABLE]), ("a", &[FAILED])],
            &["b", "a"],
            answer("a", 500),
        ),
        ("c", &[("c", &[FAILED])], &["c"], answer("c", 500)),
        (
            "a",
            &[("a", &[limit]), ("b", &[limit])],
            &["a", "b"],
            Ended::Fault("usage_limit_reached"),
        ),
        ("removed", &[], &[], Ended::Fault("state_owner_gone")),
    ];
    for (owner, script, expected, expected_end) in rows {
        let gateway = owned_by(owner);
        let mut scenario = Scenario::new(&gateway, script);
        scenario.previous_response = Some("resp_1");
        let (sent, ended) = scenario.run().await;
        assert_eq!(
            (sent, ended),
            (expected.iter().map(|name| (*name).to_owned()).collect(), expected_end),
            "{owner}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn upstreams_that_are_ready_are_picked_without_waiting() {
    let gateway = testing::gateway("");
    let snapshot = gateway.snapshot();
    let mut turn = open(&gateway, &snapshot, None).expect("the upstreams serve every model");
    for name in order(&gateway) {
        let PickStep::Go(picked) = turn.pick_now() else {
            panic!("{name} is ready");
        };
        assert_eq!(*picked.upstream.name, name);
        turn.mark_failed(picked.index);
    }
    assert!(matches!(turn.pick_now(), PickStep::NoneLeft));
}

//! The table of brakes, with paused time.

use std::time::Duration;

use super::{
    table::{MAX_POOLS, MAX_SESSIONS},
    *,
};
use crate::{
    endpoint::EndpointClass,
    ids::{ModelKey, Namespace, SessionKey},
    policy::RequestClass,
};

const A: UpstreamId = UpstreamId::from_u64(1);
const B: UpstreamId = UpstreamId::from_u64(2);

fn organization(upstream: UpstreamId) -> OrganizationId {
    OrganizationId::of_upstream(upstream)
}

fn keys(session: &str) -> BrakeKeys {
    let group = Namespace::of_group("");
    BrakeKeys {
        session: Some(SessionKey::from_text(group, session)),
        pool: PoolKey {
            group,
            session: SessionAge::New,
            class: RequestClass {
                endpoint: EndpointClass::Generation,
                model: Some(ModelKey::from_name("gpt-5.2")),
            },
            eligibility: 0,
            owner: None,
        },
    }
}

fn class_session(session: &str) -> ClassSession {
    keys(session).class_session().expect("the request has a session")
}

/// A request that fails everywhere, unless it is refused.
fn fail(brakes: &Brakes, keys: &BrakeKeys) -> Result<(), BrakeRefusal> {
    let admission = brakes.admit(keys)?;
    brakes.record_failure(keys, brakes.clock.now(), admission.probes, &[A, B]);
    Ok(())
}

fn refused_by(brakes: &Brakes, keys: &BrakeKeys) -> Option<BrakeKind> {
    let admission = brakes.admit(keys);
    admission
        .as_ref()
        .ok()
        .inspect(|admission| brakes.release(keys, admission.probes));
    admission.err().map(|refusal| refusal.by)
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_is_refused_and_others_are_not() {
    let brakes = Brakes::new(Clock::start());
    assert!(brakes.are_idle());
    let keys_of_a = keys("a");
    fail(&brakes, &keys_of_a).expect("nothing has failed");
    assert!(!brakes.are_idle());
    let admission = brakes.admit(&keys_of_a).expect("one failure is not enough");
    assert_eq!(admission.avoided, [A, B]);
    assert!(!admission.probes.has_any());
    fail(&brakes, &keys_of_a).expect("one failure is not enough");
    let refusal = brakes.admit(&keys_of_a).expect_err("two requests have failed");
    let until = brakes.clock.now().after(Duration::from_secs(4));
    let by = BrakeKind::Session;
    assert_eq!(refusal, BrakeRefusal { until, by });
    assert_eq!(brakes.admit(&keys("b")), Ok(BrakeAdmission::default()));
    // The session may still use another model.
    let mut other_model = keys_of_a;
    other_model.pool.class.model = None;
    assert_eq!(brakes.admit(&other_model), Ok(BrakeAdmission::default()));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_is_given_back() {
    let brakes = Brakes::new(Clock::start());
    let keys = keys("a");
    fail(&brakes, &keys).expect("nothing has failed");
    fail(&brakes, &keys).expect("one failure is not enough");
    pass(4).await;
    let probe = brakes.admit(&keys).expect("a probe is due").probes;
    assert!(probe.has_any());
    brakes.admit(&keys).expect_err("there is one probe at a time");
    brakes.release(&keys, probe);
    let probe = brakes.admit(&keys).expect("the probe was given back").probes;
    brakes.record_failure(&keys, brakes.clock.now(), probe, &[A]);
    pass(7).await;
    brakes
        .admit(&keys)
        .expect_err("the next probe is due after eight seconds");
    pass(1).await;
    assert!(brakes.admit(&keys).expect("a probe is due").probes.has_any());
}

#[tokio::test(start_paused = true)]
async fn an_answer_ends_the_brake_of_its_session() {
    let brakes = Brakes::new(Clock::start());
    let keys = keys("a");
    fail(&brakes, &keys).expect("nothing has failed");
    fail(&brakes, &keys).expect("one failure is not enough");
    brakes.admit(&keys).expect_err("the session is braked");
    brakes.record_answer(&keys, B, organization(B));
    let admission = brakes.admit(&keys).expect("a request was served");
    assert_eq!(
        admission.avoided,
        [A],
        "the upstream that served it is no longer avoided"
    );
    pass(31).await;
    brakes.drop_forgotten();
    assert!(brakes.are_idle());
}

#[tokio::test(start_paused = true)]
async fn five_sessions_stop_their_pool_until_a_request_is_served() {
    let brakes = Brakes::new(Clock::start());
    for session in ["a", "b", "c", "d", "e"] {
        fail(&brakes, &keys(session)).expect("four sessions are not enough");
    }
    assert_eq!(refused_by(&brakes, &keys("f")), Some(BrakeKind::Pool));
    let mut keyless = keys("f");
    keyless.session = None;
    assert_eq!(refused_by(&brakes, &keyless), Some(BrakeKind::Pool));
    let change = |change: fn(&mut PoolKey)| {
        let mut keys = keys("f");
        change(&mut keys.pool);
        keys
    };
    for other in [
        change(|pool| pool.group = Namespace::of_group("other")),
        change(|pool| pool.session = SessionAge::Running),
        change(|pool| pool.class.endpoint = EndpointClass::Images),
        change(|pool| pool.eligibility = 1),
        change(|pool| pool.owner = Some(organization(A))),
    ] {
        assert_eq!(refused_by(&brakes, &other), None, "{other:?}");
    }
    pass(1).await;
    let probe = brakes.admit(&keys("f")).expect("a probe is due").probes;
    assert_eq!(refused_by(&brakes, &keys("g")), Some(BrakeKind::Pool));
    brakes.release(&keys("f"), probe);
    // A request of another group, to the same upstreams, is served.
    let served = change(|pool| pool.group = Namespace::of_group("other"));
    brakes.record_answer(&served, A, organization(A));
    assert_eq!(refused_by(&brakes, &keys("g")), None);
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_refuses_a_request_takes_no_probe_from_its_session() {
    let brakes = Brakes::new(Clock::start());
    let keys_of_a = keys("a");
    fail(&brakes, &keys_of_a).expect("nothing has failed");
    fail(&brakes, &keys_of_a).expect("one failure is not enough");
    pass(4).await;
    for session in ["b", "c", "d", "e"] {
        fail(&brakes, &keys(session)).expect("four sessions are not enough");
    }
    assert_eq!(refused_by(&brakes, &keys_of_a), Some(BrakeKind::Pool));
    pass(1).await;
    let probes = brakes.admit(&keys_of_a).expect("both probes are due").probes;
    assert!(probes.session.is_some() && probes.pool.is_some());
}

#[tokio::test(start_paused = true)]
async fn the_answer_of_one_organization_does_not_end_the_brake_of_another() {
    let brakes = Brakes::new(Clock::start());
    let owned = |session: &str| {
        let mut keys = keys(session);
        keys.pool.owner = Some(organization(A));
        keys
    };
    for session in ["a", "b", "c", "d", "e"] {
        fail(&brakes, &owned(session)).expect("four sessions are not enough");
    }
    brakes.record_answer(&keys("g"), B, organization(B));
    assert_eq!(refused_by(&brakes, &owned("f")), Some(BrakeKind::Pool));
    brakes.record_answer(&keys("g"), A, organization(A));
    assert_eq!(refused_by(&brakes, &owned("f")), None);
}

#[tokio::test(start_paused = true)]
async fn a_failure_after_output_is_avoided_but_brakes_nothing() {
    let brakes = Brakes::new(Clock::start());
    for _ in 0..10 {
        brakes.record_failure_after_output(class_session("a"), A);
        let admission = brakes.admit(&keys("a")).expect("output has reached the client");
        assert_eq!((admission.avoided, admission.probes), (vec![A], Probes::default()));
    }
    pass(30).await;
    assert_eq!(brakes.admit(&keys("a")), Ok(BrakeAdmission::default()));
    brakes.drop_forgotten();
    assert!(brakes.are_idle());
}

#[tokio::test(start_paused = true)]
async fn the_table_is_bounded_and_keeps_the_latest_failures() {
    let brakes = Brakes::new(Clock::start());
    for number in 0..=MAX_SESSIONS {
        brakes.record_failure_after_output(class_session(&number.to_string()), A);
        pass(0).await;
        tokio::time::advance(Duration::from_micros(1)).await;
    }
    assert_eq!(brakes.entries.load(Relaxed), MAX_SESSIONS);
    let avoided = |session: &str| brakes.admit(&keys(session)).expect("nothing is braked").avoided;
    assert!(avoided("0").is_empty(), "the oldest entry is dropped");
    assert_eq!(avoided("1"), [A]);
    brakes.clear();
    assert!(brakes.are_idle());

    for number in 0..2 * MAX_POOLS {
        let mut keys = keys("a");
        keys.session = None;
        keys.pool.eligibility = number as u64;
        fail(&brakes, &keys).expect("one failure is not enough");
    }
    assert_eq!(brakes.entries.load(Relaxed), MAX_POOLS);
}

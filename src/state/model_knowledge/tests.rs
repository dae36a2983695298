//! What is known about models, and which upstreams it leaves.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    config::{Config, Overrides},
    policy::MemberIndex,
    state::{Eligibility, Gateway, Snapshot},
};

const START: Tick = Tick::from_nanos(1_000_000_000);

fn config(text: &str) -> Config {
    let env = |_: &str| Some("sk-test".to_owned());
    Config::from_toml(text, "test.toml", &env, &Overrides::default()).expect("a valid configuration")
}

fn upstream(name: &str, settings: &str) -> String {
    format!("[[upstream]]\nname = \"{name}\"\nbase_url = \"http://{name}.test/v1\"\napi_key = \"env:K\"\n{settings}\n")
}

fn gateway(upstreams: &[(&str, &str)]) -> Arc<Gateway> {
    let text: String = upstreams
        .iter()
        .map(|(name, settings)| upstream(name, settings))
        .collect();
    Gateway::new(&config(&text)).expect("a gateway")
}

fn account(snapshot: &Snapshot, name: &str) -> ConfiguredAccount {
    let upstream = snapshot.upstream_of(UpstreamId::from_name(name));
    upstream.expect("a configured upstream").account
}

fn key(model: &str) -> ModelKey {
    ModelKey::from_name(model)
}

/// Records the list of an upstream.
fn list(gateway: &Gateway, name: &str, models: &[&str], now: Tick) {
    let models = models.iter().copied().map(ModelKey::from_name);
    let account = account(&gateway.snapshot(), name);
    gateway.runtime.models.record_list(account, models, now);
}

/// Records that an upstream has refused a model.
fn refuse(gateway: &Gateway, name: &str, model: &str, now: Tick) {
    let account = account(&gateway.snapshot(), name);
    gateway.runtime.models.record_refusal(account, key(model), now);
}

/// The eligible upstreams for a model.
fn eligibility(gateway: &Gateway, group: Option<&str>, model: &str, now: Tick) -> Eligibility {
    let snapshot = gateway.snapshot();
    let group = snapshot.access.group(group).expect("a configured group");
    let configured = snapshot.eligibility(group, Some(model)).expect("an upstream");
    snapshot.narrowed(configured, &gateway.runtime, Some(key(model)), now)
}

/// The names of the upstreams that a model may go to, in the order of the configuration, separated by spaces.
fn names(gateway: &Gateway, model: &str, now: Tick) -> String {
    names_of(&gateway.snapshot(), &eligibility(gateway, None, model, now))
}

fn names_of(snapshot: &Snapshot, eligibility: &Eligibility) -> String {
    let pool = &snapshot.rendezvous;
    let allowed = pool.indexes().filter(|index| eligibility.allows(pool, *index));
    let names: Vec<&str> = allowed.map(|index| &*snapshot.upstream(index).name).collect();
    names.join(" ")
}

const THREE: [(&str, &str); 3] = [("a", ""), ("b", ""), ("c", "")];

#[tokio::test]
async fn without_knowledge_every_upstream_is_eligible() {
    let gateway = gateway(&THREE);
    assert!(gateway.runtime.models.about(key("m"), START).is_none());
    assert!(matches!(eligibility(&gateway, None, "m", START), Eligibility::All));
}

#[tokio::test]
async fn a_listed_model_goes_to_the_upstreams_that_list_it_and_another_model_to_all() {
    let gateway = gateway(&THREE);
    list(&gateway, "a", &["common", "only-a"], START);
    list(&gateway, "b", &["common", "b-and-c"], START);
    list(&gateway, "c", &["common", "b-and-c"], START);
    for (model, expected) in [
        ("common", "a b c"),
        ("only-a", "a"),
        ("b-and-c", "b c"),
        ("unlisted", "a b c"),
    ] {
        assert_eq!(names(&gateway, model, START), expected, "{model}");
    }
    assert!(matches!(eligibility(&gateway, None, "common", START), Eligibility::All));
    assert!(matches!(
        eligibility(&gateway, None, "unlisted", START),
        Eligibility::All
    ));
    list(&gateway, "a", &["b-and-c"], START);
    assert_eq!(
        names(&gateway, "b-and-c", START),
        "a b c",
        "the new list replaces the old one"
    );
    assert_eq!(names(&gateway, "only-a", START), "a b c");
}

#[tokio::test]
async fn an_unknown_list_is_no_evidence_against_its_upstream() {
    let gateway = gateway(&THREE);
    list(&gateway, "a", &["m"], START);
    list(&gateway, "b", &["other"], START);
    assert_eq!(names(&gateway, "m", START), "a c");
    list(&gateway, "b", &[], START);
    assert_eq!(names(&gateway, "m", START), "a b c", "an empty list says nothing");
}

#[tokio::test]
async fn configured_models_count_as_listed() {
    let gateway = gateway(&[("a", "models = [\"m-*\"]"), ("b", ""), ("c", "models = [\"other\"]")]);
    assert_eq!(names(&gateway, "m-1", START), "a b", "the list of b is not known");
    list(&gateway, "b", &["m-2"], START);
    for (model, expected) in [("m-1", "a"), ("m-2", "a b"), ("other", "c"), ("unlisted", "b")] {
        assert_eq!(names(&gateway, model, START), expected, "{model}");
    }
}

#[tokio::test]
async fn lists_of_upstreams_outside_the_group_do_not_count() {
    let text = upstream("a", "") + &upstream("b", "") + "[[group]]\nname = \"g\"\nupstreams = [\"b\"]\n";
    let gateway = Gateway::new(&config(&text)).expect("a gateway");
    list(&gateway, "a", &["m"], START);
    list(&gateway, "b", &["other"], START);
    let snapshot = gateway.snapshot();
    assert_eq!(names_of(&snapshot, &eligibility(&gateway, Some("g"), "m", START)), "b");
    assert_eq!(names(&gateway, "m", START), "a");
}

#[tokio::test]
async fn a_refusal_counts_for_its_model_and_upstream_and_for_ten_minutes() {
    let gateway = gateway(&THREE);
    refuse(&gateway, "a", "m", START);
    assert_eq!(names(&gateway, "m", START), "b c");
    assert_eq!(names(&gateway, "n", START), "a b c");
    let end = START.after(REFUSAL_LIFETIME);
    assert_eq!(names(&gateway, "m", Tick::from_nanos(end.as_nanos() - 1)), "b c");
    assert_eq!(names(&gateway, "m", end), "a b c");
}

#[tokio::test]
async fn if_all_that_list_a_model_refuse_it_the_others_may_have_it() {
    let gateway = gateway(&THREE);
    list(&gateway, "a", &["m"], START);
    list(&gateway, "b", &["other"], START);
    list(&gateway, "c", &["other"], START);
    assert_eq!(names(&gateway, "m", START), "a");
    refuse(&gateway, "a", "m", START);
    assert_eq!(names(&gateway, "m", START), "b c");
    refuse(&gateway, "b", "m", START);
    assert_eq!(names(&gateway, "m", START), "c");
    refuse(&gateway, "c", "m", START);
    assert_eq!(
        names(&gateway, "m", START),
        "a",
        "all have refused it: the listed one is asked again"
    );
}

#[tokio::test]
async fn a_refusal_is_forgotten_when_the_list_names_the_model_or_the_operator_enables_the_upstream() {
    let gateway = gateway(&THREE);
    refuse(&gateway, "a", "m", START);
    refuse(&gateway, "a", "n", START);
    refuse(&gateway, "b", "m", START);
    list(&gateway, "a", &["m"], START);
    assert_eq!(names(&gateway, "m", START), "a c");
    assert_eq!(names(&gateway, "n", START), "b c");
    gateway.runtime.models.forget_refusals(UpstreamId::from_name("a"));
    assert_eq!(names(&gateway, "n", START), "a b c");
    assert_eq!(names(&gateway, "m", START), "a c", "the refusal of b still counts");
    gateway.runtime.models.forget_refusals(UpstreamId::from_name("b"));
    assert_eq!(names(&gateway, "m", START), "a b c");
}

#[tokio::test]
async fn old_lists_say_nothing() {
    let gateway = gateway(&THREE);
    list(&gateway, "a", &["m"], START);
    let later = START.after(LIST_LIFETIME / 2);
    list(&gateway, "b", &["other"], later);
    assert_eq!(names(&gateway, "m", later), "a c");
    list(&gateway, "c", &["other"], START.after(LIST_LIFETIME));
    assert_eq!(
        names(&gateway, "m", START.after(LIST_LIFETIME)),
        "a b c",
        "the list of a is dropped"
    );
    assert_eq!(names(&gateway, "other", START.after(LIST_LIFETIME * 2)), "a b c");
}

#[tokio::test]
async fn a_reload_keeps_the_knowledge_of_the_accounts_that_stay_the_same() {
    let gateway = gateway(&THREE);
    let old = gateway.snapshot();
    for name in ["a", "b", "c"] {
        list(&gateway, name, if name == "a" { &["m"] } else { &["other"] }, START);
        refuse(&gateway, name, "n", START);
    }
    let changed = upstream("a", "weight = 3") + &upstream("b", "headers = { x-project = \"2\" }") + &upstream("d", "");
    gateway.reload(&config(&changed)).expect("a valid configuration");
    assert_eq!(names(&gateway, "m", START), "a b d", "only the list of a is known");
    assert_eq!(names(&gateway, "n", START), "b d");
    // An answer that a request of the old configuration brings says nothing about the account of the new one.
    let models = &gateway.runtime.models;
    models.record_refusal(account(&old, "b"), key("m"), START);
    models.record_list(account(&old, "b"), [key("other")], START);
    models.record_refusal(account(&old, "c"), key("m"), START);
    assert_eq!(names(&gateway, "m", START), "a b d");
}

#[tokio::test]
async fn a_turn_excludes_the_upstreams_that_have_refused_even_if_that_is_forgotten() {
    let gateway = gateway(&THREE);
    let snapshot = gateway.snapshot();
    let index = |name: &str| snapshot.rendezvous.position(UpstreamId::from_name(name));
    let without = |names: &[&str]| {
        let refusing: Vec<MemberIndex> = names.iter().filter_map(|name| index(name)).collect();
        assert_eq!(refusing.len(), names.len());
        snapshot.without(Eligibility::All, &refusing, (&gateway.runtime, key("m"), START))
    };
    assert_eq!(names_of(&snapshot, &without(&["a"])), "b c");
    assert!(!without(&["a"]).is_model_known());
    list(&gateway, "a", &["m"], START);
    list(&gateway, "b", &["m"], START);
    list(&gateway, "c", &["other"], START);
    assert_eq!(names_of(&snapshot, &without(&["a"])), "b");
    assert!(without(&["a"]).is_model_known());
    assert_eq!(names_of(&snapshot, &without(&["a", "b"])), "c");
    assert!(!without(&["a", "b"]).is_model_known());
    assert_eq!(names_of(&snapshot, &without(&["a", "b", "c"])), "");
}

#[tokio::test]
async fn refusals_are_bounded_and_those_that_end_first_are_dropped() {
    let gateway = gateway(&THREE);
    for number in 0..=MAX_REFUSALS {
        let now = Tick::from_nanos(START.as_nanos() + number as u64);
        refuse(&gateway, "a", &format!("m{number}"), now);
    }
    let now = START.after(Duration::from_secs(1));
    assert_eq!(names(&gateway, "m0", now), "a b c");
    assert_eq!(names(&gateway, "m1", now), "b c");
    assert_eq!(names(&gateway, &format!("m{MAX_REFUSALS}"), now), "b c");
    assert_eq!(gateway.runtime.models.view.load().refusals.len(), MAX_REFUSALS);
}

#[tokio::test]
async fn only_a_list_of_a_usable_length_counts() {
    let gateway = gateway(&THREE);
    let models: Vec<String> = (0..=MAX_LISTED).map(|number| format!("m{number}")).collect();
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    list(&gateway, "b", &["m0", "n"], START);
    list(&gateway, "a", &models[1..], START);
    assert_eq!(names(&gateway, "n", START), "b c");
    list(&gateway, "a", &models, START);
    assert_eq!(names(&gateway, "n", START), "a b c");
}

#[tokio::test]
async fn only_the_first_refusal_asks_for_the_lists() {
    let gateway = gateway(&THREE);
    let models = &gateway.runtime.models;
    assert!(!models.take_wish_for_lists());
    refuse(&gateway, "a", "m", START);
    assert!(models.take_wish_for_lists());
    assert!(!models.take_wish_for_lists());
    refuse(&gateway, "a", "m", START.after(REFUSAL_LIFETIME / 2));
    assert!(!models.take_wish_for_lists(), "the refusal is known");
    refuse(&gateway, "a", "m", START.after(REFUSAL_LIFETIME * 2));
    assert!(models.take_wish_for_lists(), "the refusal was over");
}

/// What the oracle knows about one upstream and the model.
#[derive(Clone, Copy, Debug)]
struct Facts {
    /// Whether the list names the model; `None` if the list is not known.
    lists: Option<bool>,
    refuses: bool,
}

/// The rule in plain words: upstreams that have not refused, without those whose list does not name the model if another one
/// does; if all have refused, the same without the refusals.
fn oracle(facts: &[Facts]) -> Vec<bool> {
    let ignores_refusals = facts.iter().all(|facts| facts.refuses);
    let may_ask = |facts: &Facts| ignores_refusals || !facts.refuses;
    let named = facts.iter().any(|facts| may_ask(facts) && facts.lists == Some(true));
    let allows = |facts: &Facts| may_ask(facts) && !(named && facts.lists == Some(false));
    facts.iter().map(allows).collect()
}

proptest! {
    #[test]
    fn eligibility_follows_the_rule(
        facts in prop::collection::vec((prop::option::of(any::<bool>()), any::<bool>()), 1..6),
    ) {
        let facts: Vec<Facts> = facts.into_iter().map(|(lists, refuses)| Facts { lists, refuses }).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let _entered = runtime.enter();
        let ids: Vec<String> = (0..facts.len()).map(|number| format!("u{number}")).collect();
        let upstreams: Vec<(&str, &str)> = ids.iter().map(|id| (id.as_str(), "")).collect();
        let gateway = gateway(&upstreams);
        for (id, facts) in ids.iter().zip(&facts) {
            if let Some(names) = facts.lists {
                list(&gateway, id, if names { &["x", "m"] } else { &["x"] }, START);
            }
        }
        for (id, _) in ids.iter().zip(&facts).filter(|(_, facts)| facts.refuses) {
            refuse(&gateway, id, "m", START);
        }
        let snapshot = gateway.snapshot();
        let found = eligibility(&gateway, None, "m", START);
        let found: Vec<bool> =
            snapshot.rendezvous.indexes().map(|index| found.allows(&snapshot.rendezvous, index)).collect();
        prop_assert_eq!(found, oracle(&facts));
    }
}

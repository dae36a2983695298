//! Gateways for the tests of turns and exchanges: built from a few lines of configuration, without a socket.

use std::sync::{Arc, Once};

use sha2::{Digest as _, Sha256};
use tracing_subscriber::registry::Registry;

use crate::{
    config::{Config, Overrides},
    state::{ClientKey, Gateway},
};

/// Two upstreams of different organizations that take every model. Nothing listens at their addresses.
const UPSTREAMS: &str = r#"
[[upstream]]
name = "a"
base_url = "http://a.test/v1"
api_key = "env:A_KEY"

[[upstream]]
name = "b"
base_url = "http://b.test/v1"
api_key = "env:B_KEY"
"#;

/// A gateway with the upstreams `a` and `b`, and with `more` configuration.
pub(in crate::proxy) fn gateway(more: &str) -> Arc<Gateway> {
    configured(&format!("{more}\n{UPSTREAMS}"))
}

/// A gateway with exactly this configuration. Every secret has the value `sk-secret-of-` and the name of its variable.
pub(in crate::proxy) fn configured(text: &str) -> Arc<Gateway> {
    enable_events();
    let env = |name: &str| Some(format!("sk-secret-of-{name}"));
    let config = Config::from_toml(text, "test.toml", &env, &Overrides::default());
    let config = config.unwrap_or_else(|errors| panic!("an invalid configuration: {errors}"));
    Gateway::new(&config).unwrap_or_else(|error| panic!("{error}"))
}

/// Makes threads without a subscriber register each event as enabled. Otherwise such a thread may register an event as
/// disabled just when a test on another thread begins to capture it, and that test would miss the event.
fn enable_events() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let set = tracing::subscriber::set_global_default(Registry::default());
        set.expect("no other unit test sets a global subscriber");
    });
}

/// A client key.
const CLIENT_KEY: &str = "sk-client";

/// The client key `alice`, whose group has these `limits`.
pub(in crate::proxy) fn limited_key(limits: &str) -> Arc<ClientKey> {
    let digest: String = Sha256::digest(CLIENT_KEY)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let gateway = gateway(&format!(
        "[[group]]\nname = \"team\"\n{limits}\n[[key]]\nname = \"alice\"\ngroup = \"team\"\nsha256 = \"{digest}\"\n"
    ));
    let snapshot = gateway.snapshot();
    let key = snapshot.access.find(CLIENT_KEY.as_bytes(), 0);
    key.unwrap_or_else(|problem| panic!("{problem:?}")).clone()
}

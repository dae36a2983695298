//! Helpers that the unit tests of this module share.

use std::sync::Arc;

use http::Request;

use super::{
    admit::{self, Admitted},
    received::ReceivedHead,
};
use crate::{
    config::{Config, Overrides},
    fault::Fault,
    state::{Gateway, Snapshot},
    wire::{Framing, Peer},
};

/// The snapshot of this configuration file, in which each `env:` reference stands for `sk-upstream`.
pub fn snapshot(toml: &str) -> Arc<Snapshot> {
    let env = |_: &str| Some("sk-upstream".to_owned());
    let config = Config::from_toml(toml, "steadfast.toml", &env, &Overrides::default()).expect("a valid configuration");
    Gateway::new(&config).expect("a gateway").snapshot()
}

/// Identifies and admits a request with this framing, at the beginning of Unix time.
pub fn admit(snapshot: &Snapshot, request: Request<()>, framing: Framing) -> Result<Admitted<'_>, Fault> {
    let peer = Peer {
        address: None,
        is_secure: false,
    };
    let head = ReceivedHead::new(request.into_parts().0, framing, peer);
    admit::check_head(snapshot, &head)?;
    admit::admit(snapshot, admit::identify(snapshot, head, 0)?)
}

/// A configuration without client keys.
pub const OPEN: &str = r#"
    [[upstream]]
    name = "a"
    base_url = "https://a.example/v1"
    api_key = "env:KEY"
"#;

/// A configuration with four groups: `alone` may use everything, `models` may use only some models, and `shared` shares
/// its upstream with `other`. The key of the group `x` is `key-x`; `key-expired` and `key-disabled` are not valid.
pub const GROUPS: &str = r#"
    [[upstream]]
    name = "a"
    base_url = "https://a.example/v1"
    api_key = "env:KEY"
    organization = "org-a"
    [[upstream]]
    name = "b"
    base_url = "https://b.example/v1"
    api_key = "env:KEY"
    organization = "org-b"
    [[upstream]]
    name = "c"
    base_url = "https://c.example/v1"
    api_key = "env:KEY"
    organization = "org-c"
    [[group]]
    name = "alone"
    upstreams = ["a"]
    [[group]]
    name = "models"
    upstreams = ["c"]
    models = ["gpt-5*"]
    [[group]]
    name = "shared"
    upstreams = ["b"]
    [[group]]
    name = "other"
    upstreams = ["b"]
    [[key]]
    name = "alone"
    sha256 = "cd88c5f0853f22e742c9568244bbce87572c588f9d5b5f25067dac0e0b4001e9"
    group = "alone"
    [[key]]
    name = "models"
    sha256 = "a956ea2916a578475f27ffd2c36ea9649418b55a1b94524765be69438bfb2d4f"
    group = "models"
    [[key]]
    name = "shared"
    sha256 = "159306884f395b60cc39cbd7396413c2d2240d3b0b4557a23f5819dce99d1326"
    group = "shared"
    [[key]]
    name = "expired"
    sha256 = "c7f7cf2ed1f228b1c48e9a55c83cebeefb908205f1ae8e29e9de7f69013e1bcd"
    group = "alone"
    expires = 2030-01-01
    [[key]]
    name = "disabled"
    sha256 = "034fa05a2a427f76c80bc21ebaabca367c16bbb29c76efd1049c68fa62d17473"
    group = "alone"
    disabled = true
"#;

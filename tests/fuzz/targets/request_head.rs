//! Fuzz target for request heads, from their bytes through `admit` to the forwarded head. A head is either refused or
//! forwarded unambiguously.

use std::sync::{Arc, LazyLock};

use http::header;
use steadfast::{
    config::{Config, Overrides},
    proxy::stages,
    state::Gateway,
};

const KEY: &str = "sk-steadfast-fuzz";
/// The SHA-256 of [`KEY`].
const DIGEST: &str = "5c06cfc17189487a366176bed8835d26f2bd63822ec5168ca81abe6f1a2a269e";

fn gateway(keys: &str) -> Arc<Gateway> {
    let text = format!(
        "[[upstream]]\nname = \"a\"\nbase_url = \"http://upstream.example/base/v1\"\napi_key = \"env:K\"\n{keys}"
    );
    let env = |_: &str| Some("sk-upstream".to_owned());
    let config = Config::from_toml(&text, "fuzz.toml", &env, &Overrides::default()).expect("a valid configuration");
    Gateway::new(&config).expect("a gateway")
}

/// A gateway that accepts every caller, and a gateway that requires a client key.
static GATEWAYS: LazyLock<[Arc<Gateway>; 2]> = LazyLock::new(|| {
    let keyed = format!(
        "[[group]]\nname = \"g\"\nmodels = [\"gpt-*\"]\n[[key]]\nname = \"k\"\nsha256 = \"{DIGEST}\"\ngroup = \"g\"\n"
    );
    [gateway(""), gateway(&keyed)]
});

/// Checks the gateways with one input.
pub fn run(input: &[u8]) {
    for (gateway, is_keyed) in GATEWAYS.iter().zip([false, true]) {
        let snapshot = gateway.snapshot();
        let Some(passed) = stages::forward_head(&snapshot, input) else {
            continue;
        };
        let headers = &passed.headers;
        assert_eq!(
            headers.get_all(header::HOST).iter().collect::<Vec<_>>(),
            ["upstream.example"]
        );
        assert_eq!(
            headers.get_all(header::AUTHORIZATION).iter().collect::<Vec<_>>(),
            ["Bearer sk-upstream"]
        );
        for name in [
            "connection",
            "keep-alive",
            "te",
            "upgrade",
            "transfer-encoding",
            "cookie",
            "x-api-key",
            "expect",
            "trailer",
        ] {
            assert!(!headers.contains_key(name), "{name} is forwarded");
        }
        let path = passed.uri.path();
        assert!(
            path.starts_with("/base/v1/") && passed.uri.authority().is_none(),
            "{path}"
        );
        let is_odd = |segment: &str| matches!(segment, "" | "." | "..") || segment.to_ascii_lowercase().contains("%2e");
        let path = path.strip_suffix('/').unwrap_or(path);
        assert!(!path.split('/').skip(1).any(is_odd), "{path}");
        assert!(passed.method.as_str().bytes().all(|byte| byte.is_ascii_uppercase()));
        if is_keyed {
            assert!(
                memchr::memmem::find(input, KEY.as_bytes()).is_some(),
                "accepted without the client key"
            );
        }
        for value in headers.values().map(http::HeaderValue::as_bytes) {
            assert!(memchr::memchr3(b'\r', b'\n', 0, value).is_none());
            let shows_key = memchr::memmem::find(value, KEY.as_bytes()).is_some();
            assert!(
                !is_keyed || !shows_key || is_copied(input),
                "the client key is forwarded"
            );
        }
    }
}

/// Returns whether the head contains the key more than once. A caller that copies its key into another field reveals
/// it itself.
fn is_copied(input: &[u8]) -> bool {
    memchr::memmem::find_iter(input, KEY.as_bytes()).count() > 1
}

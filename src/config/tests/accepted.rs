//! Files that are accepted, and the configuration that they describe.

use super::*;

#[test]
fn the_example_contains_the_defaults() {
    let config = read(EXAMPLE).unwrap();
    assert_eq!(config.server, ServerSettings::default());
    assert_eq!(config.admin, AdminSettings::default());
    assert_eq!(config.affinity, AffinitySettings::default());
    assert_eq!(config.retry, RetrySettings::default());
    assert_eq!(config.timeouts, Timeouts::default());
    assert_eq!(config.warnings, []);
    let url = "https://api.openai.com/v1";
    let expected = ["A", "B"].map(|n| {
        let key = ApiKey::Key(Secret::new(format!("sk-canary-OPENAI_KEY_{n}")));
        Upstream::new(&format!("account-{}", n.to_lowercase()), url, key).unwrap()
    });
    assert_eq!(config.upstreams, expected);
}

/// The settings that the example shows in comments are valid too.
#[test]
fn the_example_stays_valid_with_its_options() {
    let folder = Folder::new("example");
    let ca = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    folder.write("ca.pem", ca.cert.pem());
    folder.write("cert.pem", ca.cert.pem());
    folder.write("key.pem", ca.signing_key.serialize_pem());
    folder.write("keys.toml", "");
    std::fs::create_dir_all(folder.0.join("keys.d")).unwrap();
    let text = example::example_with_options();
    let origin = folder.0.join("steadfast.toml");
    let token = |name: &str| env(name).or((name == "STEADFAST_ADMIN_TOKEN").then(|| "t".to_owned()));
    let config = Config::from_toml(&text, origin.to_str().unwrap(), &token, &Overrides::default()).unwrap();
    assert_eq!(config.admin.token, Some(Secret::new("t")));
    assert_eq!(
        (config.groups[0].max_concurrent, config.keys[0].name.as_str()),
        (Some(50), "alice")
    );
    let tls = config.server.tls.as_ref().unwrap();
    assert_eq!(
        (&tls.cert, &tls.key),
        (&folder.0.join("cert.pem"), &folder.0.join("key.pem"))
    );
    assert_eq!(tls.certificates, ca.cert.pem().into_bytes());
    assert!(!format!("{config:?}").contains("PRIVATE"));
    let first = &config.upstreams[0];
    assert_eq!(
        first.headers,
        [(
            HeaderName::from_static("openai-project"),
            HeaderValue::from_static("proj_1")
        )]
    );
    assert_eq!(
        (first.max_in_flight, first.organization.as_deref()),
        (Some(64), Some("org-1"))
    );
    assert_eq!(
        first.ca.as_ref().map(|ca| ca.path.clone()),
        Some(folder.0.join("ca.pem"))
    );
}

#[test]
fn all_settings_of_the_gateway_are_read() {
    let config = read(&format!(
        r#"
        affinity = {{ sources = ["header:x-thread", "content"], idle = "90m", capacity = 0x10, wait = "0s", reread_rate = 1, wait_max = "0s" }}
        retry = {{ attempts = 1, budget = 1, decide_within = "0s", decide_bytes = "1MiB", on_timeout = true }}
        health = {{ max_ejected = 0.25 }}
        tokens = {{ image = 85, audio = 0, file = 9 }}
        [server]
        listen = ["[::1]:80", "localhost:0", "127.0.0.1:0", "127.0.0.1:0", "unix:/run/steadfast.sock"]
        max_body = 1024
        buffered_bodies = "1KiB"
        grace = "0s"
        forwarded = true
        route_headers = false
        [admin]
        listen = []
        [timeouts]
        connect = "1ms"
        head = "24h"
        {UPSTREAM}"#
    ))
    .unwrap();
    let listen: Vec<_> = config.server.listen.iter().map(ToString::to_string).collect();
    let expected = [
        "[::1]:80",
        "127.0.0.1:0",
        "127.0.0.1:0",
        "127.0.0.1:0",
        "unix:/run/steadfast.sock",
    ];
    assert_eq!(listen, expected);
    assert_eq!((config.server.max_body, config.server.buffered_bodies), (1024, 1024));
    assert_eq!(config.server.grace, Duration::ZERO);
    assert!(config.server.forwarded && !config.server.route_headers);
    assert!(config.admin.listen.is_empty());
    let affinity = &config.affinity;
    let sources: Vec<_> = affinity.sources.iter().map(ToString::to_string).collect();
    assert_eq!(sources, ["header:x-thread", "content"]);
    assert_eq!((affinity.idle, affinity.capacity), (Duration::from_secs(5400), 16));
    assert_eq!(
        (affinity.wait, affinity.reread_rate, affinity.wait_max),
        (Duration::ZERO, 1, Duration::ZERO)
    );
    let retry = RetrySettings {
        attempts: 1,
        budget: 1.0,
        decide_within: Duration::ZERO,
        decide_bytes: 1 << 20,
        on_timeout: true,
    };
    assert_eq!(config.retry, retry);
    assert!((config.health.max_ejected - 0.25).abs() < 1e-9);
    let tokens = config.tokens;
    assert_eq!((tokens.image, tokens.audio, tokens.file), (85, 0, 9));
    assert_eq!(config.timeouts.connect, Duration::from_millis(1));
    assert_eq!(config.timeouts.idle, Timeouts::default().idle);
}

#[test]
fn all_settings_of_an_upstream_are_read() {
    let config = read(
        r#"[[upstream]]
        name = "A.b_c-9"
        base_url = "http://localhost:9001/"
        api_key = "passthrough"
        weight = 1_000_000
        models = ["gpt-5*", "o?"]
        max_in_flight = 1
        organization = "A.b_c-9"
        headers = { B = "env:KEY", "a" = "1" }
        "#,
    )
    .unwrap();
    let upstream = &config.upstreams[0];
    assert_eq!((upstream.name.as_str(), upstream.weight.get()), ("A.b_c-9", 1_000_000));
    assert_eq!(upstream.api_key, ApiKey::Passthrough);
    assert_eq!(
        (upstream.max_in_flight, upstream.organization.as_deref()),
        (Some(1), Some("A.b_c-9"))
    );
    assert!(upstream.models.patterns().eq(["gpt-5*", "o?"]));
    let headers: Vec<_> = upstream
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_bytes()))
        .collect();
    assert_eq!(headers, [("b", &b"sk-canary-KEY"[..]), ("a", b"1")]);
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "f.toml:3:20: base_url has no path, so /v1/responses becomes /responses; most upstreams need a base_url that ends in /v1"
        ]
    );
}

//! Flags, the files that a configuration names, and reading from disk.

use super::*;

const A: &str = "a=https://a.example/v1,env:KEY";

#[test]
fn upstreams_by_flag_need_no_file() {
    let config = Config::from_flags_in(&env, &flags(&[A, "b=http://localhost:1/v1,passthrough"])).unwrap();
    let key = ApiKey::Key(Secret::new("sk-canary-KEY"));
    let expected = [
        Upstream::new("a", "https://a.example/v1", key).unwrap(),
        Upstream::new("b", "http://localhost:1/v1", ApiKey::Passthrough).unwrap(),
    ];
    assert_eq!(config.upstreams, expected);
    assert_eq!(
        (config.server, config.warnings),
        (ServerSettings::default(), Vec::new())
    );
}

#[test]
fn flags_join_and_override_the_file() {
    let file = format!("server.listen = \"127.0.0.1:1\"\nadmin.listen = \"127.0.0.1:2\"\n{UPSTREAM}");
    let mut overrides = flags(&["b=https://b.example/v1,env:KEY"]);
    overrides.listen = vec!["127.0.0.1:2".to_owned(), "unix:s.sock".to_owned()];
    overrides.admin = Some("127.0.0.1:1".to_owned());
    let config = Config::from_toml(&file, "folder/f.toml", &env, &overrides).unwrap();
    assert_eq!(
        config.server.listen,
        [
            Listen::Tcp("127.0.0.1:2".parse().unwrap()),
            Listen::Unix("s.sock".into())
        ]
    );
    assert_eq!(config.admin.listen, ["127.0.0.1:1".parse().unwrap()]);
    let names: Vec<_> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    // A file without upstreams is complete with those of the flags.
    assert!(Config::from_toml("", "f.toml", &env, &overrides).is_ok());
}

#[test]
fn errors_and_warnings_name_the_flag() {
    let mut overrides = flags(&[A, "b", "c d=https://a/v1,env:KEY", "e=a.example,env:UNSET", A]);
    overrides.listen = vec!["0.0.0.0:1".to_owned(), "x".to_owned()];
    overrides.admin = Some("[::]:2".to_owned());
    let report = Config::from_toml("x = 1", "f.toml", &env, &overrides)
        .unwrap_err()
        .to_string();
    let expected = [
        "f.toml:1:1: unknown field \"x\" at the top level; the known fields are server, admin, affinity, retry, health, tokens, timeouts, upstream, group, key",
        "--admin: admin.listen \"[::]:2\" is not loopback, so it needs a token: set admin.token = \"env:NAME\", or listen on \"127.0.0.1:2\"",
        "--listen: must be an IP address and port such as \"127.0.0.1:8080\", not \"x\"",
        "--listen: listen may only be a loopback address such as \"127.0.0.1:1\", not \"0.0.0.0:1\": without client keys, everyone who can connect can use your upstream keys; make keys with \"steadfast key\", or set allow_anonymous = true to allow it",
        "--upstream (number 2): must have the form NAME=BASE_URL,KEY with KEY one of env:NAME, file:PATH, passthrough",
        "--upstream (number 3): NAME must be 1 to 64 letters, digits, \".\", \"_\" or \"-\"",
        "--upstream a: the upstream name \"a\" is taken; names must be unique",
        "--upstream e: BASE_URL must start with \"https://\" or \"http://\"",
        "--upstream e: KEY needs the environment variable UNSET, which is not set; set it, or name another",
    ];
    assert_eq!(report.lines().collect::<Vec<_>>(), expected);

    let report = Config::from_flags_in(&env, &Overrides::default())
        .unwrap_err()
        .to_string();
    assert_eq!(
        report,
        "--upstream: there is no upstream; give NAME=BASE_URL,env:KEY, or a file with --config"
    );

    let config = Config::from_flags_in(&env, &flags(&["a=http://a.example,sk-canary"])).unwrap();
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    let expected = [
        "--upstream a: KEY is given literally, so every user of this machine may read it; use env:NAME or file:PATH",
        "--upstream a: base_url is not https, so keys and prompts are sent unencrypted; use https if possible",
        "--upstream a: base_url has no path, so /v1/responses becomes /responses; most upstreams need a base_url that ends in /v1",
    ];
    assert_eq!(warnings, expected);
}

#[test]
fn embedded_upstreams_take_the_other_flags() {
    let upstream = |name| Upstream::new(name, "http://127.0.0.1:1/v1", ApiKey::Passthrough).unwrap();
    let overrides = Overrides {
        listen: vec!["127.0.0.1:0".to_owned()],
        ..Overrides::default()
    };
    let config = Config::embedded(vec![upstream("a"), upstream("b")], &overrides).unwrap();
    assert_eq!(config.upstreams, [upstream("a"), upstream("b")]);
    assert_eq!(config.server.listen, [Listen::Tcp("127.0.0.1:0".parse().unwrap())]);
    assert!(Config::embedded(vec![upstream("a"), upstream("a")], &overrides).is_err());
    assert!(Config::embedded(Vec::new(), &overrides).is_err());
    assert!(Upstream::new("a b", "http://127.0.0.1:1/v1", ApiKey::Passthrough).is_err());
    assert!(Upstream::new("a", "127.0.0.1:1/v1", ApiKey::Passthrough).is_err());
    assert!(Upstream::new("a", "http://127.0.0.1:1/v1", ApiKey::Key(Secret::new("a b"))).is_err());
}

#[test]
fn no_debug_output_contains_a_secret() {
    let overrides = flags(&["b=https://b.example/v1,sk-canary"]);
    let text =
        format!("{UPSTREAM}headers = {{ x = \"env:KEY\", y = \"sk-canary\" }}\n[admin]\ntoken = \"sk-canary\"\n");
    let config = Config::from_toml(&text, "f.toml", &env, &overrides).unwrap();
    let printed = format!("{config:?} {overrides:?}");
    assert!(!printed.contains("canary"), "{printed}");
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    let expected = [
        "f.toml:7:9: token is written in the file; use \"env:NAME\" or \"file:PATH\"",
        "--upstream b: KEY is given literally, so every user of this machine may read it; use env:NAME or file:PATH",
    ];
    assert_eq!(warnings, expected);
}

#[test]
fn files_are_found_beside_the_configuration() {
    let folder = Folder::new("files");
    folder.write("key", "sk-canary\r\n");
    folder.write("empty", "\n");
    folder.write("two-lines", "sk-canary\nsk-canary\n");
    folder.write("binary", b"\xff");
    folder.write("large", "x".repeat((64 << 10) + 1));
    let read = |key: &str| {
        let path = folder.write("steadfast.toml", UPSTREAM.replace("env:KEY", key));
        Config::load(&path, &Overrides::default())
    };
    assert_eq!(
        read("file:key").unwrap().upstreams[0].api_key,
        ApiKey::Key(Secret::new("sk-canary"))
    );
    for (key, because) in [
        ("file:", "must have a path after \"file:\""),
        (
            "file:missing",
            "/missing\", which cannot be read: No such file or directory (os error 2)",
        ),
        ("file:.", "which cannot be read: it is a directory, not a regular file"),
        ("file:empty", "must not be empty, but \"file:empty\" is"),
        (
            "file:two-lines",
            "contains an invalid character; check \"file:two-lines\" for",
        ),
        ("file:binary", "/binary\", which is not UTF-8"),
        ("file:large", "/large\", which is larger than 64KiB"),
        ("", "must not be empty; write \"env:NAME\" or \"file:PATH\""),
        ("env:", "must have the name of an environment variable after \"env:\""),
        (
            "env:STEADFAST_TEST_UNSET",
            "needs the environment variable STEADFAST_TEST_UNSET, which is not set",
        ),
    ] {
        let report = read(key).unwrap_err().to_string();
        assert!(
            report.contains("steadfast.toml:4:11: api_key ") && report.contains(because),
            "{key}: {report}"
        );
        assert!(!report.contains("canary"), "{key}: {report}");
    }
}

#[test]
fn unreadable_configurations_are_reported() {
    let folder = Folder::new("unreadable");
    for (path, because) in [
        (
            folder.0.join("missing.toml"),
            "missing.toml: cannot be read: No such file or directory (os error 2)",
        ),
        (
            folder.write("latin1.toml", b"# a\n# \xe9\n"),
            "latin1.toml: is not UTF-8 in line 2; save it as UTF-8",
        ),
        (folder.0.clone(), ": cannot be read: Is a directory (os error 21)"),
    ] {
        let report = Config::load(&path, &Overrides::default()).unwrap_err().to_string();
        assert!(report.ends_with(because), "{report}");
    }
}

#[test]
fn certificate_authorities_of_upstreams() {
    let folder = Folder::new("ca");
    let certificate = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
    let pem = certificate.cert.pem();
    folder.write("ca.pem", pem.repeat(2));
    folder.write("key.pem", certificate.signing_key.serialize_pem());
    folder.write("cut.pem", &pem[..pem.len() / 2]);
    let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    folder.write("junk.pem", format!("{pem}{junk}"));
    let read = |ca: &str, from: &str, to: &str| {
        let text = format!("{UPSTREAM}ca = \"{ca}\"\n").replace(from, to);
        Config::load(&folder.write("steadfast.toml", text), &Overrides::default())
    };
    // The key does not matter here.
    let ca = read("ca.pem", "env:KEY", "passthrough")
        .unwrap()
        .upstreams
        .remove(0)
        .ca
        .unwrap();
    assert_eq!((ca.path, ca.pem), (folder.0.join("ca.pem"), pem.repeat(2).into_bytes()));
    for (file, because) in [
        ("", "ca must be the path of a PEM file"),
        ("missing.pem", "missing.pem\", which cannot be read"),
        (
            "key.pem",
            "key.pem\", which holds no certificate; it must be in PEM form",
        ),
        ("cut.pem", "cut.pem\", which holds an invalid certificate (number 1)"),
        ("junk.pem", "junk.pem\", which holds an invalid certificate (number 2)"),
    ] {
        let report = read(file, "env:KEY", "passthrough").unwrap_err().to_string();
        assert!(
            report.contains("steadfast.toml:5:6: ca ") && report.contains(because),
            "{file}: {report}"
        );
    }
    let report = read("ca.pem", "https", "http").unwrap_err().to_string();
    assert!(report.contains(":5:6: ca needs TLS"), "{report}");
}

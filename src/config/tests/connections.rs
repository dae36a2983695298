//! How connections to upstreams are opened: the query of the base URL, proxies and client certificates.

use super::*;

/// An upstream at `url` with further `lines`, which begin in line 5.
fn upstream_at(url: &str, lines: &str) -> String {
    format!("[[upstream]]\nname = \"a\"\nbase_url = \"{url}\"\napi_key = \"env:KEY\"\n{lines}\n")
}

fn warnings(config: &Config) -> Vec<String> {
    config.warnings.iter().map(ToString::to_string).collect()
}

/// Reads `text` in an environment where the variables of `set` and `KEY` have values.
fn read_in(text: &str, set: &[(&str, &str)]) -> Result<Config, Errors> {
    let env = |name: &str| {
        let found = set.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned()).or_else(|| env(name))
    };
    Config::from_toml(text, "f.toml", &env, &Overrides::default())
}

#[test]
fn the_query_of_a_base_url_is_read_and_not_printed() {
    let config = read(&upstream_at("https://a.example/openai?api-version=1&key=canary", "")).unwrap();
    let query = config.upstreams[0].base_url.query().map(Secret::expose);
    assert_eq!(query, Some("api-version=1&key=canary"));
    assert!(warnings(&config).is_empty());
    assert!(!format!("{config:?}").contains("canary"));
    let report = report(&upstream_at("https://a.example/openai?key=canary#x", ""));
    assert_eq!(report, "f.toml:3:12: base_url must have no fragment (\"#\")");
}

#[test]
fn a_base_url_that_ends_in_an_endpoint_is_a_warning() {
    for (url, expected) in [
        (
            "https://a.example/v1/responses",
            "/responses, which the path of each request adds again; use \"https://a.example/v1\"",
        ),
        (
            "https://a.example/v1/chat/completions/",
            "/chat/completions, which the path of each request adds again; use \"https://a.example/v1\"",
        ),
        (
            "https://a.example/openai/responses?key=canary",
            "/responses, which the path of each request adds again; use \"https://a.example/openai\" with the same query",
        ),
    ] {
        let expected = format!("f.toml:3:12: base_url ends in the endpoint {expected}");
        assert_eq!(warnings(&read(&upstream_at(url, "")).unwrap()), [expected]);
    }
    let config = Config::from_flags_in(&env, &flags(&["a=https://a.example/v1/messages,env:KEY"])).unwrap();
    assert_eq!(
        warnings(&config),
        [
            "--upstream a: base_url ends in the endpoint /messages, which the path of each request adds again; use \"https://a.example/v1\""
        ]
    );
}

#[test]
fn a_proxy_comes_from_the_file_or_from_the_environment() {
    let proxy_of = |config: &Config| config.upstreams[0].proxy.as_ref().map(ToString::to_string);
    let folder = Folder::new("proxy");
    let file = folder.write("proxy", "https://u:canary@filed:9\n");
    let set = [("HTTPS_PROXY", "http://u:canary@shared:3128"), ("PROXY", "socks5://p")];
    for (line, expected, warned) in [
        ("", Some("http://shared:3128"), "the upstream is reached through"),
        ("proxy = \"direct\"", None, ""),
        ("proxy = \"none\"", None, ""),
        ("proxy = \"http://own\"", Some("http://own:80"), ""),
        ("proxy = \"env:PROXY\"", Some("socks5://p:1080"), ""),
        (
            &format!("proxy = \"file:{}\"", file.display()),
            Some("https://filed:9"),
            "",
        ),
        (
            "proxy = \"http://u:canary@own\"",
            Some("http://own:80"),
            "the password of proxy is written in the file",
        ),
    ] {
        let config = read_in(&upstream_at("https://a.example/v1", line), &set).unwrap();
        assert_eq!(proxy_of(&config).as_deref(), expected, "{line}");
        let warnings = warnings(&config).join("\n");
        assert_eq!(warnings.is_empty(), warned.is_empty(), "{line}: {warnings}");
        assert!(warnings.contains(warned), "{line}: {warnings}");
        let printed = format!("{config:?}{warnings}");
        assert!(!printed.contains("canary") && !printed.contains("dTpj"), "{printed}");
    }
    let flagged = |name: &str| {
        set.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| (*value).to_owned())
    };
    let config = Config::from_flags_in(&flagged, &flags(&["a=https://a.example/v1,passthrough"])).unwrap();
    assert_eq!(proxy_of(&config).as_deref(), Some("http://shared:3128"));
    let embedded = Config::embedded(config.upstreams, &Overrides::default());
    assert!(embedded.is_ok());
}

#[test]
fn invalid_proxies_are_refused() {
    const SHAPE: &str = "must be the URL of a proxy, such as \"http://proxy.example:3128\", with http, https or socks5";
    for (value, problem) in [
        ("ftp://u:canary@a:1", SHAPE),
        ("proxy.example", SHAPE),
        ("", "must not be empty; write \"env:NAME\" or \"file:PATH\""),
        (
            "env:UNSET",
            "needs the environment variable UNSET, which is not set; set it, or name another",
        ),
        (
            "http://a b",
            "contains an invalid character; check it for spaces, line breaks and accents",
        ),
    ] {
        let report = report(&upstream_at("https://a.example/v1", &format!("proxy = \"{value}\"")));
        assert_eq!(report, format!("f.toml:5:9: proxy {problem}"));
    }
}

/// Writes two certificates and their keys: `one.pem` and `one.key`, both together in `one.both`, and likewise `two`.
fn certificates(test: &str) -> Folder {
    let folder = Folder::new(test);
    for name in ["one", "two"] {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        folder.write(&format!("{name}.both"), format!("{certificate}{key}"));
        folder.write(&format!("{name}.pem"), certificate);
        folder.write(&format!("{name}.key"), key);
    }
    folder
}

/// The lines that name these files of `folder`, and an upstream with them.
fn with_certificate(folder: &Folder, url: &str, certificate: &str, key: Option<&str>) -> String {
    let path = |name: &str| folder.0.join(name);
    let key = key.map_or_else(String::new, |key| format!("client_key = {:?}", path(key)));
    upstream_at(url, &format!("client_certificate = {:?}\n{key}", path(certificate)))
}

#[test]
fn a_client_certificate_is_read_with_its_key() {
    let folder = certificates("client-certificate");
    for (certificate, key) in [
        ("one.pem", Some("one.key")),
        ("one.both", None),
        ("one.pem", Some("one.both")),
    ] {
        let config = read(&with_certificate(&folder, "https://a.example/v1", certificate, key)).unwrap();
        let read = config.upstreams[0].client_certificate.as_ref().unwrap();
        assert!(read.private_key.expose().contains("PRIVATE KEY"));
        assert!(!format!("{config:?}").contains("PRIVATE"));
        let files: Vec<_> = config.files().collect();
        assert_eq!(
            files,
            [read.path.as_path(), read.key.as_path()],
            "the files are watched"
        );
    }
}

#[test]
fn invalid_client_certificates_are_refused() {
    let folder = certificates("invalid-client-certificate");
    let https = |certificate, key| with_certificate(&folder, "https://a.example/v1", certificate, key);
    let path = |name: &str| format!("{:?}", folder.0.join(name));
    let (one, two) = (path("one.pem"), path("two.key"));
    for (text, expected) in [
        (
            https("one.pem", Some("two.key")),
            format!(
                "6:14: client_key does not fit: the first certificate of {one} belongs to another key than {two}; use its own key"
            ),
        ),
        (
            https("one.pem", None),
            format!(
                "5:22: client_certificate needs the file {one}, which holds no private key; it must be in PEM form; name the file of the key with client_key"
            ),
        ),
        (
            https("two.key", None),
            format!(
                "5:22: client_certificate needs the file {two}, which holds no certificate; it must be in PEM form"
            ),
        ),
        (
            upstream_at("https://a.example/v1", &format!("client_key = {two}")),
            "5:14: client_key needs client_certificate; add it, or remove client_key".to_owned(),
        ),
        (
            upstream_at("https://a.example/v1", "client_certificate = \"\""),
            "5:22: client_certificate must be the path of a PEM file".to_owned(),
        ),
        (
            with_certificate(&folder, "http://a.example/v1", "one.both", None),
            "5:22: client_certificate needs TLS; remove it, or use a base_url with \"https://\"".to_owned(),
        ),
    ] {
        assert_eq!(report(&text), format!("f.toml:{expected}"));
    }
}

#[test]
fn the_age_of_connections_and_the_keepalive_of_clients_are_read() {
    let config = read(UPSTREAM).unwrap();
    assert_eq!(config.timeouts.connection_age, Duration::from_secs(600));
    assert_eq!(config.server.keepalive, Duration::from_secs(60));
    let text = format!("[server]\nkeepalive = \"0s\"\n[timeouts]\nconnection_age = \"1h\"\n{UPSTREAM}");
    let config = read(&text).unwrap();
    assert_eq!(config.timeouts.connection_age, Duration::from_secs(3600));
    assert_eq!(config.server.keepalive, Duration::ZERO);
    assert!(report_above_upstream("server.keepalive = \"3h\"").contains("keepalive must be between 0s and 2h"));
}

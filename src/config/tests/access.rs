//! Groups and client keys.

use super::*;

const DIGEST: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
const OTHER: &str = "5ff3ad1f0b1b1ac9b3b0f0a2d6e6f1f4c9a7b8d0e1f2031425364758697a8b9c";

/// `text`, followed by a valid upstream.
fn with_upstream(text: &str) -> String {
    format!("{text}\n{UPSTREAM}")
}

fn digest(text: &str) -> [u8; 32] {
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
}

#[test]
fn groups_and_keys_are_read() {
    let text = format!(
        r#"
        [server]
        listen = "10.0.0.1:80"
        [[group]]
        name = "team"
        upstreams = ["a"]
        models = ["gpt-5*"]
        requests_per_minute = 600
        tokens_per_minute = 2_000_000
        max_concurrent = 50
        [[group]]
        name = "other"
        [[key]]
        name = "alice"
        sha256 = "{}"
        group = "team"
        expires = 2050-01-01
        [[key]]
        name = "bob"
        sha256 = ["{OTHER}", "{}"]
        group = "other"
        expires = "2050-01-01T01:00:00+01:00"
        disabled = true
        "#,
        DIGEST.to_uppercase(),
        OTHER.replace('5', "6"),
    );
    let config = read(&with_upstream(&text)).unwrap();
    assert!(config.has_client_keys && !config.server.route_headers);
    let team = &config.groups[0];
    assert_eq!(team.upstreams.as_deref(), Some(&["a".to_owned()][..]));
    assert_eq!(team.models, ModelGlobs::new(["gpt-5*"]));
    assert_eq!(
        (team.requests_per_minute, team.tokens_per_minute, team.max_concurrent),
        (Some(600), Some(2_000_000), Some(50))
    );
    assert_eq!(
        (&config.groups[1].upstreams, config.groups[1].models.is_all()),
        (&None, true)
    );
    let [alice, bob] = &config.keys[..] else {
        panic!("{:?}", config.keys)
    };
    assert_eq!(
        (alice.digests.as_slice(), alice.disabled),
        (&[digest(DIGEST)][..], false)
    );
    assert_eq!((bob.digests.len(), bob.disabled), (2, true));
    assert_eq!((alice.expires, bob.expires), (Some(2_524_608_000), Some(2_524_608_000)));
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert!(
        warnings.iter().any(|warning| warning.contains("plain HTTP")),
        "{warnings:?}"
    );
}

const GROUP: &str = "[[group]]\nname = \"team\"\n";

/// A group, and a key "alice" with these lines.
fn key(lines: &str) -> String {
    format!("{GROUP}[[key]]\nname = \"alice\"\n{lines}")
}

/// The lines of a valid key beside its name.
fn valid() -> String {
    format!("sha256 = \"{DIGEST}\"\ngroup = \"team\"\n")
}

/// Checks that the report on each text contains what is expected, and no key and no digest.
fn check_reports(rows: &[(String, &str)]) {
    for (text, expected) in rows {
        let report = report_above_upstream(text);
        assert!(report.contains(expected), "{text}\n{report}");
        assert!(!report.contains("canary") && !report.contains(DIGEST), "{report}");
    }
}

#[test]
fn digests_that_are_refused() {
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let with = |sha256: &str| key(&format!("sha256 = {sha256}\ngroup = \"team\""));
    check_reports(&[
        (
            with("\"sk-canary-written-here\""),
            "must be the SHA-256 of a key as 64 hexadecimal digits",
        ),
        (with(&format!("\"{}g\"", &DIGEST[1..])), "must be the SHA-256"),
        (with(&format!("\"{empty}\"")), "is the SHA-256 of an empty text"),
        (with("[]"), "sha256 must contain at least one digest"),
        (
            key(&format!("{}[[key]]\nname = \"bob\"\n{}", valid(), valid())),
            "sha256 is already used by the key at f.toml:4:8",
        ),
    ]);
}

#[test]
fn keys_that_are_refused() {
    let valid = valid();
    let expires = |moment: &str| key(&format!("{valid}expires = {moment}"));
    let taken = format!("{valid}[[key]]\nname = \"alice\"\n{}", valid.replace(DIGEST, OTHER));
    check_reports(&[
        (
            key("group = \"team\""),
            "[[key]] has no sha256; make a key with: steadfast key",
        ),
        (key(&format!("sha256 = \"{DIGEST}\"")), "[[key]] has no group"),
        (
            key(&valid.replace("team", "sk-canary")),
            "there is no group \"sk-…\"; add [[group]]",
        ),
        (
            key(&valid).replace("alice", "sk-canary"),
            "name must be a name, not the key itself",
        ),
        (
            key(&format!("{valid}sk-canary = \"alice\"")),
            "unknown field \"sk-…\" in [[key]]",
        ),
        (
            key(&format!("{valid}sk-canary = 1\nsk-canary = 1")),
            "\"sk-…\" is written twice",
        ),
        (
            key(&valid.replace("team", "teem")),
            "there is no group \"teem\"; add [[group]]",
        ),
        (key(&taken), "the key name \"alice\" is taken at f.toml:4:8"),
        (expires("\"soon\""), "expires must be a date such as 2027-01-31"),
        (expires("12:00:00"), "expires must be a date such as 2027-01-31"),
        (
            format!("server.allow_anonymous = true\n{}", key(&valid)),
            "allow_anonymous cannot be combined with client keys",
        ),
    ]);
}

#[test]
fn groups_that_are_refused() {
    let group = |lines: &str| format!("[[group]]\nname = \"t\"\n{lines}");
    check_reports(&[
        (
            key(&format!("{}[[group]]\nname = \"team\"", valid())),
            "the group name \"team\" is taken",
        ),
        ("[[group]]\nmodels = [\"x\"]".to_owned(), "[[group]] has no name"),
        (group("upstreams = [\"z\"]"), "there is no upstream \"z\""),
        (group("upstreams = []"), "upstreams must name at least one upstream"),
        (group("models = []"), "models must contain at least one glob"),
        (
            group("requests_per_minute = 0"),
            "requests_per_minute must be between 1 and",
        ),
    ]);
}

#[test]
fn unreadable_files_of_keys_are_reported() {
    check_reports(&[
        (
            "server.keys_file = \"none.toml\"".to_owned(),
            "needs the file \"none.toml\", which cannot be read",
        ),
        (
            "server.keys_directory = \"none.d\"".to_owned(),
            "keys_directory needs the folder \"none.d\", which cannot be read",
        ),
    ]);
}

#[test]
fn passthrough_is_refused_together_with_client_keys() {
    let passthrough = UPSTREAM.replace("env:KEY", "passthrough");
    let report = report(&format!("{}\n{passthrough}", key(&valid())));
    assert!(report.contains("no upstream may receive"), "{report}");
}

#[test]
fn keys_of_further_files_are_added() {
    let folder = Folder::new("keys");
    let entry =
        |name: &str, digest: &str| format!("[[key]]\nname = \"{name}\"\nsha256 = \"{digest}\"\ngroup = \"team\"\n");
    folder.write("keys.toml", entry("alice", DIGEST));
    std::fs::create_dir_all(folder.0.join("keys.d")).unwrap();
    folder.write("keys.d/bob.toml", entry("bob", OTHER));
    folder.write("keys.d/.hidden.toml", "no TOML");
    folder.write("keys.d/notes.txt", "no TOML");
    let text = with_upstream(
        "server = { keys_file = \"keys.toml\", keys_directory = \"keys.d\" }\n[[group]]\nname = \"team\"",
    );
    let origin = folder.0.join("steadfast.toml");
    let load = || Config::from_toml(&text, origin.to_str().unwrap(), &env, &Overrides::default());
    let config = load().unwrap();
    let names: Vec<&str> = config.keys.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["alice", "bob"]);
    let places: Vec<_> = config.files().collect();
    assert_eq!(places, [folder.0.join("keys.toml"), folder.0.join("keys.d")]);
    folder.write("keys.d/bob.toml", "\n\n[[key]]\nname = \"bob\"\nsha265 = \"\"");
    let report = load().unwrap_err().to_string();
    assert!(
        report.contains("bob.toml:5:1: unknown field \"sha265\" in [[key]]; did you mean \"sha256\"?"),
        "{report}"
    );
    // A configured file of keys without a key admits no caller.
    std::fs::remove_file(folder.0.join("keys.d/bob.toml")).unwrap();
    folder.write("keys.toml", "");
    let config = load().unwrap();
    assert!(config.has_client_keys && config.keys.is_empty());
}

#[test]
fn thousands_of_keys_are_read() {
    let folder = Folder::new("many-keys");
    let entries: String = (0..20_000)
        .map(|number| format!("[[key]]\nname = \"k{number}\"\nsha256 = \"{number:064x}\"\ngroup = \"team\"\n"))
        .collect();
    folder.write("keys.toml", entries.replacen(&format!("{:064x}", 0), DIGEST, 1));
    let text = with_upstream("server.keys_file = \"keys.toml\"\n[[group]]\nname = \"team\"");
    let origin = folder.0.join("steadfast.toml");
    let config = Config::from_toml(&text, origin.to_str().unwrap(), &env, &Overrides::default()).unwrap();
    assert_eq!(config.keys.len(), 20_000);
}

#[test]
fn callers_without_a_key_are_admitted_only_if_allow_anonymous_is_set() {
    let open = "[server]\nlisten = \"0.0.0.0:80\"\nallow_anonymous = true";
    let config = read(&with_upstream(open)).unwrap();
    assert!(
        config.warnings[0]
            .message
            .contains("everyone who can connect to \"0.0.0.0:80\" can use"),
        "{:?}",
        config.warnings
    );
    assert!(!config.has_client_keys && config.server.route_headers);
    let closed = read(&with_upstream(
        "[server]\nlisten = \"0.0.0.0:80\"\nallow_anonymous = false",
    ));
    assert!(closed.is_err());
}

#[test]
fn models_may_have_other_names_at_the_upstream() {
    let config = read(&format!(
        "{UPSTREAM}\nmodels = {{ \"gpt-5.2-codex\" = \"my-deployment\", \"b\" = \"b\" }}"
    ))
    .unwrap();
    let upstream = &config.upstreams[0];
    assert_eq!(upstream.models, ModelGlobs::new(["b", "gpt-5.2-codex"]));
    assert_eq!(upstream.renames["gpt-5.2-codex"], "my-deployment");
    for (models, expected) in [
        ("{ \"gpt-*\" = \"x\" }", "must be the name of one model"),
        ("{ a = \"\" }", "must not be empty"),
        ("{ a = \"--b\" }", "must not begin with --"),
        ("{ a = \"b\\r\\nc\" }", "must not contain control characters"),
        ("{ a = 1 }", "must be a string"),
        ("{}", "models must name at least one model"),
    ] {
        let report = report(&format!("{UPSTREAM}\nmodels = {models}"));
        assert!(report.contains(expected), "{report}");
    }
}

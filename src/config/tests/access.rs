//! Groups and keys.

use super::*;

const DIGEST: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
const OTHER: &str = "5ff3ad1f0b1b1ac9b3b0f0a2d6e6f1f4c9a7b8d0e1f2031425364758697a8b9c";

fn both(text: &str) -> String {
    format!("{text}\n{UPSTREAM}")
}

fn digest(text: &str) -> [u8; 32] {
    std::array::from_fn(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
}

#[test]
fn groups_and_keys_as_written() {
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
    let config = read(&both(&text)).unwrap();
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

#[test]
fn what_is_wrong_with_keys_and_groups() {
    let group = "[[group]]\nname = \"team\"\n";
    let key = |lines: &str| format!("{group}[[key]]\nname = \"alice\"\n{lines}");
    let good = format!("sha256 = \"{DIGEST}\"\ngroup = \"team\"\n");
    for (text, expected) in [
        (
            key("group = \"team\""),
            "[[key]] has no sha256; make a key with: steadfast key",
        ),
        (key(&format!("sha256 = \"{DIGEST}\"")), "[[key]] has no group"),
        (
            key("sha256 = \"sk-canary-written-here\"\ngroup = \"team\""),
            "must be the SHA-256 of a key as 64 hexadecimal digits",
        ),
        (
            key(&format!("sha256 = \"{}g\"\ngroup = \"team\"", &DIGEST[1..])),
            "must be the SHA-256",
        ),
        (
            key("sha256 = \"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"\ngroup = \"team\""),
            "is the SHA-256 of an empty text",
        ),
        (
            key(&good.replace("team", "sk-canary")),
            "there is no group \"sk-…\"; add [[group]]",
        ),
        (
            key(&good).replace("alice", "sk-canary"),
            "name must be a name, not the key itself",
        ),
        (
            key(&format!("{good}sk-canary = \"alice\"")),
            "unknown field \"sk-…\" in [[key]]",
        ),
        (
            key(&format!("{good}sk-canary = 1\nsk-canary = 1")),
            "\"sk-…\" is written twice",
        ),
        (
            key("sha256 = []\ngroup = \"team\""),
            "sha256 must contain at least one digest",
        ),
        (
            key(&good.replace("team", "teem")),
            "there is no group \"teem\"; add [[group]]",
        ),
        (
            key(&format!(
                "{good}[[key]]\nname = \"alice\"\n{}",
                good.replace(DIGEST, OTHER)
            )),
            "the key name \"alice\" is taken at f.toml:4:8",
        ),
        (
            key(&format!("{good}[[key]]\nname = \"bob\"\n{good}")),
            "sha256 is already used by the key at f.toml:4:8",
        ),
        (
            key(&format!("{good}expires = \"soon\"")),
            "expires must be a date such as 2027-01-31",
        ),
        (
            key(&format!("{good}expires = 12:00:00")),
            "expires must be a date such as 2027-01-31",
        ),
        (
            key(&format!("{good}[[group]]\nname = \"team\"")),
            "the group name \"team\" is taken",
        ),
        ("[[group]]\nmodels = [\"x\"]".to_owned(), "[[group]] has no name"),
        (
            "[[group]]\nname = \"t\"\nupstreams = [\"z\"]".to_owned(),
            "there is no upstream \"z\"",
        ),
        (
            "[[group]]\nname = \"t\"\nupstreams = []".to_owned(),
            "upstreams must name at least one upstream",
        ),
        (
            "[[group]]\nname = \"t\"\nmodels = []".to_owned(),
            "models must contain at least one glob",
        ),
        (
            "[[group]]\nname = \"t\"\nrequests_per_minute = 0".to_owned(),
            "requests_per_minute must be between 1 and",
        ),
        (
            format!("server.allow_anonymous = true\n{}", key(&good)),
            "allow_anonymous cannot be combined with client keys",
        ),
        (
            "server.keys_file = \"none.toml\"".to_owned(),
            "needs the file \"none.toml\", which cannot be read",
        ),
        (
            "server.keys_directory = \"none.d\"".to_owned(),
            "keys_directory needs the folder \"none.d\", which cannot be read",
        ),
    ] {
        let report = report_above_upstream(&text);
        assert!(report.contains(expected), "{text}\n{report}");
        assert!(!report.contains("canary") && !report.contains(DIGEST), "{report}");
    }
    let passthrough = UPSTREAM.replace("env:KEY", "passthrough");
    let text = format!("{}\n{passthrough}", key(&good));
    if passthrough != UPSTREAM {
        let report = report(&text);
        assert!(report.contains("no upstream may receive"), "{report}");
    }
}

#[test]
fn keys_of_other_files_join() {
    let folder = Folder::new("keys");
    let entry =
        |name: &str, digest: &str| format!("[[key]]\nname = \"{name}\"\nsha256 = \"{digest}\"\ngroup = \"team\"\n");
    folder.write("keys.toml", entry("alice", DIGEST));
    std::fs::create_dir_all(folder.0.join("keys.d")).unwrap();
    folder.write("keys.d/bob.toml", entry("bob", OTHER));
    folder.write("keys.d/.hidden.toml", "no TOML");
    folder.write("keys.d/notes.txt", "no TOML");
    let text = both("server = { keys_file = \"keys.toml\", keys_directory = \"keys.d\" }\n[[group]]\nname = \"team\"");
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
    // A place for keys that holds none lets nobody in.
    std::fs::remove_file(folder.0.join("keys.d/bob.toml")).unwrap();
    folder.write("keys.toml", "");
    let config = load().unwrap();
    assert!(config.has_client_keys && config.keys.is_empty());
}

#[test]
fn thousands_of_keys_are_read_at_once() {
    let folder = Folder::new("many-keys");
    let entries: String = (0..20_000)
        .map(|number| format!("[[key]]\nname = \"k{number}\"\nsha256 = \"{number:064x}\"\ngroup = \"team\"\n"))
        .collect();
    folder.write("keys.toml", entries.replacen(&format!("{:064x}", 0), DIGEST, 1));
    let text = both("server.keys_file = \"keys.toml\"\n[[group]]\nname = \"team\"");
    let origin = folder.0.join("steadfast.toml");
    let config = Config::from_toml(&text, origin.to_str().unwrap(), &env, &Overrides::default()).unwrap();
    assert_eq!(config.keys.len(), 20_000);
}

#[test]
fn anybody_may_be_let_in_on_purpose() {
    let open = "[server]\nlisten = \"0.0.0.0:80\"\nallow_anonymous = true";
    let config = read(&both(open)).unwrap();
    assert!(
        config.warnings[0]
            .message
            .contains("everyone who can connect to \"0.0.0.0:80\" can use"),
        "{:?}",
        config.warnings
    );
    assert!(!config.has_client_keys && config.server.route_headers);
    let closed = read(&both("[server]\nlisten = \"0.0.0.0:80\"\nallow_anonymous = false"));
    assert!(closed.is_err());
}

#[test]
fn models_may_have_other_names_upstream() {
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
        ("{ a = 1 }", "must be a string"),
        ("{}", "models must name at least one model"),
    ] {
        let report = report(&format!("{UPSTREAM}\nmodels = {models}"));
        assert!(report.contains(expected), "{report}");
    }
}

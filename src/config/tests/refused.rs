//! Files that are refused, and the exact reports on them.

use super::*;

/// A file with many errors.
const MANY_ERRORS: &str = r#"# größer
[server]
listen = ["0.0.0.0:8080", "127.0.0.1:81", "127.0.0.1:81", 5]
max_body = "2GiB"
tls = { cert = "c.pem" }
grace = "soon"
[admin]
listen = "10.0.0.1:9090"
[affinity]
sources = ["owner", "cookie", "owner"]
wait = "61s"
capacity = 99999999999999999999999999999999999999999999
[timeouts]
connect = "0s"
"é" = 1
retry = { attempts = 0, budget = 1.5 }
[[upstream]]
name = "a b"
base_url = "api.openai.com"
api_key = "env:UNSET"
wieght = 2
[[upstream]]
weight = 0
[[upstream]]
name = "c"
base_url = "http://c.example/v1#sk-canary"
api_key = "env:BROKEN"
models = ["", 3]
headers = { Authorization = "sk-canary", "a b" = "c", x = "1", X = "2", "y" = "\n" }
http2 = true
max_in_flight = 0
[[upstream]]
name = "c"
base_url = "http://d.example/v1"
api_key = "$KEY"
http2 = true
organization = "my org"
"#;

/// The report on [`MANY_ERRORS`].
const REPORT: &[&str] = &[
    "3:11: listen may only be a loopback address such as \"127.0.0.1:8080\", not \"0.0.0.0:8080\": without client keys, everyone who can connect can use your upstream keys; make keys with \"steadfast key\", or set allow_anonymous = true to allow it",
    "3:43: listen has \"127.0.0.1:81\" twice; keep one",
    "3:59: listen must be a string, not an integer",
    "4:12: buffered_bodies (512MiB) must hold one body of max_body (2GiB); raise it, or lower max_body",
    "5:7: [server.tls] has no key; add key = \"k.pem\"",
    "5:16: cert needs the file \"c.pem\", which cannot be read: No such file or directory (os error 2)",
    "6:9: grace must be a duration such as \"5s\", \"500ms\" or \"1h30m\", not \"soon\"",
    "8:10: admin.listen \"10.0.0.1:9090\" is not loopback, so it needs a token: set admin.token = \"env:NAME\", or listen on \"127.0.0.1:9090\"",
    "10:21: sources has an unknown source: a source is one of \"owner\", \"content\", \"header:NAME\", \"body:PATH\" and \"messages:PATH\"; a path has 1 to 3 names with a \".\" between them, each of 1 to 64 letters, digits, \"_\" or \"-\"",
    "10:31: sources has \"owner\" twice; keep the first",
    "11:8: wait (1m1s) must not be longer than wait_max (1m); lower it, or raise wait_max",
    "12:12: capacity must be between 1 and 100000000",
    "14:11: connect must be between 1ms and 24h",
    "15:1: unknown field \"é\" in [timeouts]; the known fields are connect, head, idle, connection_age, client_header",
    "16:1: unknown field \"retry\" in [timeouts]; it belongs at the top level",
    "18:8: name must be 1 to 64 letters, digits, \".\", \"_\" or \"-\"",
    "19:12: base_url must start with \"https://\" or \"http://\"",
    "20:11: api_key needs the environment variable UNSET, which is not set; set it, or name another",
    "21:1: unknown field \"wieght\" in [[upstream]]; did you mean \"weight\"?",
    "22:1: [[upstream]] has no name; add name = \"account-a\"; sessions hash to it, so keep it later",
    "22:1: [[upstream]] has no base_url; add base_url = \"https://api.openai.com/v1\"",
    "22:1: [[upstream]] has no api_key; add api_key = \"env:NAME\", \"file:PATH\" or \"passthrough\"",
    "23:10: weight must be between 1 and 1000000",
    "26:12: base_url must have no fragment (\"#\")",
    "27:11: api_key contains an invalid character; check \"env:BROKEN\" for spaces, line breaks and accents",
    "28:11: models must contain globs of 1 to 256 bytes; \"*\" is all models",
    "28:15: models must be a string, not an integer",
    "29:13: headers: \"Authorization\" is set from api_key; remove it",
    "29:42: headers: \"a b\" is not a valid header name",
    "29:55: headers: \"x\" is written twice; keep one",
    "29:79: headers: the value of \"y\" contains an invalid character; check it for line breaks and accents",
    "31:17: max_in_flight must be between 1 and 1000000",
    "33:8: the upstream name \"c\" is taken; names must be unique",
    "35:11: api_key starts with \"$\", but variables are not expanded; write \"env:NAME\"",
    "36:9: http2 needs TLS; remove it, or use a base_url with \"https://\"",
    "37:16: organization must be 1 to 64 letters, digits, \".\", \"_\" or \"-\"",
];

#[test]
fn all_errors_of_a_file_are_reported_at_once() {
    let expected: Vec<_> = REPORT.iter().map(|line| format!("f.toml:{line}")).collect();
    let report = report(MANY_ERRORS);
    assert_eq!(report.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn retries_and_waits_out_of_range_are_refused() {
    for (text, expected) in [
        ("[retry]\nattempts = 11", "2:12: attempts must be between 1 and 10"),
        (
            "[retry]\nattempts = \"3\"",
            "2:12: attempts must be an integer, not a string",
        ),
        ("[retry]\nbudget = 1.01", "2:10: budget must be between 0.0 and 1.0"),
        ("[retry]\nbudget = -0.1", "2:10: budget must be between 0.0 and 1.0"),
        ("[retry]\nbudget = nan", "2:10: budget must be between 0.0 and 1.0"),
        ("[retry]\nbudget = 20", "2:10: budget must be between 0.0 and 1.0"),
        (
            "[retry]\nbudget = \"20%\"",
            "2:10: budget must be a number, not a string",
        ),
        (
            "[retry]\nretries = 3",
            "2:1: unknown field \"retries\" in [retry]; the known fields are attempts, budget, decide_within, decide_bytes, on_timeout",
        ),
        ("affinity.wait = \"25h\"", "1:17: wait must be between 0s and 24h"),
        (
            "affinity.wait_max = \"1s\"",
            "1:21: wait (2s) must not be longer than wait_max (1s); lower it, or raise wait_max",
        ),
        (
            "affinity.wait_max = \"1d\"",
            "1:21: wait_max must be a duration such as \"5s\", \"500ms\" or \"1h30m\", not \"1d\"",
        ),
        (
            "affinity.reread_rate = 0",
            "1:24: reread_rate must be between 1 and 10000000",
        ),
    ] {
        assert_eq!(report_above_upstream(text), format!("f.toml:{expected}"), "{text}");
    }
}

#[test]
fn too_many_paths_in_the_body_are_refused() {
    let sources = |count| {
        let paths: Vec<String> = (0..count).map(|number| format!("\"body:a{number}\"")).collect();
        format!("affinity.sources = [{}]", paths.join(", "))
    };
    let problem = "sources must have at most 64 paths in the body; remove some";
    assert_eq!(report_above_upstream(&sources(65)), format!("f.toml:1:20: {problem}"));
}

#[test]
fn syntax_errors_hide_no_other_error_and_are_reported_once() {
    for (text, expected) in [
        // The lines between a broken header and the next one are not checked, except for their syntax.
        (
            "[server\nlisten = 1\n[admin]\nlisten = 3\n",
            "1:8: unclosed table, expected `]`\n4:10: listen must be a string, not an integer",
        ),
        // A line with a broken value is not checked. The missing upstream is not reported, because the broken line may
        // be a part of it.
        (
            "[server]\nlisten = \"127\nmax_body = 3\n[adm]\n",
            "2:14: invalid basic string, expected `\"`\n3:12: max_body must be between 1KiB and 3GiB\n\
             4:2: unknown field \"adm\" at the top level; did you mean \"admin\"?",
        ),
        (
            "[server]\nlisten =\ngrace = 1\n",
            "2:9: a value is missing\n3:9: grace must be a duration such as \"5s\", \"500ms\" or \"1h30m\", not an integer",
        ),
        (
            "[server]\nlisten = localhost:80\n",
            "2:10: string values must be quoted, expected literal string",
        ),
        // The parser takes the rest of the file for the content of an unclosed array.
        (
            "[server]\nlisten = [ \"x\"\nmax_body = 4\n[admin]\nx = 1\n",
            "2:12: listen must be an IP address and port such as \"127.0.0.1:8080\", not \"x\"\n\
             3:1: missing comma between array elements, expected `,`\n5:6: unclosed array, expected `]`",
        ),
        (
            "[[upstream]]\nheaders = { \"a\" = \"b\"\nweight = 3\n\n[admin]\nx = 1\n",
            "3:1: missing comma between key-value pairs, expected `,`\n6:6: unclosed inline table, expected `}`",
        ),
        (
            "[server]\n[server]\nx = 1\n",
            "2:2: \"server\" is written twice; keep one",
        ),
        (
            "[admin]\ntoken = \"env:KEY\"\n\"token\" = 1\n",
            "3:1: \"token\" is written twice; keep one",
        ),
        (
            "server.grace = \"1s\"\n[server]\n",
            "2:2: \"server\" is written twice; keep one",
        ),
        (
            "[server]\nmax_body = 1__0\n",
            "2:13: `_` may only go between digits, expected nothing",
        ),
    ] {
        let expected: Vec<_> = expected.lines().map(|line| format!("f.toml:{line}")).collect();
        assert_eq!(report(text).lines().collect::<Vec<_>>(), expected, "{text}");
    }
}

#[test]
fn columns_count_characters_with_any_line_end_and_byte_order_mark() {
    for text in ["\u{feff}é = 1\r\n\r\n\"日本\".x = 1\r\n", "é = 1\n\n\"日本\".x = 1\n"] {
        let report = report_above_upstream(text);
        let places: Vec<_> = report.lines().map(|line| line.split(": ").next().unwrap()).collect();
        // TOML does not allow a bare é.
        assert_eq!(places, ["f.toml:1:1", "f.toml:3:1"], "{report}");
    }
    let report = report_above_upstream("\u{feff}[server]\r\ngrace = \"日本\" # x\r\nlisten = [\"日本\", 1]\r\n");
    let places: Vec<_> = report.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["f.toml:2:9", "f.toml:3:11", "f.toml:3:17"], "{report}");
}

#[test]
fn the_report_on_an_empty_file_says_what_to_write() {
    let expected = "f.toml: there is no upstream; add [[upstream]] with name, base_url and api_key";
    for text in [
        "",
        "\u{feff}",
        "\r\n",
        "# only a comment",
        "[server]\n",
        "upstream = []",
    ] {
        assert_eq!(report(text), expected, "{text:?}");
    }
}

#[test]
fn values_in_place_of_tables_are_refused() {
    for (text, expected) in [
        (
            "server = 3",
            "1:10: server must be a table, not an integer; write [server]",
        ),
        (
            "[[server]]",
            "1:1: server must be a table, not an array; write [server]",
        ),
        (
            "upstream = 3",
            "1:12: upstream must be an array of tables, not an integer; write [[upstream]]",
        ),
        (
            "upstream = [true]",
            "1:13: upstream must be an array of tables, not a boolean; write [[upstream]]",
        ),
        (
            "listen = \"127.0.0.1:1\"",
            "1:1: unknown field \"listen\" at the top level; it belongs in [server]",
        ),
        (
            "[server]\nupstream = 1",
            "2:1: unknown field \"upstream\" in [server]; it belongs at the top level",
        ),
        ("[admin]\nlisten = { }", "2:10: listen must be a string, not a table"),
    ] {
        let report = report(text);
        assert_eq!(
            report.lines().next(),
            Some(format!("f.toml:{expected}").as_str()),
            "{text}"
        );
    }
    // A single [upstream] is an error, but is read, so that its other errors are reported too.
    let report = report(
        &UPSTREAM
            .replace("[[", "[")
            .replace("]]", "]")
            .replace("env:KEY", "env:UNSET"),
    );
    let places: Vec<_> = report.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(places, ["f.toml:1:1", "f.toml:4:11"], "{report}");
}

#[test]
fn listeners_must_not_clash() {
    let twice =
        |address: &str| format!("\"{address}\" is used by both server.listen and admin.listen; change one of them");
    for (text, expected) in [
        (
            "[server]\nlisten = \"127.0.0.1:9090\"",
            format!("2:10: {}", twice("127.0.0.1:9090")),
        ),
        (
            "[admin]\nlisten = \"127.0.0.1:8080\"",
            format!("2:10: {}", twice("127.0.0.1:8080")),
        ),
        (
            "server.listen = \"[::1]:1\"\nadmin.listen = [\"[::1]:1\"]",
            format!("2:17: {}", twice("[::1]:1")),
        ),
        (
            "[admin]\nlisten = \"0.0.0.0:8080\"\ntoken = \"env:KEY\"",
            format!("2:10: {}", twice("0.0.0.0:8080")),
        ),
        (
            "[server]\nlisten = [\"unix:/a\", \"unix:/a\"]",
            "2:22: listen has \"unix:/a\" twice; keep one".to_owned(),
        ),
        (
            "[admin]\nlisten = [\"[::1]:1\", \"[::1]:1\"]",
            "2:22: admin.listen has \"[::1]:1\" twice; keep one".to_owned(),
        ),
        (
            "[server]\nlisten = []",
            "2:10: listen must have an address such as \"127.0.0.1:8080\"".to_owned(),
        ),
        (
            "[server]\nlisten = \":8080\"",
            "2:10: listen must name the address to listen on; write \"127.0.0.1:8080\"".to_owned(),
        ),
        (
            "server.listen = \"127.0.0.1:1\"\nadmin = { listen = \"[::]:1\", token = \"env:KEY\" }",
            format!("2:20: {}", twice("[::]:1")),
        ),
        (
            "[server]\nlisten = [\"127.0.0.1:1\", \"[::ffff:127.0.0.1]:1\"]",
            "2:26: listen has \"[::ffff:127.0.0.1]:1\" twice; keep one".to_owned(),
        ),
    ] {
        assert_eq!(report_above_upstream(text), format!("f.toml:{expected}"), "{text}");
    }
    for text in [
        "[server]\nlisten = \"127.0.0.1:9090\"\n[admin]\nlisten = []",
        "[server]\nlisten = \"[::1]:9090\"",
        "[server]\nlisten = \"[::ffff:127.0.0.1]:80\"",
        "[admin]\nlisten = \"0.0.0.0:9090\"\ntoken = \"env:KEY\"",
        "server.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"",
    ] {
        let text = format!("{text}\n{UPSTREAM}");
        assert!(read(&text).is_ok(), "{text}: {:?}", read(&text));
    }
}

#[test]
fn headers_that_steadfast_sets_are_refused() {
    for name in [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "connection",
        "keep-alive",
        "TE",
        "expect",
        "authorization",
    ] {
        let report = report(&format!("{UPSTREAM}headers.{name} = \"sk-canary\"\n"));
        assert!(
            report.starts_with(&format!("f.toml:5:9: headers: \"{name}\" ")),
            "{report}"
        );
        assert_eq!(report.lines().count(), 1, "{report}");
    }
}

#[test]
fn no_report_contains_a_secret() {
    for field in [
        "api_key = \"sk-canary x\"",
        "api_key = \"sk-canary\\n\"",
        "api_key = \"sk-canary",
        "api_key = sk-canary",
        "api_key = \"env:sk-canary\"",
        "api_key = \"$sk-canary\"",
        "api_key = [\"sk-canary\"]",
        "api_key = \"sk-canary\"\napi_key = \"sk-canary\"",
        "base_url = \"https://u:sk-canary@a/\"",
        "base_url = \"https://a/?key=sk-canary\"",
        "headers = { x = \"sk-canary\\n\" }",
        "headers = { authorization = \"sk-canary\" }",
        "headers = { x = \"env:BROKEN\", y = \"sk-canary\", Y = \"sk-canary\" }",
        "api_key = \"env:BROKEN\"",
    ] {
        let report = report(&format!("[[upstream]]\nname = \"a\"\n{field}\n"));
        assert!(!report.contains("canary"), "{field}: {report}");
    }
    for flag in [
        "sk-canary",
        "a=sk-canary",
        "a=https://sk-canary@a/,env:KEY",
        "sk=canary=1,x",
        "a=https://a/v1,sk-canary\n",
    ] {
        let report = Config::from_flags_in(&env, &flags(&[flag])).unwrap_err().to_string();
        assert!(!report.contains("canary"), "{flag}: {report}");
    }
}

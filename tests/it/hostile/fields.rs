//! Field lines (RFC 9110 section 5, RFC 9112 section 5), and the fields that must not be forwarded.

use super::kit::{Row, SOUND, head};

const GET: &str = "GET /v1/files/x HTTP/1.1";
const TYPE: (&str, &str) = ("content-type", "application/json");

pub fn rows() -> Vec<Row> {
    let mut rows = syntax();
    rows.extend(dropped());
    rows.extend(body_handling());
    rows
}

fn syntax() -> Vec<Row> {
    let bad = [
        "x-a: 1\r\n folded",
        "x-a: 1\r\n\tfolded",
        "x-a:\r\n folded",
        "x-a : 1",
        "x-a\t: 1",
        " x-a: 1",
        "x a: 1",
        "x-a",
        ": 1",
        "x(a): 1",
        "x\u{e9}: 1",
        "x\0a: 1",
        "x-a: \0",
        "x-a: 1\0",
        "x-a: 1\r2",
        "x-a: 1\rtransfer-encoding: chunked",
        "x-a: 1\ntransfer-encoding: chunked",
        "x-a: 1\r\r\nx-b: 2",
        "x-a: 1\n",
        "x-a: \u{1}",
        "x-a: \u{7f}",
        "x-a: \u{b}chunked",
        "\"x-a\": 1",
        "x-a: 1\r\n\n",
    ];
    let mut rows: Vec<Row> = bad
        .map(|line| {
            Row::raw(format!("{line:?}"), head(GET, &[line]))
                .answered(400, "bad_head")
                .closes()
        })
        .into();
    let many = vec!["x-a: 1"; 101];
    let long = format!("x-a: {}", "a".repeat(70_000));
    let name = format!("{}: 1", "a".repeat(70_000));
    rows.extend([
        Row::raw("a hundred and one fields", head(GET, &many))
            .answered(431, "head_too_large")
            .closes(),
        Row::raw("a long value", head(GET, &[&long]))
            .answered(431, "head_too_large")
            .closes(),
        Row::raw("a long name", head(GET, &[&name]))
            .answered(431, "head_too_large")
            .closes(),
        Row::raw("a hundred fields", head(GET, &many[..98])).reaches(GET, &many[..98], ""),
        Row::raw("a first field that is folded", head(&format!("{GET}\r\n x-a: 1"), &[]))
            .answered(400, "bad_head")
            .closes(),
        Row::raw("a head with bare LF", head(GET, &[]).replace("\r\n", "\n"))
            .answered(400, "bad_head")
            .closes(),
        Row::raw("a head with bare CR", head(GET, &[]).replace("\r\n", "\r"))
            .answered(400, "bad_head")
            .closes(),
        Row::raw(
            "values of any bytes",
            [head(GET, &["x-a: caf"]).trim_end().as_bytes(), b"\xe9\r\n\r\n"].concat(),
        )
        .reaches(GET, &["x-a: caf\\xe9"], ""),
        Row::raw("empty values", head(GET, &["x-a:", "x-b: \t "])).reaches(GET, &["x-a: ", "x-b: "], ""),
    ]);
    rows
}

/// Fields of a client that are never forwarded.
fn dropped() -> Vec<Row> {
    let about =
        |name: &str, fields: &[(&str, &str)]| Row::request(name, "GET", "/v1/files/x", fields).reaches(GET, &[], "");
    let raw = |name: &str, lines: &[&str]| Row::raw(name, head(GET, lines));
    vec![
        raw(
            "fields named by Connection",
            &["connection: x-hop, X-Other", "x-hop: 1", "x-other: 2", "x-stays: 3"],
        )
        .reaches(GET, &["x-stays: 3"], ""),
        raw(
            "Connection twice",
            &[
                "connection: x-hop",
                "Connection: x-other",
                "x-hop: 1",
                "X-Hop: 1",
                "x-other: 2",
            ],
        )
        .reaches(GET, &[], ""),
        raw("Connection with empty names", &["connection: ,, x-hop ,", "x-hop: 1"]).reaches(GET, &[], ""),
        raw("Connection that names a host", &["connection: host, x-hop", "x-hop: 1"]).reaches(GET, &[], ""),
        raw(
            "Connection that names a credential",
            &["connection: authorization", "authorization: Bearer sk-mine"],
        )
        .reaches(GET, &[], ""),
        raw("Connection with a bad name", &["connection: x hop, x-hop", "x-hop: 1"]).reaches(GET, &[], ""),
        Row::raw("Connection beside bytes that are no text", {
            let line = [&b"connection: \xff, x-hop\r\nx-hop: 1\r\n\r\n"[..]].concat();
            [head(GET, &[]).trim_end().as_bytes(), b"\r\n", &line].concat()
        })
        .reaches(GET, &[], ""),
        Row::raw(
            "Connection that names a length",
            head(
                "POST /v1/responses HTTP/1.1",
                &[
                    "connection: content-length",
                    "content-type: application/json",
                    "content-length: 32",
                ],
            ) + SOUND,
        )
        .reaches(
            "POST /v1/responses HTTP/1.1",
            &["content-type: application/json", "content-length: 32"],
            SOUND,
        ),
        raw(
            "hop-by-hop fields",
            &[
                "keep-alive: timeout=5",
                "proxy-connection: keep-alive",
                "te: trailers, gzip",
                "trailer: x-a",
                "upgrade: h2c",
            ],
        )
        .reaches(GET, &[], ""),
        about(
            "credentials",
            &[
                ("authorization", "Bearer sk-mine"),
                ("x-api-key", "sk-mine"),
                ("cookie", "a=b"),
                ("proxy-authorization", "Basic x"),
            ],
        ),
        about(
            "two credentials",
            &[("authorization", "Bearer sk-a"), ("Authorization", "Bearer sk-b")],
        ),
        about(
            "credentials and accounts with underscores",
            &[
                ("x_api_key", "sk-mine"),
                ("openai_organization", "org-other"),
                ("OpenAI_Project", "proj-other"),
                ("chatgpt_account_id", "other"),
                ("proxy_authorization", "Basic x"),
            ],
        ),
        about(
            "framing with underscores",
            &[
                ("content_length", "5"),
                ("transfer_encoding", "chunked"),
                ("x_forwarded_for", "1.2.3.4"),
                ("keep_alive", "1"),
            ],
        ),
        about(
            "an account",
            &[
                ("openai-organization", "org-other"),
                ("openai-project", "p"),
                ("chatgpt-account-id", "a"),
            ],
        ),
        about(
            "fields that proxies add",
            &[
                ("forwarded", "for=1.2.3.4"),
                ("x-forwarded-for", "1.2.3.4"),
                ("x-forwarded-host", "other"),
                ("x-real-ip", "1.2.3.4"),
            ],
        ),
        about(
            "fields that only the gateway sets",
            &[("x-steadfast-upstream", "b"), ("x-steadfast-route", "pin")],
        ),
        raw("two request ids", &["x-request-id: other"]).reaches(GET, &[], ""),
        about("an unknown expectation", &[("expect", "200-ok")]),
    ]
}

/// Fields that decide how a body is handled.
fn body_handling() -> Vec<Row> {
    let post = "POST /v1/responses HTTP/1.1";
    let length = ("content-length", "32");
    let lines = |fields: &[(&str, &str)]| {
        let lines: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        head(post, &lines)
    };
    let twice = r#"{"model":"a","model":"b"}"#;
    let expecting = |value: &str| lines(&[TYPE, length, ("expect", value)]) + SOUND;
    let whole = |row: Row| row.reaches(post, &["content-type: application/json", "content-length: 32"], SOUND);
    vec![
        // The body has arrived already, so the gateway sends no 100 Continue (RFC 9110 section 10.1.1).
        whole(Row::raw(
            "100-continue with a body that has arrived",
            expecting("100-continue"),
        )),
        whole(Row::raw("another expectation", expecting("100-continue, x"))),
        whole(Row::raw(
            "100-continue on HTTP/1.0",
            expecting("100-continue").replacen("HTTP/1.1", "HTTP/1.0", 1),
        ))
        .closes(),
        Row::raw(
            "100-continue with a length over the limit",
            lines(&[TYPE, ("content-length", "1048577"), ("expect", "100-continue")]),
        )
        .answered(413, "request_too_large")
        .closes(),
        Row::raw(
            "100-continue with an invalid target",
            lines(&[length, ("expect", "100-continue")]).replacen("/v1/", "/v1//", 1),
        )
        .answered(400, "ambiguous_target")
        .closes(),
        Row::request("JSON without a type", "POST", "/v1/responses", &[])
            .with_body(twice)
            .answered(400, "ambiguous_body"),
        Row::request(
            "JSON as text",
            "POST",
            "/v1/responses",
            &[("content-type", "text/plain")],
        )
        .with_body(twice)
        .answered(400, "ambiguous_body"),
        Row::request(
            "JSON as a form",
            "POST",
            "/v1/chat/completions",
            &[("content-type", "multipart/form-data")],
        )
        .with_body(twice)
        .answered(400, "ambiguous_body"),
        Row::request(
            "JSON of a second type",
            "POST",
            "/v1/images/generations",
            &[("content-type", "text/plain"), ("Content-Type", "application/json")],
        )
        .with_body(twice)
        .answered(400, "ambiguous_body"),
        Row::request(
            "JSON in a list of types",
            "POST",
            "/v1/images/generations",
            &[("content-type", "text/plain, application/json")],
        )
        .with_body(twice)
        .answered(400, "ambiguous_body"),
        Row::request("JSON in a GET", "GET", "/v1/responses", &[TYPE])
            .with_body(twice)
            .answered(400, "ambiguous_body"),
        Row::request(
            "a WebSocket",
            "GET",
            "/v1/responses",
            &[("connection", "upgrade"), ("upgrade", "websocket")],
        )
        .answered(426, "websocket_unsupported"),
        Row::request(
            "a WebSocket and h2c",
            "GET",
            "/v1/responses",
            &[("upgrade", "h2c, WebSocket")],
        )
        .answered(426, "websocket_unsupported"),
    ]
}

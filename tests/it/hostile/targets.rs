//! Request lines, targets and hosts (RFC 9112 section 3, RFC 3986).

use super::kit::{Row, head};

pub fn rows() -> Vec<Row> {
    let mut rows = lines();
    rows.extend(paths());
    rows.extend(absolute());
    rows.extend(hosts());
    rows
}

fn lines() -> Vec<Row> {
    let bad = [
        "GET /v1/models",
        "GET /v1/models ",
        "GET /v1/models HTTP/2.0",
        "GET /v1/models HTTP/1.2",
        "GET /v1/models HTTP/0.9",
        "GET /v1/models HTTP/1",
        "GET /v1/models HTTP/11",
        "GET /v1/models HTTP/1.1x",
        "GET /v1/models http/1.1",
        "GET /v1/models HTTP/1.1 ",
        "GET /v1/models HTTP/1.1 HTTP/1.1",
        "GET  /v1/models HTTP/1.1",
        "GET /v1/models  HTTP/1.1",
        "GET\t/v1/models\tHTTP/1.1",
        " GET /v1/models HTTP/1.1",
        "GET /v1/mod els HTTP/1.1",
        "GET /v1/models\0 HTTP/1.1",
        "GET /v1/models\u{7f} HTTP/1.1",
        "GET /v1/models\r HTTP/1.1",
        "GET /v1/models\n HTTP/1.1",
        "G(T /v1/models HTTP/1.1",
        "G\u{e9}T /v1/models HTTP/1.1",
        "/v1/models HTTP/1.1",
        "GET HTTP/1.1",
        "GET  HTTP/1.1",
        "GET v1/models HTTP/1.1",
        "GET ?x HTTP/1.1",
        "GET /v1/files/x#y HTTP/1.1",
        "GET /v1/files/x?y#z HTTP/1.1",
    ];
    let mut rows: Vec<Row> = bad
        .map(|line| {
            Row::raw(format!("{line:?}"), head(line, &[]))
                .answered(400, "bad_head")
                .closes()
        })
        .into();
    let methods = ["get", "Post", "pOST", "CONNECT", "TRACE", "PROPFIND", "GETT", "PURGE"];
    rows.extend(methods.map(|method| {
        Row::request(format!("method {method}"), method, "/v1/files/x", &[]).answered(405, "method_not_allowed")
    }));
    rows.extend([
        Row::raw("HTTP/0.9", "GET /v1/files/x\r\n")
            .answered(400, "bad_head")
            .closes(),
        Row::raw("CONNECT to an authority", head("CONNECT it:443 HTTP/1.1", &[])).answered(405, "method_not_allowed"),
        Row::raw("a line of one long word", "x".repeat(200_000))
            .answered(431, "head_too_large")
            .closes(),
        Row::raw("TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n".to_vec())
            .answered(400, "bad_head")
            .closes(),
    ]);
    rows
}

fn paths() -> Vec<Row> {
    let ambiguous = [
        "/v1/../admin",
        "/v1/files/..",
        "/v1/files/.",
        "/v1/./files",
        "/v1/%2e%2e/admin",
        "/v1/%2E./admin",
        "/v1/files/.%2e/x",
        "/v1/files/%2e",
        "/v1/files/a%2ejson",
        "//v1/files",
        "/v1//files",
        "/v1/files//",
        "/v1/files/..%2fadmin",
        "/v1/files/..%2F..%2Fadmin",
        "/v1/files%2f%2fx",
        "/v1/files/%2f/x",
        "/v1%2f..%2fadmin",
        "/v1/files/a%5cb",
        "/v1/files/..%5C..%5cadmin",
        "/v1/files/..;/admin",
        "/v1/files/a;b=c",
        "/v1/files/%00",
        "/v1/files/x%0d%0ahost:%20other",
        "/v1/files/%7f",
        "/v1/files/%",
        "/v1/files/%2",
        "/v1/files/%zz",
        "/v1/files/%u002e%u002e/x",
        "/v1/files/%23/../x",
        // Percent-encoded twice, for an upstream that decodes twice.
        "/v1/%252e%252e/admin",
        "/v1/files/..%252fadmin",
        "/v1/files/%255c",
        // Overlong UTF-8 for a dot and a slash (RFC 3629 section 10), and bytes that are no UTF-8.
        "/v1/%c0%ae%c0%ae/admin",
        "/v1/files/..%c0%afadmin",
        "/v1/%e0%80%ae%e0%80%ae/admin",
        "/v1/files/%ff",
        "/v1/files/%ed%a0%80",
        "/v1/files/\u{e9}",
        "/v1/files/\u{ff0e}\u{ff0e}/admin",
        "*",
    ];
    let mut rows: Vec<Row> = ambiguous
        .map(|path| Row::request(format!("path {path}"), "GET", path, &[]).answered(400, "ambiguous_target"))
        .into();
    rows.push(
        Row::raw("path with a backslash", head("GET /v1/files\\..\\admin HTTP/1.1", &[]))
            .answered(400, "ambiguous_target"),
    );
    let unknown = [
        "/",
        "/v1",
        "/v1/",
        "/v1/v1/files",
        "/V1/files",
        "/admin",
        "/metrics",
        "/%76%31/files",
        "/v1%2ffiles",
        "/.git",
    ];
    rows.extend(
        unknown.map(|path| Row::request(format!("path {path}"), "GET", path, &[]).answered(404, "unknown_path")),
    );
    let plain = [
        "/v1/files/a%2Fb",
        "/v1/files/a%20b?x=../y&z=//%2e%00&u=http://other/",
        "/v1/files/..a/...",
        "/v1/files/%c3%a9",
        "/v1/files/100%25",
        "/v1/files/?",
    ];
    rows.extend(plain.map(|path| Row::request(format!("path {path}"), "GET", path, &[]).passes()));
    rows
}

/// Targets in absolute and authority form, with `Host: localhost`.
fn absolute() -> Vec<Row> {
    let get = |target: &str| Row::raw(format!("target {target}"), head(&format!("GET {target} HTTP/1.1"), &[]));
    let mut rows: Vec<Row> = [
        "http://other/v1/files/x",
        "http://localhost:81/v1/files/x",
        "http://localhost.other/v1/files/x",
        "http://user@it/v1/files/x",
        "http://user:secret@it/v1/files/x",
        "http://other@it/v1/files/x",
        "http://localhost/v1/../admin",
        "http://localhost//v1/files/x",
        "ftp://localhost/v1/files/x",
        "http://localhost:99999999/v1/files/x",
        "it:80",
        "localhost",
    ]
    .map(|target| get(target).answered(400, "ambiguous_target"))
    .into();
    rows.extend(
        [
            "http:///v1/files/x",
            "http://",
            "http:/v1/files/x",
            "http://i t/v1/files/x",
        ]
        .map(|target| get(target).answered(400, "bad_head").closes()),
    );
    let reached = "GET /v1/files/x HTTP/1.1";
    rows.extend([
        get("http://localhost/v1/files/x").reaches(reached, &[], ""),
        get("HTTP://LOCALHOST/v1/files/x").reaches(reached, &[], ""),
        get("http://localhost").answered(404, "unknown_path"),
        Row::raw(
            "an absolute target without a host",
            head("GET http://localhost/v1/files/x HTTP/1.1", &[]).replacen("host: localhost\r\n", "", 1),
        )
        .answered(400, "bad_host"),
    ]);
    rows
}

fn hosts() -> Vec<Row> {
    let get = |lines: &str| head("GET /v1/files/x HTTP/1.1", &[]).replacen("host: localhost\r\n", lines, 1);
    let mut rows: Vec<Row> = [
        "",
        "host: localhost\r\nhost: localhost\r\n",
        "host: localhost\r\nHOST: other\r\n",
        "host: \r\n",
        "host: a b\r\n",
        "host: a/b\r\n",
        "host: a?b\r\n",
        "host: a#b\r\n",
        "host: a, b\r\n",
        "host: user@it\r\n",
        "host: localhost:80@other\r\n",
        "host: localhost:port\r\n",
        "host: localhost:99999\r\n",
        "host: localhost:80:80\r\n",
        "host: localhost:-1\r\n",
        "host: [::1\r\n",
        "host: ::1\r\n",
        "host: http://it\r\n",
        "host: localhost\\other\r\n",
        "host: localhost%00\r\n",
        "host: localhost\u{e9}\r\n",
        "host: \"it\"\r\n",
        "host: localhost\to\r\n",
    ]
    .map(|lines| Row::raw(format!("{lines:?}"), get(lines)).answered(400, "bad_host"))
    .into();
    rows.push(
        Row::raw("HTTP/1.0 without a host", get("").replacen("HTTP/1.1", "HTTP/1.0", 1))
            .reaches("GET /v1/files/x HTTP/1.1", &[], "")
            .closes(),
    );
    rows.extend(
        [
            "host: LOCALHOST:80\r\n",
            "host: [::1]:80\r\n",
            "host:localhost\r\n",
            "Host:\t localhost \r\n",
            "host: 127.0.0.1\r\n",
        ]
        .map(|lines| Row::raw(format!("{lines:?}"), get(lines)).reaches("GET /v1/files/x HTTP/1.1", &[], "")),
    );
    rows
}

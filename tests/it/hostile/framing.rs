//! The end of a body (RFC 9112 section 6.3), and the boundary between two requests.

use super::kit::{Row, SMUGGLED, SOUND, head};

const TYPE: &str = "content-type: application/json";
const CHUNKED: &str = "transfer-encoding: chunked";

fn post(lines: &[&str], body: &str) -> String {
    head("POST /v1/responses HTTP/1.1", &[&[TYPE], lines].concat()) + body
}

fn chunks() -> String {
    format!("{:x}\r\n{SOUND}\r\n0\r\n\r\n", SOUND.len())
}

fn length() -> String {
    format!("content-length: {}", SOUND.len())
}

const LINE: &str = "POST /v1/responses HTTP/1.1";

pub fn rows() -> Vec<Row> {
    let mut rows = codings();
    rows.extend(lengths());
    rows.extend(boundaries());
    rows
}

fn codings() -> Vec<Row> {
    let refused = |lines: &[&str]| {
        let name = format!("framing {lines:?}");
        Row::raw(name, post(lines, &chunks()))
            .answered(400, "bad_framing")
            .closes()
    };
    let coding = |value: &str| refused(&[&format!("transfer-encoding: {value}")]);
    let mut rows: Vec<Row> = [
        "gzip, chunked",
        "chunked, chunked",
        "identity, chunked",
        "chunked, gzip",
        "chunked, identity",
        "chunked,",
        ", chunked",
        "xchunked",
        "chunked x",
        "chun ked",
        "chunked;q=1",
        "\"chunked\"",
        "identity",
        "gzip",
        "",
    ]
    .map(coding)
    .into();
    rows.extend([
        refused(&[CHUNKED, CHUNKED]),
        refused(&["transfer-encoding: gzip", CHUNKED]),
        refused(&[CHUNKED, "transfer-encoding: identity"]),
        refused(&["transfer-encoding: identity", "content-length: 32"]),
        refused(&["content-length: 5", CHUNKED]),
        refused(&[CHUNKED, "content-length: 5"]),
        refused(&[CHUNKED, "content-length: 0"]),
        refused(&["content-length: x", CHUNKED]),
        refused(&[CHUNKED, "content-length: 5", "content-length: 6"]),
        Row::raw(
            "a coding before HTTP/1.1",
            post(&[CHUNKED], &chunks()).replacen("HTTP/1.1", "HTTP/1.0", 1),
        )
        .answered(400, "bad_framing")
        .closes(),
    ]);
    let chunked =
        |name: &str, lines: &[&str]| Row::raw(name, post(lines, &chunks())).reaches(LINE, &[TYPE, CHUNKED], SOUND);
    rows.extend([
        chunked("a coding in capitals", &["Transfer-Encoding: CHUNKED"]),
        chunked("a coding after a tab", &["transfer-encoding:\tchunked\t"]),
        Row::raw(
            "an underscore in a coding's name",
            post(&["transfer_encoding: chunked", &length()], SOUND),
        )
        .reaches(LINE, &[TYPE, &length()], SOUND),
        Row::raw(
            "an underscore in a length's name",
            post(&["content_length: 5", &length()], SOUND),
        )
        .reaches(LINE, &[TYPE, &length()], SOUND),
    ]);
    rows
}

fn lengths() -> Vec<Row> {
    let refused = |value: &str| {
        Row::raw(
            format!("the length {value:?}"),
            post(&[&format!("content-length: {value}")], "{\"a\":1}"),
        )
        .answered(400, "bad_framing")
        .closes()
    };
    let mut rows: Vec<Row> = [
        "-1",
        "+7",
        "0x7",
        "7,7",
        "7, 8",
        "7;7",
        "7 7",
        "7.0",
        "7e0",
        "7_0",
        "seven",
        "",
        "18446744073709551616",
        "99999999999999999999999999999999",
        "\u{667}",
        "7\r\ncontent-length: 7",
        "7\r\ncontent-length: 8",
        "7\r\nContent-Length: 0",
    ]
    .map(refused)
    .into();
    rows.extend([
        Row::raw(
            "a length with spaces and zeros",
            post(&["content-length:  \t 00032 "], SOUND),
        )
        .reaches(LINE, &[TYPE, "content-length: 32"], SOUND),
        Row::raw(
            "the largest length",
            post(&["content-length: 18446744073709551615"], SOUND),
        )
        .answered(413, "request_too_large")
        .closes(),
        Row::raw("no length", post(&[], "")).reaches(LINE, &[TYPE, "content-length: 0"], ""),
    ]);
    rows
}

/// The boundary between the end of one request and the beginning of the next.
fn boundaries() -> Vec<Row> {
    let inner = SMUGGLED.len();
    let text = "content-type: text/plain";
    let with_length = |lines: &[&str], body: &str| {
        let length = format!("content-length: {}", body.len());
        post(&[lines, &[&length]].concat(), body)
    };
    vec![
        Row::raw(
            "two requests in one write",
            with_length(&[], SOUND) + &with_length(&[], SOUND),
        )
        .reaches(LINE, &[TYPE, &length()], SOUND)
        .reaches(LINE, &[TYPE, &length()], SOUND),
        Row::raw("a body longer than its length", with_length(&[], SOUND) + SOUND)
            .reaches(LINE, &[TYPE, &length()], SOUND)
            .answered(400, "bad_head")
            .closes(),
        Row::raw(
            "a body that goes on into a request",
            with_length(&[], &format!("{SOUND}{SMUGGLED}")),
        )
        .answered(400, "invalid_json"),
        Row::raw("a body shorter than its length", post(&["content-length: 33"], SOUND))
            .answered(400, "incomplete_body")
            .client_ends(),
        Row::raw(
            "an empty coded body before more (CL.TE)",
            post(&["content-length: 6", CHUNKED], "0\r\n\r\nG"),
        )
        .answered(400, "bad_framing")
        .closes(),
        Row::raw(
            "a length that ends inside the chunks (TE.CL)",
            post(
                &["content-length: 4", CHUNKED],
                &format!("{inner:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
            ),
        )
        .answered(400, "bad_framing")
        .closes(),
        Row::raw(
            "a request in a refused request's body",
            post(&[&format!("content-length: {inner}")], SMUGGLED).replacen("/v1/", "/v1//", 1),
        )
        .answered(400, "ambiguous_target"),
        Row::raw(
            "a request in the body of a GET",
            head("GET /v1/files/x HTTP/1.1", &[text, &format!("content-length: {inner}")]) + SMUGGLED,
        )
        .reaches(
            "GET /v1/files/x HTTP/1.1",
            &[text, &format!("content-length: {inner}")],
            SMUGGLED,
        ),
        Row::raw(
            "a request in the chunks of a DELETE",
            head("DELETE /v1/files/x HTTP/1.1", &[text, CHUNKED]) + &format!("{inner:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
        )
        .reaches("DELETE /v1/files/x HTTP/1.1", &[text, CHUNKED], SMUGGLED),
        Row::raw(
            "a request after the last one",
            with_length(&["connection: close"], SOUND),
        )
        .reaches(LINE, &[TYPE, &length()], SOUND)
        .closes(),
        Row::raw(
            "a request after one that upgrades",
            with_length(
                &[
                    "connection: upgrade, http2-settings",
                    "upgrade: h2c",
                    "http2-settings: AAMAAABkAAQAAP__",
                ],
                SOUND,
            ),
        )
        .reaches(LINE, &[TYPE, &length()], SOUND),
        Row::raw(
            "a request after one of HTTP/1.0",
            with_length(&[], SOUND).replacen("HTTP/1.1", "HTTP/1.0", 1),
        )
        .reaches(LINE, &[TYPE, &length()], SOUND)
        .closes(),
        Row::raw(
            "empty lines before a request",
            "\r\n\r\n\r\n".to_owned() + &with_length(&[], SOUND),
        )
        .reaches(LINE, &[TYPE, &length()], SOUND),
        Row::raw(
            "a bare CR before a request",
            "\r\r\n".to_owned() + &with_length(&[], SOUND),
        )
        .answered(400, "bad_head")
        .closes(),
        Row::raw("a bare LF before a request", "\n".to_owned() + &with_length(&[], SOUND))
            .answered(400, "bad_head")
            .closes(),
    ]
}

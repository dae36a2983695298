//! Invalid and unusual chunked bodies (RFC 9112 section 7.1).

use super::kit::{Row, SOUND, head};

const TYPE: &str = "content-type: application/json";
const CHUNKED: &str = "transfer-encoding: chunked";
const LINE: &str = "POST /v1/responses HTTP/1.1";

fn post(chunks: &str) -> Vec<u8> {
    (head(LINE, &[TYPE, CHUNKED]) + chunks).into()
}

pub fn rows() -> Vec<Row> {
    let size = SOUND.len();
    // A body with this size line in its first chunk.
    let first = |line: &str| format!("{line}\r\n{SOUND}\r\n0\r\n\r\n");
    let last = |rest: &str| format!("{size:x}\r\n{SOUND}\r\n{rest}");
    let hidden = "20;a=\"\r\n0\r\n\r\nGET /v1/files/hidden HTTP/1.1\r\nhost: localhost\r\n\r\n\"\r\n";
    let refused = [
        ("an invalid size", first("zz")),
        ("a signed size", first("+20")),
        ("a negative size", first("-20")),
        ("a size with a prefix", first("0x20")),
        ("a size with an underscore", first("2_0")),
        ("a size after a space", first(" 20")),
        ("no size", first("")),
        ("an extension without a size", first(";a")),
        ("two sizes", first("20 20")),
        ("a size over 64 bits", first("10000000000000020")),
        ("a size of a thousand zeros", first(&format!("{}20", "0".repeat(1000)))),
        (
            "a quoted line end in an extension",
            format!("{hidden}{SOUND}\r\n0\r\n\r\n"),
        ),
        ("a bare LF after a size", format!("20\n{SOUND}\r\n0\r\n\r\n")),
        ("a bare CR after a size", format!("20\r{SOUND}\r\n0\r\n\r\n")),
        ("a bare LF in an extension", format!("20;a\n{SOUND}\r\n0\r\n\r\n")),
        ("NUL in an extension", first("20;a\0b")),
        ("a control character in an extension", first("20;a\u{1}b")),
        ("a long extension", first(&format!("20;{}", "a".repeat(5000)))),
        ("a chunk longer than its size", first("1f")),
        ("a chunk shorter than its size", format!("21\r\n{SOUND}\r\n0\r\n\r\n")),
        ("a bare LF after a chunk", format!("20\r\n{SOUND}\n0\r\n\r\n")),
        ("a bare CR after a chunk", format!("20\r\n{SOUND}\r0\r\n\r\n")),
        ("no line end after a chunk", format!("20\r\n{SOUND}0\r\n\r\n")),
        ("a bare LF at the end", last("0\n\n")),
        ("a bare LF after the last chunk", last("0\r\n\n")),
        ("a bare CR after the last chunk", last("0\r\n\r")),
        ("a negative last chunk", last("-0\r\n\r\n")),
        ("an invalid trailer", last("0\r\nGET /v1/files/hidden HTTP/1.1\r\n\r\n")),
        ("a folded trailer", last("0\r\na: 1\r\n b\r\n\r\n")),
        ("a trailer with a space before its colon", last("0\r\na : 1\r\n\r\n")),
        ("a trailer without a name", last("0\r\n: 1\r\n\r\n")),
        ("NUL in a trailer", last("0\r\na: \0\r\n\r\n")),
        ("a bare CR in a trailer", last("0\r\na: 1\rb: 2\r\n\r\n")),
        ("a bare LF in a trailer", last("0\r\na: 1\nb: 2\r\n\r\n")),
        (
            "endless trailers",
            last(&format!("0\r\n{}\r\n", "a: 1\r\n".repeat(10_000))),
        ),
    ];
    let mut rows: Vec<Row> = refused
        .map(|(name, chunks)| Row::raw(name, post(&chunks)).answered(400, "incomplete_body").closes())
        .into();
    let trailers = "content-length: 3\r\nauthorization: Bearer sk-late\r\nhost: other\r\nx-after: 1\r\n";
    let sound = [
        (
            "a size in capitals with zeros",
            first("0000020").replace("0\r\n\r\n", "0000\r\n\r\n"),
        ),
        ("a size padded with spaces", first("20  ")),
        ("extensions", first("20;a;b=c ; d=\"e;f\"")),
        (
            "trailers that would change everything",
            last(&format!("0\r\n{trailers}\r\n")),
        ),
    ];
    rows.extend(sound.map(|(name, chunks)| Row::raw(name, post(&chunks)).reaches(LINE, &[TYPE, CHUNKED], SOUND)));
    let cut = [
        "",
        "20",
        "20\r\n",
        "20\r\n{",
        &last(""),
        &last("0"),
        &last("0\r\n"),
        &last("0\r\na: 1\r\n"),
    ];
    rows.extend(cut.map(|chunks| {
        Row::raw(format!("chunks that end after {chunks:?}"), post(chunks))
            .answered(400, "incomplete_body")
            .client_ends()
    }));
    rows
}

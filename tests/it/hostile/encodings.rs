//! Compressed bodies (RFC 9110 section 8.4): the gateway inspects the same text that the upstream will read.

use std::io::Write as _;

use flate2::{Compression, GzBuilder};

use super::kit::{Row, SOUND};
use crate::kit::encoders::{Encoder, gzip, raw_deflate, zlib, zstd};

const ENCODERS: [(&str, Encoder); 4] = [
    ("gzip", gzip),
    ("deflate", zlib),
    ("zstd", zstd),
    ("deflate", raw_deflate),
];

fn coded(name: String, coding: &str, body: Vec<u8>) -> Row {
    let fields = [("content-type", "application/json"), ("content-encoding", coding)];
    Row::request(name, "POST", "/v1/responses", &fields).with_body(body)
}

pub fn rows() -> Vec<Row> {
    let twice = br#"{"model":"a","model":"b"}"#;
    let other = br#"{"model":"other"}"#;
    let mut rows = Vec::new();
    for (index, (coding, encode)) in ENCODERS.into_iter().enumerate() {
        let whole = encode(SOUND.as_bytes());
        let what = |what: &str| format!("{what}, {coding} {index}");
        let undecodable = |name: &str, body: Vec<u8>| coded(what(name), coding, body).answered(400, "undecodable_body");
        let mut broken = whole.clone();
        *broken.last_mut().expect("long enough") ^= 0x55;
        rows.extend([
            coded(what("valid"), coding, whole.clone()).passes(),
            coded(what("a name in capitals"), &coding.to_uppercase(), whole.clone()).passes(),
            coded(what("two models"), coding, encode(twice)).answered(400, "ambiguous_body"),
            coded(what("nothing inside"), coding, encode(b"")).answered(400, "invalid_json"),
            coded(what("a bomb"), coding, encode(&vec![b' '; 8 << 20])).answered(413, "request_too_large"),
            undecodable("a second body after it", [whole.clone(), encode(other)].concat()),
            undecodable("a byte after it", [&whole[..], b"\0"].concat()),
            undecodable("plain JSON after it", [&whole[..], other].concat()),
            undecodable("without its last byte", whole[..whole.len() - 1].to_vec()),
            coded(what("encoded twice"), coding, encode(&whole)).answered(400, "invalid_json"),
        ]);
        if encode as usize != raw_deflate as Encoder as usize && coding != "zstd" {
            rows.push(undecodable("a bad checksum", broken));
        }
    }
    rows.extend([
        coded("plain text labelled gzip".to_owned(), "gzip", SOUND.into()).answered(400, "undecodable_body"),
        coded("plain text labelled zstd".to_owned(), "zstd", SOUND.into()).answered(400, "undecodable_body"),
        coded("plain text labelled x-gzip".to_owned(), "x-gzip", SOUND.into()).answered(400, "undecodable_body"),
        coded("gzip labelled zstd".to_owned(), "zstd", gzip(SOUND.as_bytes())).answered(400, "undecodable_body"),
        coded("gzip labelled identity".to_owned(), "identity", gzip(SOUND.as_bytes())).answered(400, "invalid_json"),
        coded("gzip with an empty label".to_owned(), "", gzip(SOUND.as_bytes())).answered(400, "invalid_json"),
        coded("gzip with a name and a comment".to_owned(), "gzip", {
            let builder = GzBuilder::new()
                .filename("{\"model\":\"b\"}")
                .comment("x")
                .extra(vec![0; 99]);
            let mut encoder = builder.write(Vec::new(), Compression::fast());
            encoder
                .write_all(SOUND.as_bytes())
                .and_then(|()| encoder.finish())
                .expect("writing to memory succeeds")
        })
        .passes(),
        coded("zstd after a skippable frame".to_owned(), "zstd", {
            [b"\x50\x2a\x4d\x18\x02\0\0\0{}", &zstd(SOUND.as_bytes())[..]].concat()
        })
        .answered(400, "undecodable_body"),
        coded("zstd with a window of 128 MiB".to_owned(), "zstd", {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("writing to memory succeeds");
            encoder.window_log(27).expect("a parameter");
            encoder
                .write_all(SOUND.as_bytes())
                .and_then(|()| encoder.finish())
                .expect("writing to memory succeeds")
        })
        .answered(400, "undecodable_body"),
    ]);
    rows
}

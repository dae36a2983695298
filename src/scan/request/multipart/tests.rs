//! Tests of the scanner of forms: forms that clients send, forms that are refused, and the comparison with the oracle.

mod refused;

use std::sync::LazyLock;

use proptest::prelude::*;

use super::{
    boundary::Boundary,
    error::{MultipartError, MultipartErrorKind as Kind},
    oracle,
    scanner::{FormExtent, MultipartScanner},
};
use crate::{
    body_path::BodyPaths,
    ids::ObjectId,
    media::MediaTally,
    scan::request::{
        facts::{NamedObject, ReferenceKind, RequestFacts},
        rules::{ReferenceSearch, RequestScanRules},
    },
};

static PATHS: LazyLock<BodyPaths> = LazyLock::new(|| {
    let paths = ["user", "purpose", "metadata.user_id"];
    BodyPaths::new(&paths.map(|path| path.parse().expect("a path")))
});

fn scanner(boundary: &str, extent: FormExtent) -> MultipartScanner<'static> {
    let rules = RequestScanRules {
        paths: &PATHS,
        references: ReferenceSearch::Usual,
    };
    let boundary = Boundary::new(boundary.as_bytes()).expect("a boundary");
    MultipartScanner::new(rules, &boundary, extent)
}

fn scan<'a>(boundary: &str, pieces: impl Iterator<Item = &'a [u8]>) -> Result<RequestFacts, MultipartError> {
    let mut scanner = scanner(boundary, FormExtent::Whole);
    for piece in pieces {
        if let Err(error) = scanner.feed(piece) {
            assert_eq!(
                scanner.feed(b"more"),
                Err(error.clone()),
                "every later call returns the error again"
            );
            return Err(error);
        }
    }
    scanner.finish()
}

/// The result for `body`, which must be the same at every cut.
fn scan_at_every_cut(boundary: &str, body: &[u8]) -> Result<RequestFacts, MultipartError> {
    let whole = scan(boundary, std::iter::once(body));
    for size in [1, 2, 3, 7, 64, 257] {
        assert_eq!(scan(boundary, body.chunks(size)), whole, "pieces of {size} bytes");
    }
    for cut in 0..body.len() {
        let (first, second) = body.split_at(cut);
        assert_eq!(scan(boundary, [first, second].into_iter()), whole, "cut at {cut}");
    }
    whole
}

/// A form of which each part has this head (without `Content-Disposition: form-data`) and content.
fn form(parts: &[(&str, &str)]) -> String {
    let parts = parts
        .iter()
        .map(|(head, content)| format!("--b\r\nContent-Disposition: form-data{head}\r\n\r\n{content}\r\n"));
    parts.collect::<String>() + "--b--\r\n"
}

const MODEL: (&str, &str) = ("; name=\"model\"", "whisper-1");

#[test]
fn a_form_of_curl_is_read() {
    // curl 7.88.1: -F model=whisper-1 -F file=@speech.wav -F response_format=json
    let body = b"--------------------------a701ad3da3f24c16\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n\
        --------------------------a701ad3da3f24c16\r\nContent-Disposition: form-data; name=\"file\"; filename=\"speech.wav\"\r\n\
        Content-Type: application/octet-stream\r\n\r\nRIFF\x01\x02\r\n\
        --------------------------a701ad3da3f24c16\r\nContent-Disposition: form-data; name=\"response_format\"\r\n\r\njson\r\n\
        --------------------------a701ad3da3f24c16--\r\n";
    let facts = scan_at_every_cut("------------------------a701ad3da3f24c16", body).expect("a good form");
    assert_eq!(facts.model.as_deref(), Some("whisper-1"));
    let at = facts.model_at.expect("the place of the model");
    let index = |offset| usize::try_from(offset).expect("a small offset");
    assert_eq!(&body[index(at.start)..index(at.end)], b"whisper-1");
    let recording = MediaTally {
        recordings: 1,
        bytes: 6,
        ..MediaTally::default()
    };
    assert_eq!(facts.media, recording);
}

#[test]
fn forms_of_openai_python_are_read() {
    // openai 3.54.0 over httpx: images.edit with two images, and files.create.
    let edit =
        b"--3a4db6f58dfb8aeb88a42f50003f6111\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na cat\r\n\
        --3a4db6f58dfb8aeb88a42f50003f6111\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ngpt-image-1\r\n\
        --3a4db6f58dfb8aeb88a42f50003f6111\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nu-1\r\n\
        --3a4db6f58dfb8aeb88a42f50003f6111\r\nContent-Disposition: form-data; name=\"image[]\"; filename=\"a.png\"\r\n\
        Content-Type: image/png\r\n\r\n\x89PNG\x01\r\n\
        --3a4db6f58dfb8aeb88a42f50003f6111\r\nContent-Disposition: form-data; name=\"image[]\"; filename=\"b.png\"\r\n\
        Content-Type: image/png\r\n\r\n\x89PNG\x02\r\n--3a4db6f58dfb8aeb88a42f50003f6111--\r\n";
    let facts = scan_at_every_cut("3a4db6f58dfb8aeb88a42f50003f6111", edit).expect("a good form");
    assert_eq!(
        (facts.model.as_deref(), facts.texts.get(0)),
        (Some("gpt-image-1"), Some("u-1"))
    );
    assert_eq!((facts.media.images, facts.media.bytes), (2, 10));
    let upload = b"--18c2061f473b9584eaf53ab55d9853fa\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
        --18c2061f473b9584eaf53ab55d9853fa\r\nContent-Disposition: form-data; name=\"file\"; filename=\"batch.jsonl\"\r\n\
        Content-Type: application/octet-stream\r\n\r\n{}\n\r\n--18c2061f473b9584eaf53ab55d9853fa--\r\n";
    let facts = scan_at_every_cut("18c2061f473b9584eaf53ab55d9853fa", upload).expect("a good form");
    assert_eq!(
        (facts.texts.get(1), facts.media.files, facts.media.bytes),
        (Some("batch"), 1, 3)
    );
}

#[test]
fn other_ways_to_write_a_good_form_are_accepted() {
    let longest = "x".repeat(Kind::MAX_TEXT);
    for (body, model) in [
        ("--b--".to_owned(), None),
        ("\r\n--b--\r\n".to_owned(), None),
        (form(&[]), None),
        (form(&[MODEL]), Some("whisper-1")),
        ("\r\n".to_owned() + &form(&[MODEL]), Some("whisper-1")),
        (form(&[(";name=model", "")]), Some("")),
        (
            form(&[("; NAME=\"model\"\r\ncontent-type: text/plain; charset=UTF-8", "a")]),
            Some("a"),
        ),
        (
            form(&[("; name=\"model\"\r\nContent-Transfer-Encoding: 8bit\r\nX-Other: 1", "a")]),
            Some("a"),
        ),
        (
            form(&[("; name=\"model\"\r\nContent-Type: text/plain", &longest)]),
            Some(longest.as_str()),
        ),
        (
            form(&[
                (
                    "; name=\"f\"; filename=\"C:\\a b.wav\"; filename*=utf-8''a",
                    "x--b--\r\n-b",
                ),
                MODEL,
            ]),
            Some("whisper-1"),
        ),
        (form(&[("; name=\"_charset_\"", "utf-8"), MODEL]), Some("whisper-1")),
        (
            form(&[("; name=\"a\"", "\r\n\r\n--\r\n-\r\n--a"), MODEL]),
            Some("whisper-1"),
        ),
        (
            form(&[("; name=\"a\"", "1"), ("; name=\"a\"", "2"), MODEL]),
            Some("whisper-1"),
        ),
    ] {
        let facts = scan_at_every_cut("b", body.as_bytes()).unwrap_or_else(|error| panic!("{error}: {body:?}"));
        assert_eq!(facts.model.as_deref(), model, "{body:?}");
    }
}

#[test]
fn the_objects_that_a_form_names_are_read() {
    let body = form(&[
        ("; name=\"file_ids[]\"", "file-1"),
        ("; name=\"file_ids[]\"", "file-2"),
        ("; name=\"image[0][file_id]\"", "file-3"),
    ]);
    let facts = scan_at_every_cut("b", body.as_bytes()).expect("a good form");
    let named = ["file-1", "file-2", "file-3"].map(|id| NamedObject {
        kind: ReferenceKind::File,
        id: ObjectId::from_text(id.as_bytes()),
    });
    assert_eq!(facts.named, named);
}

#[test]
fn invalid_texts_are_refused() {
    let body = [
        b"--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\xff".as_slice(),
        b"\r\n--b--",
    ]
    .concat();
    let error = scan_at_every_cut("b", &body).expect_err("an error");
    assert_eq!((error.kind, error.offset), (Kind::FieldNotUtf8("model".into()), 54));
}

#[test]
fn a_form_that_is_cut_off_is_refused() {
    let body = form(&[MODEL, ("; name=\"f\"; filename=\"a.wav\"", "RIFF")]);
    let whole = body.trim_end().len();
    for end in 1..whole {
        let error = scan("b", std::iter::once(&body.as_bytes()[..end])).expect_err("an error");
        assert_eq!((error.kind, error.offset), (Kind::MissingEnd, end as u64));
    }
    for end in [whole, whole + 2] {
        assert!(scan("b", std::iter::once(&body.as_bytes()[..end])).is_ok());
    }
}

#[test]
fn the_number_of_parts_is_limited() {
    let most = usize::try_from(Kind::MAX_PARTS).expect("a small number");
    let body = form(&vec![("; name=\"a\"", ""); most]);
    assert!(scan("b", body.as_bytes().chunks(1000)).is_ok());
    let body = form(&vec![("; name=\"a\"", ""); most + 1]);
    let error = scan("b", body.as_bytes().chunks(1000)).expect_err("an error");
    assert_eq!(error.kind, Kind::TooManyParts);
}

#[test]
fn the_fields_before_the_first_file_do_not_depend_on_what_follows() {
    for head in [
        "\"file\"; filename=\"x\"",
        "\"file\"",
        "\"data\"",
        "\"x\"; filename=\"\"",
    ] {
        check_beginning(head);
    }
}

/// Checks that the fields before a part with this head are read, and nothing else.
fn check_beginning(head: &str) {
    let beginning = format!(
        "--b\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nu-1\r\n--b\r\nContent-Disposition: form-data; name={head}\r\n\r\n"
    );
    for rest in [
        "",
        "data",
        "\r\n--b\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nu-2\r\n--b--",
        "\0\r\n--bx",
    ] {
        let body = beginning.clone() + rest;
        for size in [1, 9, 4096] {
            let mut scanner = scanner("b", FormExtent::BeforeFiles);
            for piece in body.as_bytes().chunks(size) {
                scanner.feed(piece).expect("a good beginning");
            }
            assert!(scanner.is_at_file());
            let facts = scanner.finish().expect("a good beginning");
            assert_eq!(
                (facts.texts.get(0), facts.media),
                (Some("u-1"), MediaTally::default()),
                "{rest:?}"
            );
        }
    }
}

/// Compares the scanner with the oracle, at several cuts.
fn check(body: &[u8], boundary: &str, size: usize) {
    let whole = scan(boundary, std::iter::once(body));
    assert_eq!(scan(boundary, body.chunks(size)), whole);
    assert_eq!(scan(boundary, body.chunks(1)), whole);
    let expected = oracle::read(body, boundary);
    let found = whole.ok().map(|facts| oracle::ExpectedForm {
        model: facts.model.zip(facts.model_at),
        user: facts.texts.get(0).map(str::to_owned),
        purpose: facts.texts.get(1).map(str::to_owned),
        files: (facts.media.files + facts.media.images + facts.media.recordings) as usize,
        file_bytes: facts.media.bytes,
        // Identities cannot be turned into texts.
        named: expected
            .as_ref()
            .map(|expected| expected.named.clone())
            .unwrap_or_default(),
    });
    assert_eq!(found, expected, "{:?}", String::from_utf8_lossy(body));
}

/// Pieces of forms, good and bad.
const PIECES: [&str; 40] = [
    "\r\n",
    "\r",
    "\n",
    "--b",
    "--",
    "-",
    "b",
    "\r\n--b\r\n",
    "\r\n--b--",
    "\r\n--b--\r\n",
    "\n--b\r\n",
    "\r\n\r\n",
    "Content-Disposition: form-data",
    "content-disposition:form-data",
    "; name=\"model\"",
    "; name=\"user\"",
    "; name=model",
    ";name=\"purpose\"",
    "; name=\"file\"; filename=\"a.wav\"",
    "; filename=\"\"",
    "; name*=model",
    "; filename*=x",
    "; name=\"file_ids[]\"",
    "; name=\"image[0][file_id]\"",
    "; name=\"Model\"",
    "; name=\"model[]\"",
    "; name=\"mod%65l\"",
    "\"",
    "\\",
    ";",
    "=",
    " ",
    "\r\nContent-Type: text/plain",
    "\r\nContent-Type: text/plain; charset=utf-8",
    "\r\nContent-Transfer-Encoding: base64",
    "\r\nContent-Type: multipart/mixed",
    "gpt-5",
    "u-1",
    "\0",
    "\u{e9}",
];

fn piece() -> impl Strategy<Value = String> {
    prop::sample::select(&PIECES[..]).prop_map(str::to_owned)
}

/// A part that is nearly good.
fn part() -> impl Strategy<Value = String> {
    let head = prop::sample::select(&PIECES[14..36]);
    (prop::collection::vec(head, 1..3), prop::collection::vec(piece(), 0..4)).prop_map(|(head, content)| {
        format!(
            "\r\n--b\r\nContent-Disposition: form-data{}\r\n\r\n{}",
            head.concat(),
            content.concat()
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn the_scanner_reads_forms_like_the_oracle(
        parts in prop::collection::vec(part(), 0..5),
        end in prop::sample::select(&["\r\n--b--\r\n", "\r\n--b--", "\r\n--b--x", ""][..]),
        skip in prop::sample::select(&[0_usize, 2][..]),
        size in 1_usize..40,
    ) {
        let body = parts.concat() + end;
        check(body.as_bytes().get(skip..).unwrap_or_default(), "b", size);
    }

    #[test]
    fn the_scanner_refuses_what_the_oracle_refuses(pieces in prop::collection::vec(piece(), 0..12), size in 1_usize..9) {
        check(pieces.concat().as_bytes(), "b", size);
        check(("--b\r\n".to_owned() + &pieces.concat() + "\r\n--b--").as_bytes(), "b", size);
        check(pieces.concat().as_bytes(), "-", size);
    }
}

//! Forms that are refused, each with its error.

use super::{form, scan_at_every_cut};
use crate::scan::request::multipart::{error::MultipartErrorKind as Kind, oracle};

/// A form, the kind of its error, and a text at which the error is.
type RefusedForm = (String, Kind, &'static str);

const MODEL: (&str, &str) = super::MODEL;

fn model() -> Box<str> {
    "model".into()
}

/// Forms in which a field that routing reads is ambiguous.
#[rustfmt::skip]
fn ambiguous_fields() -> Vec<RefusedForm> {
    let long = "x".repeat(Kind::MAX_TEXT + 1);
    let second = "; name=\"model\"\r\n\r\nb";
    let mut refused = vec![
        (form(&[MODEL, ("; name=\"model\"", "b")]), Kind::DuplicateField(model()), second),
        (form(&[("; name=\"user\"", "a"), ("; name=\"user\"", "b")]), Kind::DuplicateField("user".into()), "; name=\"user\"\r\n\r\nb"),
        (form(&[("; name=\"model\"; filename=\"m\"", "a")]), Kind::FieldIsFile(model()), "; name"),
        (form(&[("; name=\"model\"; filename*=utf-8''m", "a")]), Kind::FieldIsFile(model()), "; name"),
        (form(&[("; name=\"model\"", &long)]), Kind::FieldTooLong(model()), "xxx"),
        (form(&[("; name=\"model\"", "a\0b")]), Kind::FieldControlCharacter(model()), "\0"),
        (form(&[("; name=\"model\"", "a\r\nb")]), Kind::FieldControlCharacter(model()), "\r\nb"),
        (form(&[("; name=\"_charset_\"", "utf-16")]), Kind::DefaultCharset, "utf-16"),
    ];
    for name in ["Model", "mod%65l", "mo\\del", " model", "model[]", "model[0]"] {
        let part = format!("; name=\"{name}\"");
        refused.push((form(&[(part.as_str(), "a")]), Kind::FieldInOtherForm(model()), "; name"));
    }
    for line in [
        "Content-Transfer-Encoding: base64",
        "Content-Transfer-Encoding: quoted-printable",
        "Content-Type: text/plain; charset=utf-16",
        "Content-Type: text/plain; charset=utf-8; charset=utf-7",
        "Content-Type: application/json",
    ] {
        let part = format!("; name=\"model\"\r\n{line}");
        refused.push((form(&[(part.as_str(), "a")]), Kind::FieldEncoded(model()), "; name"));
    }
    refused
}

/// Forms in which the head of a part is ambiguous or invalid.
#[rustfmt::skip]
fn bad_heads() -> Vec<RefusedForm> {
    let wide = format!("; name=\"a\"; filename=\"{}\"", "x".repeat(Kind::MAX_HEAD));
    vec![
        (form(&[("; name*=utf-8''model", "a")]), Kind::ExtendedName, "; name"),
        (form(&[("; name=\"mo\\\"; name=\\\"del\"", "a")]), Kind::EscapedQuote, "; name"),
        (form(&[("; name=\"model\"; name=\"x\"", "a")]), Kind::DuplicateParameter, "; name"),
        (form(&[("; name=\"f\"; filename=\"x\"; filename=\"y\"", "a")]), Kind::DuplicateParameter, "; name"),
        (form(&[("", "a")]), Kind::MissingName, "\r\n\r\na"),
        (form(&[("; name", "a")]), Kind::InvalidParameter, "; name"),
        (form(&[(wide.as_str(), "a")]), Kind::HeadTooLarge, "; name"),
        (form(&[("; name=\"m\"\r\n odel", "a")]), Kind::FoldedLine, " odel"),
        (form(&[("; name=\"m\"\r\nX", "a")]), Kind::InvalidHeader, "X"),
        (form(&[("; name=\"m\"\r\nX : a", "a")]), Kind::InvalidHeader, "X"),
        (form(&[("; name=\"m\"\nX: a", "a")]), Kind::ControlCharacter, "\nX"),
        (form(&[("; name=\"m\"\r\nX: a\rb", "a")]), Kind::ControlCharacter, "\rb"),
        (form(&[("; name=\"m\0\"", "a")]), Kind::ControlCharacter, "\0"),
        (form(&[("; name=\"a\"\r\nContent-Type: multipart/mixed; boundary=c", "a")]), Kind::NestedMultipart, "; name"),
        (form(&[("; name=\"a\"\r\nContent-Type: a/b\r\nContent-type: a/b", "a")]), Kind::DuplicateHeader("Content-Type"), "Content-type"),
        (form(&[("; name=\"a\"\r\nContent-Disposition: form-data; name=\"model\"", "a")]), Kind::DuplicateHeader("Content-Disposition"), "Content-Disposition: form-data; name=\"model\""),
        ("--b\r\nContent-Type: a/b\r\n\r\na\r\n--b--".to_owned(), Kind::MissingDisposition, "Content-Type"),
        ("--b\r\n\r\na\r\n--b--".to_owned(), Kind::MissingDisposition, "\r\na"),
        ("--b\r\nContent-Disposition: attachment; name=model\r\n\r\na\r\n--b--".to_owned(), Kind::NotFormData, "Content-D"),
    ]
}

/// Forms whose parts are divided ambiguously.
#[rustfmt::skip]
fn bad_boundaries() -> Vec<RefusedForm> {
    vec![
        (form(&[("; name=\"a\"", "x\n--b\r\ny")]), Kind::MisplacedBoundary, "--b\r\ny"),
        (form(&[("; name=\"a\"", "x\r--b\r\ny")]), Kind::MisplacedBoundary, "--b\r\ny"),
        (form(&[("; name=\"a\"", "--b\r\ny")]), Kind::MisplacedBoundary, "--b\r\ny"),
        (form(&[("; name=\"a\"\r\n--b: y", "a")]), Kind::MisplacedBoundary, "--b: y"),
        (form(&[("; name=\"a\"", "x\r\n--b y")]), Kind::AfterBoundary, " y"),
        (form(&[("; name=\"a\"", "x\r\n--bc")]), Kind::AfterBoundary, "c\r\n"),
        (form(&[MODEL]).replace("\r\n", "\n"), Kind::AfterBoundary, "\nContent"),
        ("x".to_owned() + &form(&[MODEL]), Kind::Preamble, "x--b"),
        ("\r\n\r\n".to_owned() + &form(&[MODEL]), Kind::Preamble, "\r\n--b"),
        ("model=a".to_owned(), Kind::Preamble, "model"),
        (form(&[MODEL]) + "x", Kind::Epilogue, "x"),
        (form(&[]) + &form(&[MODEL]), Kind::Epilogue, "--b\r\n"),
    ]
}

#[test]
fn a_form_that_parsers_read_differently_is_refused_with_its_place() {
    for (body, kind, place) in [ambiguous_fields(), bad_heads(), bad_boundaries()].concat() {
        let error = scan_at_every_cut("b", body.as_bytes()).expect_err(&body);
        assert_eq!(error.kind, kind, "{body:?}");
        // Some errors are those of a whole head, which begins before the text.
        let at = usize::try_from(error.offset).expect("a small offset");
        let found = memchr::memmem::rfind(body.as_bytes(), place.as_bytes()).expect("the place is in the body");
        let first = memchr::memmem::find(body.as_bytes(), place.as_bytes()).expect("the place is in the body");
        let is_head = |index: usize| at <= index && index - at <= "Content-Disposition: form-data; name=\"a\"".len();
        assert!(
            at == found || at == first || is_head(found) || is_head(first),
            "{kind:?} at {at}, not {found}: {body:?}"
        );
        assert_eq!(oracle::read(body.as_bytes(), "b"), None, "{body:?}");
    }
}

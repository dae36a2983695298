//! The masker against an obvious one, and what it leaves alone.

use std::{iter, sync::Arc};

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    masked_body::MaskedBody,
    masker::CredentialMasker,
    spelling::{Comparison, MAX_BACKSLASHES, compare},
};

const KEY: &str = "sk-proj-AbC_09/x+y=";

fn masker(texts: &[&str]) -> Arc<CredentialMasker> {
    Arc::new(CredentialMasker::new(texts).expect("a credential"))
}

/// Masks a whole body by a comparison at each position.
fn mask_slowly(body: &[u8], texts: &[&str]) -> Vec<u8> {
    let mut masked = body.to_vec();
    for start in 0..body.len() {
        for text in texts {
            if let Comparison::Equal(length) = compare(&body[start..], text.as_bytes()) {
                let before = body[..start].iter().rev().take(MAX_BACKSLASHES);
                let run = before.take_while(|byte| **byte == b'\\').count();
                masked[start - run..start + length].fill(b'*');
            }
        }
    }
    masked
}

/// Masks a body in pieces.
fn mask_pieces<'a>(masker: &Arc<CredentialMasker>, pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut body = MaskedBody::new(masker.clone());
    let mut masked = Vec::new();
    for piece in pieces {
        masked.extend_from_slice(&body.mask(Bytes::copy_from_slice(piece)));
    }
    masked.extend_from_slice(&body.finish());
    assert_eq!(body.held_bytes(), 0);
    masked
}

fn masked(texts: &[&str], body: &str) -> String {
    String::from_utf8(mask_pieces(&masker(texts), [body.as_bytes()])).expect("UTF-8 text")
}

#[test]
fn a_credential_is_masked_in_every_spelling() {
    let escaped: String = KEY.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    let upper: String = KEY.bytes().map(|byte| format!("\\u{byte:04X}")).collect();
    let slash = KEY.replace('/', "\\/");
    let mixed = slash.replace('k', "\\u006b").replace('y', "\\u0079");
    for spelled in [KEY, &escaped, &upper, &slash, &mixed] {
        let quoted = spelled.replace('\\', "\\\\");
        let twice = quoted.replace('\\', "\\\\");
        for spelled in [spelled, &quoted, &twice] {
            let body = format!("{{\"error\":\"no access with {spelled}, or with {spelled}\"}}");
            let stars = "*".repeat(spelled.len());
            let expected = format!("{{\"error\":\"no access with {stars}, or with {stars}\"}}");
            assert_eq!(masked(&[KEY], &body), expected);
        }
    }
    for encoded in [
        "sk-proj-AbC_09%2Fx%2By%3D",
        "sk-proj-AbC_09%2fx%2by%3d",
        "sk-proj-AbC_09/x%2By=",
    ] {
        assert_eq!(
            masked(&[KEY], &format!("?key={encoded}&a")),
            format!("?key={}&a", "*".repeat(encoded.len()))
        );
    }
    assert_eq!(
        masked(&["pass\"word\\1"], r#""pass\"word\\1""#),
        format!("\"{}\"", "*".repeat(13))
    );
}

#[test]
fn every_kind_of_credential_is_masked_in_every_spelling() {
    let long: String = (0..700).map(|number| format!("{number}/")).collect();
    for key in [
        r"C:\users\9",
        "100%25ab%c",
        "пароль-ü😀",
        "////////",
        "a/b+c=%d",
        "\"\"\"\"",
        &long,
    ] {
        let json = serde_json::to_string(key).expect("a JSON string");
        let inner = json[1..json.len() - 1].to_owned();
        let quoted = serde_json::to_string(&inner).expect("a JSON string");
        let units = key.encode_utf16().map(|unit| format!("\\u{unit:04x}"));
        let hex = |of: fn(u8) -> String| key.bytes().map(of).collect::<String>();
        for spelled in [
            key.to_owned(),
            quoted[1..quoted.len() - 1].to_owned(),
            units.clone().collect(),
            units.collect::<String>().replace('\\', r"\\"),
            inner.replace('/', r"\/"),
            inner.replace('/', r"\\/"),
            hex(|byte| url_escape(byte, |byte| format!("%{byte:02x}"))),
            hex(|byte| url_escape(byte, |byte| format!("%{byte:02X}"))),
            inner,
        ] {
            let body = format!("{{\"error\":\"({spelled})\"}}");
            let expected = format!("{{\"error\":\"({})\"}}", "*".repeat(spelled.len()));
            assert_eq!(masked(&[key], &body), expected, "{key}: {spelled}");
            let size = key.len().div_ceil(40);
            let pieces = mask_pieces(&masker(&[key]), body.as_bytes().chunks(size));
            assert_eq!(String::from_utf8_lossy(&pieces), expected, "{key}: {spelled}");
        }
    }
}

/// A byte in a URL.
fn url_escape(byte: u8, escape: fn(u8) -> String) -> String {
    match byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
        true => char::from(byte).to_string(),
        false => escape(byte),
    }
}

#[test]
fn json_with_a_masked_credential_stays_valid() {
    let key = "n-key-of-the-upstream";
    for before in [r"\n", r"\\", r"\\\n", r"\u000a", r#"\""#, r"\t\\\\", "é"] {
        let body = format!("\"{before}{key}\"");
        let masked = masked(&[key], &body);
        assert!(!masked.contains(key), "{masked}");
        serde_json::from_str::<String>(&masked).unwrap_or_else(|error| panic!("{error}: {masked}"));
        // The first byte of the credential may also be the letter of an escape.
        let body = format!("\"\\{key}\"");
        let masked = super::tests::masked(&[key], &body);
        serde_json::from_str::<String>(&masked).unwrap_or_else(|error| panic!("{error}: {masked}"));
    }
}

#[test]
fn text_that_resembles_a_credential_passes_unchanged() {
    let key = "sk-proj-0123456789abcdef";
    for text in [
        "sk-proj-0123456789abcdeg",
        "sk-proj-0123456789abcde",
        "SK-PROJ-0123456789ABCDEF",
        "sk-proj-0123456789 abcdef",
        "k-proj-0123456789abcdef",
        r"sk-proj-\u0030\u0031\u0032",
        r"\u0073\u006b-proj-0123456789abcde\u0065",
        r"sk\-proj-0123456789abcdef",
        "\u{fffd}\u{10ffff}",
        r"\u00e9\u4f60\u0000",
    ] {
        let bytes = Bytes::from(text);
        let mut body = MaskedBody::new(masker(&[key]));
        let mut passed = body.mask(bytes.clone()).to_vec();
        passed.extend_from_slice(&body.finish());
        assert_eq!(passed, text.as_bytes(), "{text}");
    }
}

#[test]
fn a_piece_without_a_credential_is_not_copied() {
    let mut body = MaskedBody::new(masker(&["sk-proj-0123456789abcdef"]));
    let piece = Bytes::from("data: {\"type\":\"x\",\"delta\":\"sk-proj-0123 and \\u00e9\"}\n\n");
    let passed = body.mask(piece.clone());
    assert_eq!((passed.as_ptr(), passed.len()), (piece.as_ptr(), piece.len()));
    assert_eq!(body.held_bytes(), 0, "nothing is held back at the end of an event");
}

#[test]
fn only_the_bytes_with_which_a_credential_may_begin_are_held_back() {
    for (piece, held) in [
        ("a", 0),
        ("the s", 1),
        ("the sk-pro", 6),
        (r"the sk-\u0070", 9),
        (r"the sk-\u0071", 0),
        (r"the \u007", 5),
        (r"the \\", 2),
        (r"the \\sk", 4),
        ("ssss", 1),
        ("sk-proj-0123456789abcdef", 0),
        ("sk-proj-0123456789abcdefs", 1),
        ("sk\n", 0),
    ] {
        let mut body = MaskedBody::new(masker(&["sk-proj-0123456789abcdef"]));
        let passed = body.mask(Bytes::from(piece));
        assert_eq!((body.held_bytes(), passed.len()), (held, piece.len() - held), "{piece}");
    }
}

#[test]
fn headers_are_searched_in_percent_encoding_too() {
    let masker = masker(&["sk-key/of+upstream"]);
    for (value, expected) in [
        ("sk-key/of+upstream", true),
        ("Bearer sk-key/of+upstream;", true),
        ("https://a.test/?key=sk%2Dkey%2fof%2Bupstream", true),
        ("%73%6b-key/of+upstream", true),
        (
            "/login?next=https%3A%2F%2Fa.test%2F%3Fkey%3Dsk-key%252Fof%252Bupstream",
            true,
        ),
        ("sk-key%2Fof+upstrea", false),
        ("sk-key", false),
        ("100 % of sk-key/of+upstrea", false),
    ] {
        assert_eq!(masker.finds(value.as_bytes()), expected, "{value}");
    }
}

#[test]
fn there_is_no_masker_without_a_credential() {
    assert!(CredentialMasker::new([""; 0]).is_none());
    assert!(CredentialMasker::new([""]).is_none());
}

/// Credentials that overlap themselves and each other.
const TEXTS: [&str; 7] = ["abab/ab", "ab/ab", "u0061a", "na\"b", "baba", "é/b%b", "/b/a"];

fn body() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[abu06/n]",
        4 => prop::sample::select(TEXTS.to_vec()).prop_map(str::to_owned),
        2 => prop::sample::select(TEXTS.to_vec()).prop_map(|text| {
            text.bytes().map(|byte| format!("\\u{byte:04x}")).collect()
        }),
        2 => prop::sample::select(vec!["\\u0061", "\\u0062", "\\u006", "\\u00", "\\/", "\\u002F", "\\u00e9", "%2f", "%2F", "%C3%a9", "%2", "%", "%25b"])
            .prop_map(str::to_owned),
        2 => (0..20_usize).prop_map(|count| "\\".repeat(count)),
        1 => "[ \n\"é]",
    ];
    prop::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]
    #[test]
    fn the_result_is_that_of_the_slow_masker_for_all_pieces(
        body in body(),
        sizes in prop::collection::vec(1..12_usize, 1..8),
    ) {
        let masker = masker(&TEXTS);
        let written = ["na\\\"b", "na\\\\\\\"b"];
        let expected = mask_slowly(body.as_bytes(), &[&TEXTS[..], &written].concat());
        let whole = mask_pieces(&masker, iter::once(body.as_bytes()));
        prop_assert_eq!(String::from_utf8_lossy(&whole), String::from_utf8_lossy(&expected));
        let single = mask_pieces(&masker, body.as_bytes().chunks(1));
        prop_assert_eq!(&single, &expected);
        let mut rest = body.as_bytes();
        let mut pieces = Vec::new();
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(rest.len().min(*size));
            pieces.push(piece);
            rest = after;
        }
        prop_assert_eq!(mask_pieces(&masker, pieces), expected);
        prop_assert!(masker.finds(body.as_bytes()) || whole == body.as_bytes());
    }
}

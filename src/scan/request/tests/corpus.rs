//! Bodies to read: some sound, some hostile, and a source of more.

use proptest::prelude::*;

use crate::scan::{Field, Problem};

/// Bodies that are fine, though not everybody would think so.
pub const SOUND: &[&str] = &[
    "{}",
    " \t\r\n{ } \n",
    r#"{"model":"gpt-5","stream":true}"#,
    r#"{"mod\u0065l":"gpt-\u0035","\u0073tream":false,"prompt_cache_key":"\ud83d\ude00\n\"\\"}"#,
    r#"{"model":null,"prompt_cache_key":null,"stream":null,"previous_response_id":null,"client_metadata":null,"input":null,"instructions":null}"#,
    r#"{"prompt_cache_key":7,"stream":"true","previous_response_id":["a"],"client_metadata":"session_id","instructions":{"a":[1]},"input":3}"#,
    r#"{"prompt_cache_key":{"prompt_cache_key":"inner"},"stream":[true],"client_metadata":[{"session_id":"no"}]}"#,
    r#"{"input":"{\"prompt_cache_key\":\"decoy\",\"model\":\"decoy\"}","model":"real","tools":[{"model":"x","prompt_cache_key":"x"}]}"#,
    r#"{"client_metadata":{"a":{"session_id":"no"},"session_id":"yes","model":"no"},"session_id":"no"}"#,
    r#"{"client_metadata":{"session_id":5},"metadata":{"session_id":"no"}}"#,
    r#"{"x":1,"x":2,"metadata":{"a":1,"a":2},"input":[{"role":"system","role":"user"},{"role":"user"}]}"#,
    r#"{"input":[{"content":[{"role":"user"}]},{"r\u006fle":"us\u0065r","x":[{},[]]} , {"role":"user"}]}"#,
    r#"{"input":["a",1,[{"role":"user"}],{"role":["user"]},{"role":"users"},{"role":"user"},2]}"#,
    r#"{"input":[],"instructions":""}"#,
    r#"{"Models":1,"MODEL ":2,"tools":[{"MODEL":3}],"client_metadata":{"Model":4},"Session_Id":5}"#,
    r#"{"":"","a":[0,-0,1.5e-7,1E+2,true,false,null,"\/\b\f\n\r\t"]}"#,
    "{\"a\":\"\u{7f}\u{80}\u{7ff}\u{800}\u{ffff}\u{10000}\u{10ffff}\u{feff}\"}",
];

/// Bodies that are refused: what for, and at which byte.
pub const HOSTILE: &[(&[u8], Problem, u64)] = &[
    (b"", Problem::UnexpectedEnd, 0),
    (b" ", Problem::UnexpectedEnd, 1),
    (b"{\"a\":tru", Problem::UnexpectedEnd, 8),
    (b"{\"a\":\"", Problem::UnexpectedEnd, 6),
    (b"\xef\xbb\xbf{}", Problem::ByteOrderMark, 0),
    (b" \xef\xbb\xbf{}", Problem::RootNotObject, 1),
    (b"\xff\xfe{\0}\0", Problem::InvalidUtf8, 0),
    (br#"{"Model":"a"}"#, Problem::Alike(Field::Model), 1),
    (br#"{"model":"a","\u004dodel":"b"}"#, Problem::Alike(Field::Model), 13),
    (
        b"{\"prompt_cache_\xe2\x84\xaaey\":1}",
        Problem::Alike(Field::PromptCacheKey),
        1,
    ),
    (
        br#"{"a":1,"previou\u017f_response_id":1}"#,
        Problem::Alike(Field::PreviousResponseId),
        7,
    ),
    (
        br#"{"client_metadata":{"SESSION_ID":1}}"#,
        Problem::Alike(Field::SessionId),
        20,
    ),
    (b"[]", Problem::RootNotObject, 0),
    (b"\"a\"", Problem::RootNotObject, 0),
    (b"null", Problem::RootNotObject, 0),
    (b"7", Problem::RootNotObject, 0),
    (b"}", Problem::RootNotObject, 0),
    (b"{}x", Problem::TextAfterRoot, 2),
    (b"{} {}", Problem::TextAfterRoot, 3),
    (b"{}\0", Problem::TextAfterRoot, 2),
    (b"{}\x0c", Problem::TextAfterRoot, 2),
    (b"{}}", Problem::TextAfterRoot, 2),
    (b"{\"a\":1,}", Problem::ExpectedKey, 7),
    (b"{,}", Problem::ExpectedKey, 1),
    (b"{a:1}", Problem::ExpectedKey, 1),
    (b"{'a':1}", Problem::ExpectedKey, 1),
    (b"{\"a\"}", Problem::ExpectedColon, 4),
    (b"{\"a\" 1}", Problem::ExpectedColon, 5),
    (b"{\"a\":}", Problem::ExpectedValue, 5),
    (b"{\"a\"::1}", Problem::ExpectedValue, 5),
    (b"{\"a\":1 2}", Problem::ExpectedCommaOrBrace, 7),
    (b"{\"a\":1:2}", Problem::ExpectedCommaOrBrace, 6),
    (b"{\"a\":1\"b\":2}", Problem::ExpectedCommaOrBrace, 6),
    (b"{\"a\":\"b\"c}", Problem::ExpectedCommaOrBrace, 8),
    (b"{\"a\":{}]", Problem::ExpectedCommaOrBrace, 7),
    (b"{\"a\":[1}", Problem::ExpectedCommaOrBracket, 7),
    (b"{\"a\":[1,]}", Problem::ExpectedValue, 8),
    (b"{\"a\":[,1]}", Problem::ExpectedValue, 6),
    (b"{\"a\":[}", Problem::ExpectedValue, 6),
    (b"{\"a\":1,\x0b\"b\":2}", Problem::ExpectedKey, 7),
    (b"{\"a\":\xc2\xa01}", Problem::ExpectedValue, 5),
    (b"{\"a\":1/*c*/}", Problem::BadNumber, 6),
    (b"{\"a\":01}", Problem::BadNumber, 6),
    (b"{\"a\":-}", Problem::BadNumber, 6),
    (b"{\"a\":1.}", Problem::BadNumber, 7),
    (b"{\"a\":1e}", Problem::BadNumber, 7),
    (b"{\"a\":0x1}", Problem::BadNumber, 6),
    (b"{\"a\":.5}", Problem::ExpectedValue, 5),
    (b"{\"a\":+1}", Problem::ExpectedValue, 5),
    (b"{\"a\":NaN}", Problem::ExpectedValue, 5),
    (b"{\"a\":-Infinity}", Problem::BadNumber, 6),
    (b"{\"a\":1e999}", Problem::NumberOutOfRange, 10),
    (b"{\"a\":nulL}", Problem::BadLiteral, 8),
    (b"{\"a\":truefalse}", Problem::BadLiteral, 9),
    (b"{\"a\":True}", Problem::ExpectedValue, 5),
    (b"{\"a\\\":1}", Problem::UnexpectedEnd, 8),
    (b"{\\\"a\":1}", Problem::ExpectedKey, 1),
    (b"{\"a\":\\\"b\"}", Problem::ExpectedValue, 5),
    (b"{\"a\":\"\n\"}", Problem::ControlCharacter, 6),
    (b"{\"a\":\"\0\"}", Problem::ControlCharacter, 6),
    (b"{\"a\":\"\\x\"}", Problem::BadEscape, 7),
    (b"{\"a\":\"\\\n\"}", Problem::BadEscape, 7),
    (b"{\"a\":\"\\u12g4\"}", Problem::BadEscape, 10),
    (b"{\"a\":\"\\u12\"}", Problem::BadEscape, 10),
    (b"{\"a\":\"\\ud800\"}", Problem::LoneSurrogate, 6),
    (b"{\"a\":\"\\ud800\",\"model\":1}", Problem::LoneSurrogate, 6),
    (b"{\"a\":\"\\ud800x\\udc00\"}", Problem::LoneSurrogate, 6),
    (b"{\"a\":\"\\udc00\\ud800\"}", Problem::LoneSurrogate, 6),
    (b"{\"model\":\"\\uD800\\u0041\"}", Problem::LoneSurrogate, 10),
    (b"{\"a\":\"\xc0\x80\"}", Problem::InvalidUtf8, 6),
    (b"{\"a\":\"\xe0\x80\x80\"}", Problem::InvalidUtf8, 6),
    (b"{\"a\":\"\xed\xa0\x80\"}", Problem::InvalidUtf8, 6),
    (b"{\"a\":\"\xf4\x90\x80\x80\"}", Problem::InvalidUtf8, 6),
    (b"{\"a\":\"\xf0\x9f\x98\"}", Problem::InvalidUtf8, 6),
    (b"{\"a\":\"b\x80\"}", Problem::InvalidUtf8, 7),
    (b"{\"\xff\":1}", Problem::InvalidUtf8, 2),
    (b"{\"a\":\"\xe6\xbc", Problem::InvalidUtf8, 6),
    (b"{\"model\":\"a\",\"model\":\"a\"}", Problem::Twice(Field::Model), 13),
    (
        b"{\"model\":\"a\",\"mod\\u0065l\":\"b\"}",
        Problem::Twice(Field::Model),
        13,
    ),
    (
        b"{\"model\":null,\"\\u006dodel\":\"b\"}",
        Problem::Twice(Field::Model),
        14,
    ),
    (
        b"{\"prompt_cache_key\":1,\"prompt_cache_key\":1}",
        Problem::Twice(Field::PromptCacheKey),
        22,
    ),
    (b"{\"stream\":true,\"stream\":true}", Problem::Twice(Field::Stream), 15),
    (b"{\"input\":1,\"input\":1}", Problem::Twice(Field::Input), 11),
    (
        b"{\"instructions\":1,\"instructions\":1}",
        Problem::Twice(Field::Instructions),
        18,
    ),
    (
        b"{\"previous_response_id\":1,\"previous_response_id\":1}",
        Problem::Twice(Field::PreviousResponseId),
        26,
    ),
    (
        b"{\"client_metadata\":{},\"client_metadata\":{}}",
        Problem::Twice(Field::ClientMetadata),
        22,
    ),
    (
        b"{\"client_metadata\":{\"session_id\":1,\"session_id\":1}}",
        Problem::Twice(Field::SessionId),
        35,
    ),
    (b"{\"model\":5}", Problem::NotAString(Field::Model), 9),
    (b"{\"model\":[\"gpt-5\"]}", Problem::NotAString(Field::Model), 9),
    (b"{\"model\":true}", Problem::NotAString(Field::Model), 9),
];

/// Names and texts that matter, plainly and in escapes, and some that do not.
fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "model",
        "mod\\u0065l",
        "prompt_cache_key",
        "stream",
        "previous_response_id",
        "client_metadata",
        "session_id",
        "instructions",
        "input",
        "role",
        "user",
        "encrypted_content",
        "encrypted\\u005fcontent",
        "type",
        "",
        "x",
        "\\n",
        "\\\"",
        "é",
        "\\ud83d\\ude00",
        "text with spaces",
    ])
    .prop_map(str::to_owned)
}

/// A JSON value as text, with odd blanks.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec![
            "null",
            "true",
            "false",
            "0",
            "-1.5e3",
            "12345678901234567890123",
            "\"user\""
        ])
        .prop_map(str::to_owned),
        name().prop_map(|text| format!("\"{text}\"")),
        (name(), 0usize..200).prop_map(|(text, count)| format!("\"{}\"", text.repeat(count))),
    ];
    let blank = prop::sample::select(vec!["", "", "", " ", "\n\t"]);
    leaf.prop_recursive(5, 60, 6, move |inner| {
        let items = prop::collection::vec((inner.clone(), blank.clone()), 0..6);
        let members = prop::collection::vec((name(), blank.clone(), inner), 0..6);
        prop_oneof![
            items.prop_map(|items| {
                let items: Vec<_> = items
                    .into_iter()
                    .map(|(item, blank)| format!("{blank}{item}{blank}"))
                    .collect();
                format!("[{}]", items.join(","))
            }),
            members.prop_map(object),
        ]
    })
}

fn object(members: Vec<(String, &'static str, String)>) -> String {
    let members: Vec<_> = members
        .into_iter()
        .map(|(key, blank, value)| format!("{blank}\"{key}\"{blank}:{value}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// A conversation whose items often have encrypted content, some of it where it does not count.
pub fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let key = prop::sample::select(vec![
        "encrypted_content",
        "encrypted_content",
        "encrypted_content",
        "encrypted\\u005fcontent",
        "encrypted_conten",
        "content",
        "role",
        "id",
    ]);
    let text = prop_oneof![
        Just("\"user\"".to_owned()),
        "[A-Za-z0-9_/+=-]{0,40}".prop_map(|text| format!("\"{text}\"")),
        (
            "(\\\\/|\\\\u002f|\\\\\\\\|é|\\\\ud83d\\\\ude00|[a-z/]){1,9}",
            1usize..60
        )
            .prop_map(|(text, times)| format!("\"{}\"", text.repeat(times))),
        Just("{\"encrypted_content\":\"inner\"}".to_owned()),
        Just("[{\"encrypted_content\":\"inner\"}]".to_owned()),
        Just("\"\\\"encrypted_content\\\":\\\"said\\\"\"".to_owned()),
        Just("null".to_owned()),
    ];
    let blank = prop::sample::select(vec!["", "", " ", "\n\t    "]);
    let item = prop::collection::vec((key.prop_map(str::to_owned), blank, text), 0..5).prop_map(object);
    let item = prop_oneof![
        8 => item,
        1 => Just("[[\"encrypted_content\"]]".to_owned()),
        1 => Just("\"encrypted_content\"".to_owned()),
        1 => Just("7.5".to_owned()),
    ];
    (prop::collection::vec(item, 0..14), 0usize..70, any::<bool>()).prop_map(|(items, shift, is_last)| {
        let input = format!("\"input\":[{}]", items.join(","));
        let tail = if is_last {
            ""
        } else {
            ",\"encrypted_content\":\"outside\",\"tools\":[{\"encrypted_content\":\"no\"}]"
        };
        format!("{{{}{input}{tail}}}", " ".repeat(shift)).into_bytes()
    })
}

/// An object whose members are often those that matter.
pub fn body() -> impl Strategy<Value = Vec<u8>> {
    let blank = prop::sample::select(vec!["", " ", "\r\n"]);
    prop::collection::vec((name(), blank, value()), 0..8).prop_map(|members| object(members).into_bytes())
}

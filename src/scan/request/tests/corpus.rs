//! Test bodies: valid ones, invalid ones, and strategies that generate more.

use proptest::prelude::*;

use crate::scan::{
    JsonErrorKind::{self, *},
    RoutingField,
};

/// Valid bodies, many of them unusual.
pub const VALID: &[&str] = &[
    "{}",
    " \t\r\n{ } \n",
    r#"{"model":"gpt-5","stream":true}"#,
    r#"{"mod\u0065l":"gpt-\u0035","\u0073tream":false,"prompt_cache_key":"\ud83d\ude00\n\"\\"}"#,
    r#"{"model":null,"prompt_cache_key":null,"stream":null,"previous_response_id":null,"client_metadata":null,"input":null,"instructions":null}"#,
    r#"{"prompt_cache_key":7,"stream":"true","previous_response_id":["a"],"client_metadata":"session_id","instructions":{"a":[1]},"input":3}"#,
    r#"{"conversation":{"id":"conv_1"},"previous\u005fresponse_id":5,"metadata":{"previous_response_id":5,"conversation":[]}}"#,
    r#"{"conversation":{"x":{"id":"no"},"i\u0064":"conv_1","y":[{}]},"tools":[{"conversation":{}}]}"#,
    r#"{"conversation":{"x":{"id":"no"}},"prompt_cache\u005fkey":false}"#,
    r#"{"conversation":{"id":"conv_1","id":7}}"#,
    r#"{"conversation":{"id":null},"previous_response_id":""}"#,
    r#"{"conversation":{},"input":{"id":"no"}}"#,
    r#"{"conversation":["conv_1"],"prompt_cache_key":-1}"#,
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

/// Invalid bodies with the kind and the offset of the error.
pub const INVALID: &[(&[u8], JsonErrorKind, u64)] = &[
    (b"", UnexpectedEnd, 0),
    (b" ", UnexpectedEnd, 1),
    (b"{\"a\":tru", UnexpectedEnd, 8),
    (b"{\"a\":\"", UnexpectedEnd, 6),
    (b"\xef\xbb\xbf{}", ByteOrderMark, 0),
    (b" \xef\xbb\xbf{}", RootNotObject, 1),
    (b"\xff\xfe{\0}\0", InvalidUtf8, 0),
    (br#"{"Model":"a"}"#, FieldInOtherCase(RoutingField::Model), 1),
    (
        br#"{"model":"a","\u004dodel":"b"}"#,
        FieldInOtherCase(RoutingField::Model),
        13,
    ),
    (
        b"{\"prompt_cache_\xe2\x84\xaaey\":1}",
        FieldInOtherCase(RoutingField::Path { path: 0, names: 1 }),
        1,
    ),
    (
        br#"{"a":1,"previou\u017f_response_id":1}"#,
        FieldInOtherCase(RoutingField::PreviousResponseId),
        7,
    ),
    (
        br#"{"client_metadata":{"SESSION_ID":1}}"#,
        FieldInOtherCase(RoutingField::Path { path: 1, names: 2 }),
        20,
    ),
    (b"[]", RootNotObject, 0),
    (b"\"a\"", RootNotObject, 0),
    (b"null", RootNotObject, 0),
    (b"7", RootNotObject, 0),
    (b"}", RootNotObject, 0),
    (b"{}x", TrailingCharacters, 2),
    (b"{} {}", TrailingCharacters, 3),
    (b"{}\0", TrailingCharacters, 2),
    (b"{}\x0c", TrailingCharacters, 2),
    (b"{}}", TrailingCharacters, 2),
    (b"{\"a\":1,}", ExpectedKey, 7),
    (b"{,}", ExpectedKey, 1),
    (b"{a:1}", ExpectedKey, 1),
    (b"{'a':1}", ExpectedKey, 1),
    (b"{\"a\"}", ExpectedColon, 4),
    (b"{\"a\" 1}", ExpectedColon, 5),
    (b"{\"a\":}", ExpectedValue, 5),
    (b"{\"a\"::1}", ExpectedValue, 5),
    (b"{\"a\":1 2}", ExpectedCommaOrBrace, 7),
    (b"{\"a\":1:2}", ExpectedCommaOrBrace, 6),
    (b"{\"a\":1\"b\":2}", ExpectedCommaOrBrace, 6),
    (b"{\"a\":\"b\"c}", ExpectedCommaOrBrace, 8),
    (b"{\"a\":{}]", ExpectedCommaOrBrace, 7),
    (b"{\"a\":[1}", ExpectedCommaOrBracket, 7),
    (b"{\"a\":[1,]}", ExpectedValue, 8),
    (b"{\"a\":[,1]}", ExpectedValue, 6),
    (b"{\"a\":[}", ExpectedValue, 6),
    (b"{\"a\":1,\x0b\"b\":2}", ExpectedKey, 7),
    (b"{\"a\":\xc2\xa01}", ExpectedValue, 5),
    (b"{\"a\":1/*c*/}", InvalidNumber, 6),
    (b"{\"a\":01}", InvalidNumber, 6),
    (b"{\"a\":-}", InvalidNumber, 6),
    (b"{\"a\":1.}", InvalidNumber, 7),
    (b"{\"a\":1e}", InvalidNumber, 7),
    (b"{\"a\":0x1}", InvalidNumber, 6),
    (b"{\"a\":.5}", ExpectedValue, 5),
    (b"{\"a\":+1}", ExpectedValue, 5),
    (b"{\"a\":NaN}", ExpectedValue, 5),
    (b"{\"a\":-Infinity}", InvalidNumber, 6),
    (b"{\"a\":1e999}", NumberOutOfRange, 10),
    (b"{\"a\":nulL}", InvalidLiteral, 8),
    (b"{\"a\":truefalse}", InvalidLiteral, 9),
    (b"{\"a\":True}", ExpectedValue, 5),
    (b"{\"a\\\":1}", UnexpectedEnd, 8),
    (b"{\\\"a\":1}", ExpectedKey, 1),
    (b"{\"a\":\\\"b\"}", ExpectedValue, 5),
    (b"{\"a\":\"\n\"}", ControlCharacter, 6),
    (b"{\"a\":\"\0\"}", ControlCharacter, 6),
    (b"{\"a\":\"\\x\"}", InvalidEscape, 7),
    (b"{\"a\":\"\\\n\"}", InvalidEscape, 7),
    (b"{\"a\":\"\\u12g4\"}", InvalidEscape, 10),
    (b"{\"a\":\"\\u12\"}", InvalidEscape, 10),
    (b"{\"model\":\"\\uD800\\u0041\"}", LoneSurrogate, 10),
    (br#"{"model":"\udc00\ud800"}"#, LoneSurrogate, 10),
    (br#"{"prompt_cache_key":"a\ud83d"}"#, LoneSurrogate, 22),
    (br#"{"client_metadata":{"session_id":"a\ud83d"}}"#, LoneSurrogate, 35),
    (br#"{"previous_response_id":"\ud83d"}"#, LoneSurrogate, 25),
    (br#"{"a":[[{"file_id":"f\udfff"}]]}"#, LoneSurrogate, 20),
    (b"{\"a\":\"\xc0\x80\"}", InvalidUtf8, 6),
    (b"{\"a\":\"\xe0\x80\x80\"}", InvalidUtf8, 6),
    (b"{\"a\":\"\xed\xa0\x80\"}", InvalidUtf8, 6),
    (b"{\"a\":\"\xf4\x90\x80\x80\"}", InvalidUtf8, 6),
    (b"{\"a\":\"\xf0\x9f\x98\"}", InvalidUtf8, 6),
    (b"{\"a\":\"b\x80\"}", InvalidUtf8, 7),
    (b"{\"\xff\":1}", InvalidUtf8, 2),
    (b"{\"a\":\"\xe6\xbc", InvalidUtf8, 6),
    (
        b"{\"model\":\"a\",\"model\":\"a\"}",
        DuplicateField(RoutingField::Model),
        13,
    ),
    (
        b"{\"model\":\"a\",\"mod\\u0065l\":\"b\"}",
        DuplicateField(RoutingField::Model),
        13,
    ),
    (
        b"{\"model\":null,\"\\u006dodel\":\"b\"}",
        DuplicateField(RoutingField::Model),
        14,
    ),
    (
        b"{\"prompt_cache_key\":1,\"prompt_cache_key\":1}",
        DuplicateField(RoutingField::Path { path: 0, names: 1 }),
        22,
    ),
    (
        b"{\"stream\":true,\"stream\":true}",
        DuplicateField(RoutingField::Stream),
        15,
    ),
    (
        br#"{"metadata":{"user_id":"a","user_id":"a"}}"#,
        DuplicateField(RoutingField::Path { path: 2, names: 2 }),
        27,
    ),
    (
        br#"{"metadata":{"user_id":"a","User_Id":"a"}}"#,
        FieldInOtherCase(RoutingField::Path { path: 2, names: 2 }),
        27,
    ),
    (
        br#"{"metadata":{"thread":{"id":"a"}}}"#,
        FieldInOtherCase(RoutingField::Path { path: 3, names: 2 }),
        13,
    ),
    (
        br#"{"metadata":{"Thread":{"id":"a","\u0069d":"a"}}}"#,
        DuplicateField(RoutingField::Path { path: 3, names: 3 }),
        32,
    ),
    (b"{\"store\":1,\"store\":1}", DuplicateField(RoutingField::Store), 11),
    (
        b"{\"messages\":1,\"messages\":1}",
        DuplicateField(RoutingField::Messages),
        14,
    ),
    (b"{\"input\":1,\"input\":1}", DuplicateField(RoutingField::Input), 11),
    (
        b"{\"instructions\":1,\"instructions\":1}",
        DuplicateField(RoutingField::Instructions),
        18,
    ),
    (
        b"{\"previous_response_id\":1,\"previous_response_id\":1}",
        DuplicateField(RoutingField::PreviousResponseId),
        26,
    ),
    (
        b"{\"client_metadata\":{},\"client_metadata\":{}}",
        DuplicateField(RoutingField::Path { path: 1, names: 1 }),
        22,
    ),
    (
        b"{\"client_metadata\":{\"session_id\":1,\"session_id\":1}}",
        DuplicateField(RoutingField::Path { path: 1, names: 2 }),
        35,
    ),
    (b"{\"model\":5}", FieldNotString(RoutingField::Model), 9),
    (b"{\"model\":[\"gpt-5\"]}", FieldNotString(RoutingField::Model), 9),
    (b"{\"model\":true}", FieldNotString(RoutingField::Model), 9),
];

/// Keys and texts that the scanner reads, with and without escapes, and others.
fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "model",
        "mod\\u0065l",
        "prompt_cache_key",
        "stream",
        "previous_response_id",
        "conversation",
        "conversatio\\u006e",
        "id",
        "i\\u0064",
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

/// A JSON value as text, with unusual whitespace.
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
    let whitespace = prop::sample::select(vec!["", "", "", " ", "\n\t"]);
    leaf.prop_recursive(5, 60, 6, move |inner| {
        let items = prop::collection::vec((inner.clone(), whitespace.clone()), 0..6);
        let members = prop::collection::vec((name(), whitespace.clone(), inner), 0..6);
        prop_oneof![
            items.prop_map(|items| {
                let items: Vec<_> = items
                    .into_iter()
                    .map(|(item, whitespace)| format!("{whitespace}{item}{whitespace}"))
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
        .map(|(key, whitespace, value)| format!("{whitespace}\"{key}\"{whitespace}:{value}"))
        .collect();
    format!("{{{}}}", members.join(","))
}

/// A conversation with items that often have encrypted content, in part at positions where it does not count.
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
    let whitespace = prop::sample::select(vec!["", "", " ", "\n\t    "]);
    let item = prop::collection::vec((key.prop_map(str::to_owned), whitespace, text), 0..5).prop_map(object);
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

/// An object in which many members are fields that the scanner reads.
pub fn body() -> impl Strategy<Value = Vec<u8>> {
    let whitespace = prop::sample::select(vec!["", " ", "\r\n"]);
    prop::collection::vec((name(), whitespace, value()), 0..8).prop_map(|members| object(members).into_bytes())
}

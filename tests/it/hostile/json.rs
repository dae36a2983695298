//! JSON bodies (RFC 8259) that parsers read differently.

use super::kit::{Row, SOUND, head};

const KEY: &str = r#""prompt_cache_key":"k""#;

pub fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = texts()
        .into_iter()
        .map(|(name, body)| Row::json(name, body).answered(400, "ambiguous_body"))
        .collect();
    let not_json = not_json().into_iter().map(|(name, body)| (name, body.into_bytes()));
    rows.extend(
        not_json
            .chain(bytes())
            .map(|(name, body)| Row::json(name, body).answered(400, "invalid_json")),
    );
    rows.extend(sound().into_iter().map(|(name, body)| Row::json(name, body).passes()));
    rows
}

/// Bodies with more than one possible reading.
fn texts() -> Vec<(&'static str, String)> {
    let with = |members: &str| format!("{{{members}}}");
    let nested = |depth: usize| format!("{{\"input\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    let fields = [
        ("two models", r#""model":"a","model":"b""#),
        ("two equal models", r#""model":"a","model":"a""#),
        (
            "two models far apart",
            r#""model":"a","input":{"model":"b"},"model":"c""#,
        ),
        ("a model spelled twice", r#""model":"a","mod\u0065l":"b""#),
        ("a model with an escape in front", r#""\u006dodel":"a","model":"b""#),
        (
            "a model all in escapes",
            r#""\u006d\u006f\u0064\u0065\u006c":"a","model":"b""#,
        ),
        ("a model and null", r#""model":"a","model":null"#),
        ("a model in capitals", r#""MODEL":"b""#),
        ("a model and one in capitals", r#""model":"a","Model":"b""#),
        ("a model in escaped capitals", r#""model":"a","\u004dodel":"b""#),
        ("a model that is a number", r#""model":1"#),
        ("a model that is an object", r#""model":{"id":"a"}"#),
        ("a model that is an array", r#""model":["a","b"]"#),
        ("a model that is true", r#""model":true"#),
        ("two keys", r#""prompt_cache_key":"a","prompt_cache_key":"b""#),
        (
            "a key spelled twice",
            r#""prompt_cache_key":"a","prompt\u005fcache_key":"b""#,
        ),
        ("a key in capitals", r#""prompt_cache_key":"a","Prompt_Cache_Key":"b""#),
        ("a key with a Kelvin sign", "\"prompt_cache_\u{212a}ey\":\"b\""),
        ("a key with an escaped Kelvin sign", r#""prompt_cache_\u212aey":"b""#),
        (
            "two earlier responses",
            r#""previous_response_id":"a","previous_response_id":"b""#,
        ),
        (
            "an earlier response in capitals",
            r#""Previous_Response_Id":"resp_other""#,
        ),
        (
            "an earlier response with a long s",
            "\"previou\u{17f}_response_id\":\"resp_other\"",
        ),
        ("two inputs", r#""input":"a","input":"b""#),
        ("two streams", r#""stream":true,"stream":false"#),
        ("two metadata", r#""client_metadata":{},"client_metadata":{}"#),
        (
            "two sessions",
            r#""client_metadata":{"session_id":"a","session_id":"b"}"#,
        ),
        (
            "a session in capitals",
            r#""client_metadata":{"session_id":"a","SESSION_ID":"b"}"#,
        ),
        ("half a surrogate in a model", r#""model":"a\udfff""#),
        ("half a surrogate in a session key", r#""prompt_cache_key":"a\udfff""#),
        (
            "half a surrogate in the id of a response",
            r#""previous_response_id":"a\udfff""#,
        ),
        (
            "half a surrogate in the id of a file",
            r#""input":[{"content":[{"file_id":"a\ud83d"}]}]"#,
        ),
        ("a number out of range", r#""a":1e999"#),
    ];
    let mut texts: Vec<(&'static str, String)> = fields.map(|(name, members)| (name, with(members))).into();
    texts.extend([
        ("a byte order mark", "\u{feff}{\"model\":\"a\"}".to_owned()),
        ("nested 129 deep", nested(128)),
        ("nested ten thousand deep", nested(10_000)),
        ("nested ten thousand deep in objects", "{\"a\":".repeat(10_000)),
        ("a long model", with(&format!("\"model\":\"{}\"", "m".repeat(5000)))),
        (
            "a long key",
            with(&format!("\"prompt_cache_key\":\"{}\"", "k".repeat(5000))),
        ),
        ("a number of many digits", with(&format!("\"a\":{}", "9".repeat(400)))),
    ]);
    texts
}

/// Bodies that are not JSON.
fn not_json() -> Vec<(&'static str, String)> {
    let with = |members: &str| format!("{{{members}}}");
    let fields = [
        ("NaN", r#""a":NaN"#),
        ("infinity", r#""a":-Infinity"#),
        ("a number in hexadecimal", r#""a":0x10"#),
        ("a number with a zero in front", r#""a":01"#),
        ("a number with a plus", r#""a":+1"#),
        ("a number for a key", "1:2"),
        ("a bare word for a key", r#"model:"a""#),
        ("null for a key", r#"null:"a""#),
        ("apostrophes", "'model':'a'"),
        ("a comma at the end", r#""model":"a","#),
        ("a comma at the end of an array", r#""a":[1,]"#),
        ("two commas", r#""a":1,,"b":2"#),
        ("no comma", r#""a":1 "b":2"#),
        ("no colon", r#""a" "b""#),
        ("a comment", r#"/*"model":"a"*/"#),
        ("a line comment", "//\n\"model\":\"a\""),
        ("a hash comment", "#\n\"model\":\"a\""),
        ("an unknown escape", r#""a":"\x41""#),
        ("an escape with braces", r#""a":"\u{41}""#),
        ("a short escape", r#""a":"\u41""#),
        ("a raw line end in a string", "\"a\":\"\n\""),
        ("a raw NUL in a key", "\"mod\0el\":1"),
        ("a raw tab in a key", "\"\tmodel\":1"),
        ("True", r#""a":True"#),
        ("undefined", r#""a":undefined"#),
        ("no value", r#""a":"#),
    ];
    let mut texts: Vec<(&'static str, String)> = fields.map(|(name, members)| (name, with(members))).into();
    texts.extend(
        [
            ("an array", r#"[{"model":"a"}]"#),
            ("a string", r#""model""#),
            ("a number", "5"),
            ("null", "null"),
            ("true", "true"),
            ("blanks", " \r\n"),
            ("a second object", r#"{"model":"a"}{"model":"b"}"#),
            (
                "a second object on a line of its own",
                "{\"model\":\"a\"}\n{\"model\":\"b\"}",
            ),
            ("text after the root", r#"{"model":"a"}x"#),
            ("NUL after the root", "{\"model\":\"a\"}\0"),
            ("a brace too many", r#"{"model":"a"}}"#),
            ("a brace too few", r#"{"a":{"model":"a"}"#),
            ("an end in a string", r#"{"model":"a"#),
            ("a form feed between", "{\u{c}\"model\":\"a\"}"),
            ("a no-break space between", "{\u{a0}\"model\":\"a\"}"),
            ("a record separator in front", "\u{1e}{\"model\":\"a\"}"),
            ("a guard in front", ")]}',\n{\"model\":\"a\"}"),
        ]
        .map(|(name, text)| (name, text.to_owned())),
    );
    texts
}

/// Bodies that are not valid UTF-8 (RFC 3629).
fn bytes() -> [(&'static str, Vec<u8>); 10] {
    let utf16 = |bytes: fn(u16) -> [u8; 2]| SOUND.encode_utf16().flat_map(bytes).collect::<Vec<u8>>();
    [
        ("a stray byte in a string", b"{\"a\":\"\xff\"}".to_vec()),
        ("a stray byte in a model", b"{\"model\":\"a\x80\"}".to_vec()),
        ("a stray byte in a key", b"{\"model\xfe\":\"a\"}".to_vec()),
        (
            "a quote of two bytes",
            b"{\"model\":\"a\xc0\xa2,\"model\":\"b\"}".to_vec(),
        ),
        ("a surrogate in UTF-8", b"{\"a\":\"\xed\xa0\x80\"}".to_vec()),
        ("a character over U+10FFFF", b"{\"a\":\"\xf4\x90\x80\x80\"}".to_vec()),
        ("half a character", b"{\"a\":\"\xe2\x82\"}".to_vec()),
        ("UTF-16, large end first", utf16(u16::to_be_bytes)),
        ("UTF-16, small end first", utf16(u16::to_le_bytes)),
        (
            "UTF-16 with a mark",
            [b"\xff\xfe".to_vec(), utf16(u16::to_le_bytes)].concat(),
        ),
    ]
}

/// Bodies that look ambiguous but have only one reading.
fn sound() -> Vec<(&'static str, String)> {
    let nested = |depth: usize| format!("{{\"input\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    vec![
        ("nothing", "{}".to_owned()),
        ("half a surrogate", r#"{"a":"\ud800"}"#.to_owned()),
        ("the other half first", r#"{"a":"\udc00\ud800"}"#.to_owned()),
        ("half a surrogate in a key", r#"{"\ud83d":1,"model":"a"}"#.to_owned()),
        (
            "half a surrogate at the end of a text",
            r#"{"model":"a","input":[{"role":"user","content":"tail \ud83d"}]}"#.to_owned(),
        ),
        ("a model that is null", r#"{"model":null}"#.to_owned()),
        (
            "models further in",
            r#"{"model":"a","input":[{"model":"b","model":"c"}],"tools":[{"MODEL":1}]}"#.to_owned(),
        ),
        (
            "a model in a string",
            r#"{"input":"{\"model\":\"b\"}","model":"a"}"#.to_owned(),
        ),
        (
            "a repeated field that the gateway does not read",
            r#"{"x":1,"x":2,"model":"a"}"#.to_owned(),
        ),
        ("a model in escapes", r#"{"mod\u0065l":"gpt-\u0035"}"#.to_owned()),
        (
            "a longer word",
            format!(r#"{{"models":"x","model ":"y","model":"a",{KEY}}}"#),
        ),
        ("NUL in escapes", r#"{"model\u0000":"x","model":"a\u0000b"}"#.to_owned()),
        ("a whole surrogate pair", r#"{"model":"\ud83d\ude00"}"#.to_owned()),
        ("blanks around", " \t\r\n{ \"model\" : \"a\" } \r\n".to_owned()),
        ("nested 128 deep", nested(127)),
        ("the longest model", format!(r#"{{"model":"{}"}}"#, "m".repeat(4096))),
        (
            "a large number",
            r#"{"a":123456789012345678901234567890,"b":1e-999}"#.to_owned(),
        ),
    ]
}

/// Bodies that are split into two chunks at every byte. The position of the split must not change the result.
pub fn split_between_chunks() -> Vec<Row> {
    let line = "POST /v1/responses HTTP/1.1";
    let fields = ["content-type: application/json", "transfer-encoding: chunked"];
    let chunk = |bytes: &[u8]| [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    let ambiguous = [
        r#"{"model":"a","mod\u0065l":"b"}"#.as_bytes(),
        r#"{"model":"a","Model":"b"}"#.as_bytes(),
        "{\"prompt_cache_\u{212a}ey\":1}".as_bytes(),
        br#"{"model":"\ud83d\u0041"}"#,
    ];
    let not_json = [
        b"{\"a\":\"\xe2\x28\xa1\"}".as_slice(),
        br#"{"a":1.e5,"model":"a"}"#,
        br#"{"model":"a"} {"model":"b"}"#,
    ];
    let sound = [
        "{\"mod\\u0065l\":\"\\ud83d\\ude00\u{20ac}\",\"a\":[-1.5e+7,true,null]}".as_bytes(),
        br#"{"input":"\\\"model\":\"b\",\\","model":"a"}"#,
        br#"{"a":"\ud83d\u0041"}"#,
    ];
    let mut rows = Vec::new();
    let refused = ambiguous.map(|body| (body, Some("ambiguous_body"))).into_iter();
    let refused = refused.chain(not_json.map(|body| (body, Some("invalid_json"))));
    for (body, code) in refused.chain(sound.map(|body| (body, None))) {
        for cut in 1..body.len() {
            let (one, two) = body.split_at(cut);
            let name = format!("{} at {cut}", body.escape_ascii());
            let head = head(line, &fields).into_bytes();
            let row = Row::raw(name, [head, chunk(one), chunk(two), b"0\r\n\r\n".to_vec()].concat());
            rows.push(match code {
                None => row.reaches(line, &fields, body),
                Some(code) => row.answered(400, code),
            });
        }
    }
    rows
}

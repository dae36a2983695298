//! The oracle of the request scanner: it reads the facts of a whole body in a slow and obvious way with serde_json.
//!
//! The fuzz target also includes this file, so the file uses nothing of this crate.

use serde::de::DeserializeOwned;
use serde_json::{Deserializer, Value};

/// The facts that the scanner must find in a body.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ExpectedFacts {
    pub model: Option<String>,
    pub prompt_cache_key: Option<String>,
    pub stream: Option<bool>,
    pub previous_response_id: Option<String>,
    pub session_id: Option<String>,
    /// The beginning of each `encrypted_content`, after unescaping.
    pub encrypted: Vec<Vec<u8>>,
}

/// The fields that are members of the root.
const FIELDS: [&str; 7] = [
    "model",
    "prompt_cache_key",
    "stream",
    "previous_response_id",
    "client_metadata",
    "instructions",
    "input",
];

/// The facts of `body`, or `None` if it must be refused.
pub fn read(body: &[u8]) -> Option<ExpectedFacts> {
    let Value::Object(_) = serde_json::from_slice(body).ok()? else {
        return None;
    };
    let mut facts = ExpectedFacts::default();
    let members = members(body);
    if members.iter().any(|(key, _, _)| differs_only_in_case(key, &FIELDS)) {
        return None;
    }
    for name in FIELDS {
        let mut found = members.iter().filter(|(key, _, _)| key == name);
        let Some((_, value, raw)) = found.next() else {
            continue;
        };
        if found.next().is_some() {
            return None;
        }
        match name {
            "model" if !value.is_string() && !value.is_null() => return None,
            "model" => facts.model = text(value, raw)?,
            "prompt_cache_key" => facts.prompt_cache_key = text(value, raw)?,
            "previous_response_id" => facts.previous_response_id = text(value, raw)?,
            "stream" => facts.stream = value.as_bool(),
            "client_metadata" if value.is_object() => facts.session_id = session_id(raw)?,
            "input" if !value.is_null() => {
                facts.encrypted = encrypted(value, raw);
            }
            _ => {}
        }
    }
    Some(facts)
}

/// Whether `key` differs from one of `fields` in case only.
fn differs_only_in_case(key: &str, fields: &[&str]) -> bool {
    let folded = key
        .to_ascii_lowercase()
        .replace('\u{17f}', "s")
        .replace('\u{212a}', "k");
    key != folded && fields.contains(&folded.as_str())
}

/// The text of a string, or `None` if it is too long. The inner value is `None` if `value` is not a string.
fn text(value: &Value, raw: &[u8]) -> Option<Option<String>> {
    match value {
        Value::String(_) if raw.len() > 4096 + 2 => None,
        Value::String(text) => Some(Some(text.clone())),
        _ => Some(None),
    }
}

fn session_id(metadata: &[u8]) -> Option<Option<String>> {
    let members = members(metadata);
    if members
        .iter()
        .any(|(key, _, _)| differs_only_in_case(key, &["session_id"]))
    {
        return None;
    }
    let mut found = members.iter().filter(|(key, _, _)| key == "session_id");
    let Some((_, value, raw)) = found.next() else {
        return Some(None);
    };
    if found.next().is_some() { None } else { text(value, raw) }
}

/// The beginnings of the last eight `encrypted_content` of the items.
fn encrypted(input: &Value, raw: &[u8]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for (begin, end) in items(input, raw) {
        let item = &raw[begin..end];
        let mut at = skip(item, 0, b"{");
        while let Some((_, key, key_end)) = next::<String>(item, at) {
            let (value, _, end) = next::<Value>(item, skip(item, key_end, b":")).expect("a value follows a key");
            if let (b"\"encrypted_content\"", Value::String(text)) = (&item[key..key_end], value) {
                found.push(text.as_bytes()[..text.len().min(192)].to_vec());
            }
            at = skip(item, end, b",");
        }
    }
    found.split_off(found.len().saturating_sub(8))
}

/// The begin and end of each object in an array. The list is empty if `array` is not an array.
fn items(array: &Value, raw: &[u8]) -> Vec<(usize, usize)> {
    let mut items = Vec::new();
    let mut at = if array.is_array() { 1 } else { raw.len() };
    while let Some((item, begin, end)) = next::<Value>(raw, at) {
        if item.is_object() {
            items.push((begin, end));
        }
        at = skip(raw, end, b",");
    }
    items
}

/// The members of a valid object: the key, the value, and the value as written.
fn members(object: &[u8]) -> Vec<(String, Value, &[u8])> {
    let mut members = Vec::new();
    let mut at = skip(object, 0, b"{");
    while let Some((key, _, end)) = next::<String>(object, at) {
        let (value, begin, end) = next::<Value>(object, skip(object, end, b":")).expect("a value follows a key");
        members.push((key, value, &object[begin..end]));
        at = skip(object, end, b",");
    }
    members
}

/// The value after the whitespace at `at`, with its begin and end.
fn next<T: DeserializeOwned>(text: &[u8], at: usize) -> Option<(T, usize, usize)> {
    let begin = skip(text, at, b"");
    let mut values = Deserializer::from_slice(&text[begin..]).into_iter();
    let value = values.next()?.ok()?;
    Some((value, begin, begin + values.byte_offset()))
}

/// The index after the whitespace at `at`, and after one of the bytes `expected` if it follows.
fn skip(text: &[u8], mut at: usize, expected: &[u8]) -> usize {
    while at < text.len() && b" \t\r\n".contains(&text[at]) {
        at += 1;
    }
    if at < text.len() && expected.contains(&text[at]) {
        at + 1
    } else {
        at
    }
}

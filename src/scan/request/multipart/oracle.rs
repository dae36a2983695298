//! A slow and obvious reader of forms, with which the scanner is compared. It needs the whole body, and splits it at the
//! boundary. It has one difference: it does not say what is wrong with a body.

use std::ops::Range;

/// The facts of a form. The texts are those of the fields `user` and `purpose`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExpectedForm {
    pub model: Option<(String, Range<u64>)>,
    pub user: Option<String>,
    pub purpose: Option<String>,
    /// The texts of `file_id`, `image_file_id` and so on.
    pub named: Vec<String>,
    pub files: usize,
    pub file_bytes: u64,
}

/// The header fields of a part that matter.
#[derive(Default)]
struct Head {
    name: String,
    is_file: bool,
    is_plain: bool,
}

/// The names of the fields that are read. The names of objects are found by the last part of a name.
const NAMES: [&str; 4] = ["model", "user", "purpose", "_charset_"];
const OBJECTS: [&str; 11] = [
    "previous_response_id",
    "conversation",
    "conversation_id",
    "container_id",
    "vector_store_id",
    "vector_store_ids",
    "file_id",
    "file_ids",
    "image_file_id",
    "mask_file_id",
    "input_file_id",
];

/// Reads a form, or returns `None` if it is invalid or ambiguous.
pub fn read(body: &[u8], boundary: &str) -> Option<ExpectedForm> {
    // The offset in the body of the first byte of `whole` is `shift - 2`.
    let (text, shift) = match body.strip_prefix(b"\r\n") {
        Some(text) => (text, 2),
        None => (body, 0),
    };
    let whole = [b"\r\n", text].concat();
    let delimiter = format!("\r\n--{boundary}").into_bytes();
    let mut segments = split(&whole, &delimiter);
    let (_, last) = segments.pop()?;
    if last != b"--" && last != b"--\r\n" || segments.is_empty() || !segments.remove(0).1.is_empty() {
        return None;
    }
    let mut facts = ExpectedForm::default();
    let mut seen = Vec::new();
    if segments.len() > 1000 {
        return None;
    }
    for (at, segment) in segments {
        let part = segment.strip_prefix(b"\r\n")?;
        let blank = part.windows(4).position(|four| four == b"\r\n\r\n")?;
        let (head, content) = (&part[..blank], &part[blank + 4..]);
        let misplaced = [format!("\n--{boundary}"), format!("\r--{boundary}")];
        let is_misplaced = |text: &String| content.windows(text.len()).any(|bytes| bytes == text.as_bytes());
        if blank + 4 > 8192 || misplaced.iter().any(is_misplaced) {
            return None;
        }
        let start = (at + 2 + blank + 4) as u64 + shift - 2;
        read_part(&mut facts, &mut seen, &read_head(head)?, content, start)?;
    }
    Some(facts)
}

fn read_part(facts: &mut ExpectedForm, seen: &mut Vec<String>, head: &Head, content: &[u8], start: u64) -> Option<()> {
    let name = &head.name;
    let last = |name: &str| {
        let mut parts: Vec<&str> = name.split('[').map(|part| part.trim_end_matches(']')).collect();
        parts.retain(|part| !part.chars().all(|letter| letter.is_ascii_digit()));
        parts.last().map(|part| (*part).to_owned()).unwrap_or_default()
    };
    let object = |name: &str| OBJECTS.iter().position(|object| *object == last(name));
    let is_wanted = |name: &str| NAMES.contains(&name) || object(name).is_some();
    let tolerant = tolerant(name);
    if tolerant != *name && is_wanted(&tolerant) {
        let is_same = !NAMES.contains(&tolerant.as_str()) && kind(object(&tolerant)) == kind(object(name));
        if !is_same {
            return None;
        }
    }
    if !is_wanted(name) {
        facts.files += usize::from(head.is_file);
        facts.file_bytes += if head.is_file { content.len() as u64 } else { 0 };
        return Some(());
    }
    let is_text = content.len() <= 4096 && content.iter().all(|byte| *byte >= b' ' && *byte != 127);
    if head.is_file || !head.is_plain || !is_text || !name.contains("[]") && seen.contains(name) {
        return None;
    }
    seen.push(name.clone());
    let text = String::from_utf8(content.to_vec()).ok()?;
    match name.as_str() {
        "model" => facts.model = Some((text, start..start + content.len() as u64)),
        "user" => facts.user = Some(text),
        "purpose" => facts.purpose = Some(text),
        "_charset_" => is_utf8(&text).then_some(())?,
        _ => facts.named.push(text),
    }
    Some(())
}

/// The kind of the object with this index in [`OBJECTS`].
fn kind(object: Option<usize>) -> Option<&'static str> {
    Some(
        [
            "response",
            "conversation",
            "conversation",
            "container",
            "store",
            "store",
        ]
        .get(object?)
        .unwrap_or(&"file"),
    )
}

/// A name without everything that some parsers ignore.
fn tolerant(name: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let [first, more @ ..] = rest {
        let digits = more.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let digits = digits.filter(|digits| digits.chars().all(|digit| digit.is_ascii_hexdigit()));
        match (first, digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &more[2..];
            }
            _ => {
                bytes.push(*first);
                rest = more;
            }
        }
    }
    bytes.retain(|byte| *byte != b'\\');
    let text = String::from_utf8_lossy(&bytes)
        .replace('\u{17f}', "s")
        .replace('\u{212a}', "k");
    let is_space = |letter: char| letter.is_whitespace() || letter.is_control();
    let text = text.to_ascii_lowercase().trim_matches(is_space).to_owned();
    let first = text.split('[').next().unwrap_or_default();
    if text.contains('[') && first.trim_matches(is_space) == "model" {
        return "model".to_owned();
    }
    text.strip_suffix("[]").map(str::to_owned).unwrap_or(text)
}

fn read_head(head: &[u8]) -> Option<Head> {
    let mut found = Head {
        is_plain: true,
        ..Head::default()
    };
    let mut seen = Vec::new();
    let mut name = None;
    for (_, line) in split(head, b"\r\n") {
        if line.is_empty() || line.iter().any(|byte| (*byte < b' ' || *byte == 127) && *byte != b'\t') {
            return None;
        }
        let colon = line.iter().position(|byte| *byte == b':')?;
        let field = String::from_utf8(line[..colon].to_vec()).ok()?.to_ascii_lowercase();
        let value = &line[colon + 1..];
        if field.is_empty() || !field.bytes().all(is_token) {
            return None;
        }
        if !["content-disposition", "content-type", "content-transfer-encoding"].contains(&field.as_str()) {
            continue;
        }
        if seen.contains(&field) {
            return None;
        }
        match field.as_str() {
            "content-disposition" => name = Some(read_disposition(value, &mut found)?),
            "content-type" => found.is_plain &= read_type(value)?,
            _ => {
                let value = String::from_utf8_lossy(value).trim_ascii().to_ascii_lowercase();
                found.is_plain &= ["7bit", "8bit", "binary"].contains(&value.as_str());
            }
        }
        seen.push(field);
    }
    found.name = name?;
    Some(found)
}

fn read_disposition(value: &[u8], found: &mut Head) -> Option<String> {
    let (essence, parameters) = parameters(value)?;
    if essence != "form-data" {
        return None;
    }
    let mut name = None;
    let mut plain_file_name: Option<Vec<u8>> = None;
    for (key, value) in parameters {
        match key.as_str() {
            "name" if name.is_some() => return None,
            "name" => name = Some(String::from_utf8_lossy(&value).into_owned()),
            "filename" if plain_file_name.as_ref().is_some_and(|name| !name.is_empty()) => return None,
            "filename" => plain_file_name = Some(value),
            _ if key.starts_with("name*") => return None,
            _ => found.is_file |= key.starts_with("filename*"),
        }
    }
    found.is_file |= plain_file_name.is_some();
    name
}

/// Whether a content type is a text in UTF-8; `None` for a nested form.
fn read_type(value: &[u8]) -> Option<bool> {
    let lower = String::from_utf8_lossy(value).trim_ascii().to_ascii_lowercase();
    if lower.starts_with("multipart/") {
        return None;
    }
    let Some((essence, parameters)) = parameters(value) else {
        return Some(false);
    };
    let charsets: Vec<_> = parameters.iter().filter(|(key, _)| key == "charset").collect();
    let is_good = |(_, charset): &&(String, Vec<u8>)| is_utf8(&String::from_utf8_lossy(charset));
    Some(essence.starts_with("text/") && charsets.len() < 2 && charsets.iter().all(is_good))
}

fn is_utf8(charset: &str) -> bool {
    ["utf-8", "utf8", "us-ascii"].contains(&charset.to_ascii_lowercase().as_str())
}

/// A parameter: its name in lower case, and its value.
type NamedValue = (String, Vec<u8>);

/// The part of a value before its first `;` in lower case, and its parameters.
fn parameters(value: &[u8]) -> Option<(String, Vec<NamedValue>)> {
    let value = value.trim_ascii();
    let end = value.iter().position(|byte| *byte == b';').unwrap_or(value.len());
    let essence = String::from_utf8_lossy(value[..end].trim_ascii()).to_ascii_lowercase();
    let mut rest = &value[end..];
    let mut found = Vec::new();
    while !rest.is_empty() {
        rest = rest.strip_prefix(b";")?.trim_ascii_start();
        if rest.is_empty() {
            break;
        }
        let equals = rest.iter().position(|byte| *byte == b'=')?;
        let key = String::from_utf8(rest[..equals].to_vec()).ok()?.to_ascii_lowercase();
        if key.is_empty() || !key.bytes().all(is_token) {
            return None;
        }
        rest = &rest[equals + 1..];
        let text = if rest.first() == Some(&b'"') {
            let quote = 1 + rest[1..].iter().position(|byte| *byte == b'"')?;
            let text = rest[1..quote].to_vec();
            if text.ends_with(b"\\") {
                return None;
            }
            rest = &rest[quote + 1..];
            text
        } else {
            let is_end = |byte: &u8| byte.is_ascii() && !is_token(*byte);
            let end = rest.iter().position(is_end).unwrap_or(rest.len());
            let text = rest[..end].to_vec();
            if text.is_empty() {
                return None;
            }
            rest = &rest[end..];
            text
        };
        rest = rest.trim_ascii_start();
        found.push((key, text));
    }
    Some((essence, found))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte)
}

/// The pieces of `text` between occurrences of `separator`, with their offsets.
fn split<'a>(text: &'a [u8], separator: &[u8]) -> Vec<(usize, &'a [u8])> {
    let mut pieces = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while at + separator.len() <= text.len() {
        if text[at..].starts_with(separator) {
            pieces.push((start, &text[start..at]));
            at += separator.len();
            start = at;
        } else {
            at += 1;
        }
    }
    pieces.push((start, &text[start..]));
    pieces
}

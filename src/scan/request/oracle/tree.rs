//! The values of a valid JSON text, with its strings as they are written.

/// A JSON value, with its strings as they are written.
pub enum Node<'b> {
    Object(Vec<(StringNode<'b>, Node<'b>)>),
    Array(Vec<Node<'b>>),
    String(StringNode<'b>),
    Other(&'b [u8]),
}

/// A string: as written, and after unescaping with U+FFFD for each lone surrogate.
pub struct StringNode<'b> {
    pub raw: &'b [u8],
    pub text: String,
}

impl StringNode<'_> {
    pub fn has_lone_surrogate(&self) -> bool {
        without_lone_surrogates(self.raw) != self.raw
    }

    /// The name of a key. A lone surrogate makes it a key that has no meaning.
    pub fn name(&self) -> &str {
        if self.has_lone_surrogate() { "" } else { &self.text }
    }
}

/// The root of a valid text.
pub fn root(text: &[u8]) -> Node<'_> {
    parse(text, skip(text, 0)).0
}

/// The index of the closing quote of the string whose opening quote is at `open`.
pub fn end_of_string(text: &[u8], open: usize) -> usize {
    let mut at = open + 1;
    while text[at] != b'"' {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at
}

/// The valid value that begins at `at`, and the index after it.
fn parse(text: &[u8], at: usize) -> (Node<'_>, usize) {
    match text[at] {
        b'{' => {
            let mut members = Vec::new();
            let mut at = skip(text, at + 1);
            while text[at] != b'}' {
                let close = end_of_string(text, at);
                let key = string(&text[at + 1..close]);
                let colon = skip(text, close + 1);
                let (value, end) = parse(text, skip(text, colon + 1));
                members.push((key, value));
                at = skip(text, end);
                at = if text[at] == b',' { skip(text, at + 1) } else { at };
            }
            (Node::Object(members), at + 1)
        }
        b'[' => {
            let mut items = Vec::new();
            let mut at = skip(text, at + 1);
            while text[at] != b']' {
                let (item, end) = parse(text, at);
                items.push(item);
                at = skip(text, end);
                at = if text[at] == b',' { skip(text, at + 1) } else { at };
            }
            (Node::Array(items), at + 1)
        }
        b'"' => {
            let close = end_of_string(text, at);
            (Node::String(string(&text[at + 1..close])), close + 1)
        }
        _ => {
            let length = text[at..]
                .iter()
                .take_while(|byte| !b",]} \t\r\n".contains(byte))
                .count();
            (Node::Other(&text[at..at + length]), at + length)
        }
    }
}

fn string(raw: &[u8]) -> StringNode<'_> {
    let text = unescaped(&without_lone_surrogates(raw));
    StringNode { raw, text }
}

pub fn unescaped(raw: &[u8]) -> String {
    let quoted = [b"\"", raw, b"\""].concat();
    serde_json::from_slice(&quoted).expect("the string is valid")
}

pub fn unescaped_or_empty(raw: &[u8]) -> String {
    if without_lone_surrogates(raw) == raw {
        unescaped(raw)
    } else {
        String::new()
    }
}

/// The index after the whitespace at `at`.
fn skip(text: &[u8], mut at: usize) -> usize {
    while at < text.len() && b" \t\r\n".contains(&text[at]) {
        at += 1;
    }
    at
}

/// `text` with `\ufffd` in place of each escape of a lone surrogate. The length stays the same.
pub fn without_lone_surrogates(text: &[u8]) -> Vec<u8> {
    let unit_at = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        let is_hex = digits.iter().all(u8::is_ascii_hexdigit);
        is_hex.then(|| u32::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
    };
    let mut sound = text.to_vec();
    let mut at = 0;
    while at < text.len() {
        at += match (text[at], unit_at(at)) {
            (b'\\', Some(0xd800..0xdc00)) if matches!(unit_at(at + 6), Some(0xdc00..0xe000)) => 12,
            (b'\\', Some(0xd800..0xe000)) => {
                sound[at + 2..at + 6].copy_from_slice(b"fffd");
                6
            }
            (b'\\', _) => 2,
            _ => 1,
        };
    }
    sound
}

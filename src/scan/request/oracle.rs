//! The oracle of the request scanner: it reads the facts of a whole body in a slow and obvious way, from a tree of its values.
//! serde_json decides which bodies are valid.
//!
//! The fuzz target also includes this file, so the file uses nothing of this crate.

#[path = "oracle/conversation.rs"]
mod conversation;
#[path = "oracle/media.rs"]
mod media;
#[path = "oracle/tree.rs"]
mod tree;

use serde_json::Value;
use tree::{Node, StringNode, unescaped, without_lone_surrogates};

/// The facts that the scanner must find in a body.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ExpectedFacts {
    pub model: Option<String>,
    pub stream: Option<bool>,
    pub store: Option<bool>,
    pub background: Option<bool>,
    /// The text at each path.
    pub texts: Vec<Option<String>>,
    /// The beginning of each `encrypted_content`, after unescaping.
    pub encrypted: Vec<Vec<u8>>,
    /// The named objects: how the body names them, and their ids.
    pub named: Vec<(&'static str, String)>,
    /// The items of the conversation's beginning.
    pub items: Vec<ExpectedItem>,
    /// The names of the members of the root that have another type than the API defines.
    pub mistyped: Vec<&'static str>,
    /// The numbers of images, recordings and files, and the length of their data.
    pub media: [u64; 4],
}

/// An item of a conversation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ExpectedItem {
    /// `instructions`, `system`, `input` or `messages`.
    pub part: &'static str,
    /// The role as written.
    pub role: Option<Vec<u8>>,
    /// Each text as written, with its position in the item, and whether it is media.
    pub texts: Vec<(bool, u64, Vec<u8>)>,
}

/// What is looked for.
#[derive(Clone, Copy)]
pub struct Rules<'r> {
    pub paths: &'r [&'r [&'r str]],
    pub is_exhaustive: bool,
}

/// The maximum number of named objects.
const MAX_NAMED: usize = 4096;

/// The body must be refused.
struct RefusedBody;

/// The fields that are members of the root.
const FIELDS: [&str; 10] = [
    "model",
    "stream",
    "store",
    "background",
    "previous_response_id",
    "conversation",
    "instructions",
    "system",
    "input",
    "messages",
];

/// The facts of `body`, or `None` if it must be refused.
pub fn read(body: &[u8], rules: Rules<'_>) -> Option<ExpectedFacts> {
    let sound = without_lone_surrogates(body);
    let Value::Object(_) = serde_json::from_slice(&sound).ok()? else {
        return None;
    };
    let root = tree::root(body);
    let Node::Object(members) = &root else {
        unreachable!("the root is an object")
    };
    facts_of(members, rules).ok().map(|mut facts| {
        facts.media = media::tally(body);
        facts
    })
}

fn facts_of(members: &[(StringNode<'_>, Node<'_>)], rules: Rules<'_>) -> Result<ExpectedFacts, RefusedBody> {
    let mut facts = ExpectedFacts::default();
    for name in FIELDS {
        let Some(value) = only(members, name)? else { continue };
        match (name, value) {
            ("model", Node::String(text)) => facts.model = Some(routing_text(text)?),
            ("model", Node::Other(b"null")) => {}
            ("model", _) => return Err(RefusedBody),
            ("stream", value) => facts.stream = flag(value),
            ("store", value) => facts.store = flag(value),
            ("background", value) => facts.background = flag(value),
            ("input", Node::Array(items)) => facts.encrypted = encrypted(items),
            _ => {}
        }
    }
    facts.mistyped = mistyped(members);
    for path in rules.paths {
        facts.texts.push(text_at(members, path)?);
    }
    let mut names = Names {
        rules,
        found: Vec::new(),
    };
    names.object(members, 1, None)?;
    if names.found.len() > MAX_NAMED && rules.is_exhaustive {
        return Err(RefusedBody);
    }
    names.found.truncate(MAX_NAMED);
    facts.named = names.found;
    for part in ["instructions", "system", "input", "messages"] {
        if let Some(value) = only(members, part)? {
            facts.items.extend(conversation::items(part, value, rules));
        }
    }
    Ok(facts)
}

/// The names of the members of the root that have another type than the API defines.
fn mistyped(members: &[(StringNode<'_>, Node<'_>)]) -> Vec<&'static str> {
    let names = ["previous_response_id", "conversation", "prompt_cache_key"].into_iter();
    let is_mistyped = |name: &&str| {
        let mut values = members
            .iter()
            .filter(|(key, _)| key.name() == *name)
            .map(|(_, value)| value);
        values.any(|value| match value {
            Node::String(_) | Node::Other(b"null") => false,
            Node::Object(members) if *name == "conversation" => {
                let ids: Vec<_> = members.iter().filter(|(key, _)| key.name() == "id").collect();
                ids.is_empty() || ids.iter().any(|(_, id)| !matches!(id, Node::String(_)))
            }
            _ => true,
        })
    };
    names.filter(is_mistyped).collect()
}

/// The value of the member with this name.
fn only<'n, 'b>(members: &'n [(StringNode<'b>, Node<'b>)], name: &str) -> Result<Option<&'n Node<'b>>, RefusedBody> {
    let in_other_case = |key: &str| key != name && folded(key) == folded(name);
    if members.iter().any(|(key, _)| in_other_case(key.name())) {
        return Err(RefusedBody);
    }
    let mut found = members.iter().filter(|(key, _)| key.name() == name);
    let first = found.next();
    match found.next() {
        None => Ok(first.map(|(_, value)| value)),
        Some(_) => Err(RefusedBody),
    }
}

fn folded(key: &str) -> String {
    key.to_ascii_lowercase()
        .replace('\u{17f}', "s")
        .replace('\u{212a}', "k")
}

fn routing_text(text: &StringNode<'_>) -> Result<String, RefusedBody> {
    match text.raw.len() > 4096 || text.has_lone_surrogate() {
        true => Err(RefusedBody),
        false => Ok(text.text.clone()),
    }
}

fn flag(value: &Node<'_>) -> Option<bool> {
    match value {
        Node::Other(b"true") => Some(true),
        Node::Other(b"false") => Some(false),
        _ => None,
    }
}

fn text_at(members: &[(StringNode<'_>, Node<'_>)], path: &[&str]) -> Result<Option<String>, RefusedBody> {
    match (only(members, path[0])?, &path[1..]) {
        (Some(Node::String(text)), []) => routing_text(text).map(Some),
        (Some(Node::Object(inner)), rest) if !rest.is_empty() => text_at(inner, rest),
        _ => Ok(None),
    }
}

/// The beginnings of the last eight `encrypted_content` of the items.
fn encrypted(items: &[Node<'_>]) -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for item in items {
        let Node::Object(members) = item else { continue };
        for (key, value) in members {
            if let (b"encrypted_content", Node::String(text)) = (key.raw, value) {
                let sound = without_lone_surrogates(text.raw);
                let differs = sound.iter().zip(text.raw).position(|(one, other)| one != other);
                // The text before the backslash of the first lone surrogate counts.
                let end = differs.map_or(text.raw.len(), |at| {
                    text.raw[..at].iter().rposition(|b| *b == b'\\').unwrap()
                });
                let text = unescaped(&text.raw[..end]);
                found.push(text.as_bytes()[..text.len().min(192)].to_vec());
            }
        }
    }
    found.split_off(found.len().saturating_sub(8))
}

/// Stands for `prompt_cache_options`, whose `id` names nothing.
const OPTIONS: &str = "options";

/// Collects the names of objects.
struct Names<'r> {
    rules: Rules<'r>,
    found: Vec<(&'static str, String)>,
}

/// What a key means for the names of objects.
#[derive(Clone, Copy, PartialEq)]
enum KeyMeaning {
    Name(&'static str),
    Id,
    Type,
    Ignored,
    None,
}

fn meaning(key: &StringNode<'_>, depth: u32, rules: Rules<'_>) -> KeyMeaning {
    let is_escaped = key.raw.contains(&b'\\');
    if is_escaped && depth > 1 && !rules.is_exhaustive {
        return KeyMeaning::None;
    }
    let name = if rules.is_exhaustive {
        folded(key.name())
    } else {
        key.name().to_owned()
    };
    let at_root = depth == 1 || rules.is_exhaustive;
    match name.as_str() {
        "id" => KeyMeaning::Id,
        "type" if rules.is_exhaustive => KeyMeaning::Type,
        "file_id" | "file_ids" => KeyMeaning::Name("file"),
        "vector_store_id" | "vector_store_ids" => KeyMeaning::Name("vector store"),
        "container" | "container_id" => KeyMeaning::Name("container"),
        "previous_response_id" | "response_id" if at_root => KeyMeaning::Name("response"),
        "conversation" | "conversation_id" if at_root => KeyMeaning::Name("conversation"),
        "input_file_id" | "training_file" | "validation_file" if at_root => KeyMeaning::Name("file"),
        "batch_id" | "completion_id" | "item_id" | "upload_id" | "eval_id" | "thread_id" if at_root => {
            KeyMeaning::Name("item")
        }
        "metadata" | "client_metadata" if depth == 1 => KeyMeaning::Ignored,
        "annotations" if rules.is_exhaustive => KeyMeaning::Ignored,
        "comparison_response_id" if at_root => KeyMeaning::Name("compared"),
        _ => KeyMeaning::None,
    }
}

impl Names<'_> {
    /// Reads an object whose members are at `depth`, and whose `id` names something of this kind.
    fn object(
        &mut self,
        members: &[(StringNode<'_>, Node<'_>)],
        depth: u32,
        of_kind: Option<&'static str>,
    ) -> Result<(), RefusedBody> {
        let is_options = of_kind == Some(OPTIONS);
        let mut kind = of_kind.filter(|_| !is_options);
        let mut id: Option<String> = None;
        let is_exhaustive = self.rules.is_exhaustive;
        for (key, value) in members {
            let mut meaning = meaning(key, depth, self.rules);
            if is_options && key.raw == b"comparison_response_id" {
                meaning = KeyMeaning::Name("compared");
            }
            match (meaning, value) {
                (KeyMeaning::Ignored, Node::Object(_) | Node::Array(_)) => {}
                (KeyMeaning::Name(kind), Node::String(text)) => self.name(kind, text)?,
                (KeyMeaning::Name(kind), Node::Object(inner)) => self.object(inner, depth + 1, Some(kind))?,
                (KeyMeaning::Name(kind), Node::Array(items)) => {
                    for item in items {
                        match item {
                            Node::String(text) => self.name(kind, text)?,
                            other => self.value(other, depth + 1)?,
                        }
                    }
                }
                (KeyMeaning::Id, Node::String(text)) => {
                    if is_exhaustive && (id.is_some() || text.raw.len() > 65_536 || text.has_lone_surrogate()) {
                        return Err(RefusedBody);
                    }
                    if text.raw.len() <= 65_536 && !text.has_lone_surrogate() {
                        id = Some(text.text.clone());
                        self.found.extend(kind.map(|kind| (kind, text.text.clone())));
                    }
                }
                (meaning, Node::String(text)) => {
                    let new = self.kind_of_type(meaning, key, text);
                    if let (Some(new), None) = (new, kind) {
                        kind = Some(new);
                        self.found.extend(id.clone().map(|id| (new, id)));
                    }
                }
                (_, Node::Object(inner)) if depth == 1 && key.name() == "prompt_cache_options" => {
                    self.object(inner, 2, Some(OPTIONS))?;
                }
                (_, value) => self.value(value, depth)?,
            }
        }
        Ok(())
    }

    /// The kind of the objects that the `id` beside a member with this text names.
    fn kind_of_type(&self, meaning: KeyMeaning, key: &StringNode<'_>, text: &StringNode<'_>) -> Option<&'static str> {
        let (is_type, text) = match self.rules.is_exhaustive {
            true => (
                meaning == KeyMeaning::Type && text.raw.len() <= 84,
                text.name().as_bytes(),
            ),
            false => (key.raw != b"encrypted_content", text.raw),
        };
        match text {
            b"item_reference" if is_type => Some("item"),
            b"file_id" if is_type => Some("file"),
            _ => None,
        }
    }

    /// Reads the containers in a value at `depth`.
    fn value(&mut self, value: &Node<'_>, depth: u32) -> Result<(), RefusedBody> {
        match value {
            Node::Object(members) => self.object(members, depth + 1, None),
            Node::Array(items) => items.iter().try_for_each(|item| self.value(item, depth + 1)),
            Node::String(_) | Node::Other(_) => Ok(()),
        }
    }

    fn name(&mut self, kind: &'static str, text: &StringNode<'_>) -> Result<(), RefusedBody> {
        match text.raw.len() > 65_536 {
            true if self.rules.is_exhaustive => return Err(RefusedBody),
            true => return Ok(()),
            false if text.has_lone_surrogate() => return Err(RefusedBody),
            false => self.found.push((kind, text.text.clone())),
        }
        Ok(())
    }
}

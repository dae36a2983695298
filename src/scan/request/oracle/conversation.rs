//! The beginning of the conversation in a valid body.

use super::{
    ExpectedItem, KeyMeaning, Rules, meaning,
    tree::{Node, StringNode, unescaped_or_empty},
};

/// The items at the beginning of the conversation in one member of the root.
pub fn items(part: &'static str, value: &Node<'_>, rules: Rules<'_>) -> Vec<ExpectedItem> {
    let mut items = Vec::new();
    let is_question = |item: &ExpectedItem| {
        item.role
            .as_ref()
            .is_some_and(|role| unescaped_or_empty(role) == "user")
    };
    let new = || ExpectedItem {
        part,
        ..ExpectedItem::default()
    };
    match value {
        Node::String(text) => {
            let mut item = new();
            let is_user = matches!(part, "input" | "messages");
            item.role = is_user.then(|| b"user".to_vec());
            item.texts.push((false, 0, text.raw.to_vec()));
            items.push(item);
        }
        Node::Array(elements) => {
            let mut item = new();
            let mut parts = 0;
            for element in elements {
                match element {
                    Node::String(text) => item.texts.push((false, 0, text.raw.to_vec())),
                    element => {
                        parts += u64::from(matches!(element, Node::Object(_)));
                        let mut walk = Walk {
                            parts,
                            part_depth: if part == "system" { 2 } else { 4 },
                            is_exhaustive: rules.is_exhaustive,
                            item: &mut item,
                        };
                        walk.value(element, 2);
                    }
                }
                if part != "system" {
                    let is_last = part != "instructions" && is_question(&item);
                    items.push(std::mem::replace(&mut item, new()));
                    if is_last {
                        return items;
                    }
                }
            }
            items.push(item);
        }
        Node::Object(_) | Node::Other(_) => {}
    }
    items
}

/// Collects the texts of an item.
struct Walk<'i> {
    item: &'i mut ExpectedItem,
    parts: u64,
    part_depth: u32,
    is_exhaustive: bool,
}

impl Walk<'_> {
    /// Reads the containers in a value at `depth`.
    fn value(&mut self, value: &Node<'_>, depth: u32) {
        match value {
            Node::Object(members) => {
                for (key, value) in members {
                    self.member(key, value, depth + 1);
                }
            }
            Node::Array(items) => {
                for item in items {
                    self.enter(item, depth + 1);
                    self.value(item, depth + 1);
                }
            }
            Node::String(_) | Node::Other(_) => {}
        }
    }

    fn enter(&mut self, value: &Node<'_>, depth: u32) {
        if depth == self.part_depth {
            self.parts += u64::from(matches!(value, Node::Object(_)));
        } else if depth == self.part_depth - 1 {
            self.parts = 0;
        }
    }

    fn member(&mut self, key: &StringNode<'_>, value: &Node<'_>, depth: u32) {
        self.enter(value, depth);
        if depth > 8 {
            return;
        }
        let position = if depth > self.part_depth {
            self.parts.saturating_sub(1)
        } else {
            0
        };
        let rules = Rules {
            paths: &[],
            is_exhaustive: self.is_exhaustive,
        };
        let is_media = match (meaning(key, depth, rules), key.name()) {
            (KeyMeaning::Name(_), _) => true,
            (KeyMeaning::Ignored, _) => return,
            (KeyMeaning::Id | KeyMeaning::Type, _) => return self.value(value, depth),
            (KeyMeaning::None, "role") if depth == 3 && self.part_depth == 4 => {
                if let Node::String(text) = value {
                    let is_long = text.raw.len() > 64;
                    self.item.role = Some(if is_long { b"?".to_vec() } else { text.raw.to_vec() });
                }
                return self.value(value, depth);
            }
            (KeyMeaning::None, "text" | "content" | "arguments" | "output" | "input" | "name" | "refusal") => false,
            (KeyMeaning::None, "image_url" | "file_url" | "url" | "file_data" | "data") => true,
            (KeyMeaning::None, "annotations" | "citations" | "logprobs" | "cache_control" | "metadata") => return,
            (KeyMeaning::None, _) => return self.value(value, depth),
        };
        match (value, meaning(key, depth, rules)) {
            (Node::String(text), KeyMeaning::Name(_)) if text.raw.len() > 65_536 => {}
            (Node::String(text), _) => self.item.texts.push((is_media, position, text.raw.to_vec())),
            (Node::Array(items), KeyMeaning::Name(_)) => {
                for item in items {
                    self.enter(item, depth + 1);
                    match item {
                        Node::String(text) if depth < 8 && text.raw.len() <= 65_536 => {
                            let position = if depth + 1 > self.part_depth {
                                self.parts.saturating_sub(1)
                            } else {
                                0
                            };
                            self.item.texts.push((true, position, text.raw.to_vec()));
                        }
                        item => self.value(item, depth + 1),
                    }
                }
            }
            (value, _) => self.value(value, depth),
        }
    }
}

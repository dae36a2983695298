//! The names of the fields that routing reads in a form.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::{body_path::BodyPaths, scan::request::facts::ReferenceKind};

/// The uses of the text of one field. A configured path may name a field that has another use, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FieldUses {
    /// The field is `model`.
    pub model: Option<ModelField>,
    /// The index of the configured path that names the field.
    pub text: Option<usize>,
    /// The field names an object.
    pub reference: Option<ReferenceKind>,
    /// The field is `_charset_`, which names the charset of all texts (RFC 7578 §4.6).
    pub charset: Option<CharsetField>,
}

/// The field `model`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ModelField;

/// The field `_charset_`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CharsetField;

impl FieldUses {
    /// The uses of the field called `name`; `None` if routing does not read it.
    pub fn of(name: &str, paths: &BodyPaths) -> Option<Self> {
        let is_path = |names: &mut dyn ExactSizeIterator<Item = &str>| names.len() == 1 && names.next() == Some(name);
        let uses = Self {
            model: (name == "model").then_some(ModelField),
            text: paths
                .iter()
                .find(|(_, path)| is_path(&mut path.names()))
                .map(|(index, _)| index),
            reference: reference(name),
            charset: (name == "_charset_").then_some(CharsetField),
        };
        (uses != Self::default()).then_some(uses)
    }

    /// The field that routing reads and as which some parsers read `name`, although the name is written differently.
    pub fn disguised(name: &str, paths: &BodyPaths) -> Option<Box<str>> {
        let plain = plain(name);
        let uses = Self::of(&plain, paths)?;
        (plain != name && Self::of(name, paths) != Some(uses)).then(|| plain.into())
    }
}

/// How the field called `name` refers to an object, if it does. The last part of a name like `image[0][file_id]` counts,
/// and the brackets of a list like `file_ids[]` do not.
fn reference(name: &str) -> Option<ReferenceKind> {
    let is_index = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = name.split('[').map(|part| part.trim_end_matches(']'));
    let last = parts.by_ref().rfind(|part| !is_index(part))?;
    match last {
        "previous_response_id" => Some(ReferenceKind::PreviousResponse),
        "conversation" | "conversation_id" => Some(ReferenceKind::Conversation),
        "container_id" => Some(ReferenceKind::Container),
        "vector_store_id" | "vector_store_ids" => Some(ReferenceKind::VectorStore),
        "file_id" | "file_ids" | "image_file_id" | "mask_file_id" | "input_file_id" => Some(ReferenceKind::File),
        _ => None,
    }
}

/// A name as the most tolerant parser reads it: without escapes, white space around it, differences in case, and the brackets
/// of a list. Such a parser may also take `model[x]` for `model`.
fn plain(name: &str) -> Cow<'_, str> {
    // Case is folded as in JSON keys, see `RoutingField::differs_only_in_case`.
    let fold = |letter| match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    };
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.".contains(&byte);
    if name.bytes().all(is_plain) {
        return Cow::Borrowed(name);
    }
    let unescaped: Vec<u8> = percent_decode(name.as_bytes()).filter(|byte| *byte != b'\\').collect();
    let folded: String = String::from_utf8_lossy(&unescaped).trim().chars().map(fold).collect();
    let is_space = |letter: char| letter.is_whitespace() || letter.is_control();
    let trimmed = folded.trim_matches(is_space);
    match trimmed.split_once('[') {
        Some((first, _)) if first.trim_end_matches(is_space) == "model" => Cow::Borrowed("model"),
        _ => Cow::Owned(trimmed.strip_suffix("[]").unwrap_or(trimmed).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths() -> BodyPaths {
        let paths = ["prompt_cache_key", "metadata.user_id", "user", "purpose"];
        BodyPaths::new(&paths.map(|path| path.parse().expect("a path")))
    }

    #[test]
    fn routing_reads_the_model_the_texts_of_one_name_and_the_names_of_objects() {
        let uses = |name| FieldUses::of(name, &paths()).unwrap_or_default();
        assert_eq!(uses("model").model, Some(ModelField));
        assert_eq!(uses("_charset_").charset, Some(CharsetField));
        assert_eq!(
            [uses("prompt_cache_key").text, uses("user").text, uses("purpose").text],
            [Some(0), Some(2), Some(3)]
        );
        for (name, kind) in [
            ("file_id", ReferenceKind::File),
            ("image_file_id", ReferenceKind::File),
            ("file_ids[]", ReferenceKind::File),
            ("image[0][file_id]", ReferenceKind::File),
            ("previous_response_id", ReferenceKind::PreviousResponse),
        ] {
            assert_eq!(uses(name).reference, Some(kind), "{name}");
        }
        for name in [
            "",
            "file",
            "image[]",
            "[",
            "[]",
            "prompt",
            "metadata",
            "user_id",
            "metadata.user_id",
            "file_id[x]",
        ] {
            assert_eq!(FieldUses::of(name, &paths()), None, "{name}");
        }
    }

    #[test]
    fn a_name_that_reads_like_that_of_a_field_is_found() {
        let disguised = |name| FieldUses::disguised(name, &paths());
        for name in [
            "Model", "MODEL", "mod%65l", "%6Dodel", "mo\\del", " model", "model\t", "model[]", "model[0]", "model[a]",
            "mode\\l", "%20model",
        ] {
            assert_eq!(disguised(name).as_deref(), Some("model"), "{name}");
        }
        for (name, field) in [
            ("User", "user"),
            ("u\u{17f}er", "user"),
            ("purpose[]", "purpose"),
            ("file%5Fid", "file_id"),
            ("prompt_cache_\u{212a}ey", "prompt_cache_key"),
            ("_CHARSET_", "_charset_"),
        ] {
            assert_eq!(disguised(name).as_deref(), Some(field), "{name}");
        }
        for name in [
            "model",
            "models",
            "model_id",
            "user",
            "user[name]",
            "file_ids[]",
            "image[]",
            "mod%2565l",
            "%",
            "",
            "é",
        ] {
            assert_eq!(disguised(name), None, "{name}");
        }
    }
}

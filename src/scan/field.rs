//! The request fields that decide which upstream a request goes to.

use std::borrow::Cow;

use crate::body_path::BodyPaths;

/// A field of a request body that routing reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoutingField {
    /// `model`.
    Model,
    /// `stream`.
    Stream,
    /// `store`.
    Store,
    /// `background`.
    Background,
    /// `previous_response_id`.
    PreviousResponseId,
    /// `conversation`.
    Conversation,
    /// `instructions`.
    Instructions,
    /// `system`.
    System,
    /// `input`.
    Input,
    /// `messages`.
    Messages,
    /// A field at a configured path, or an object around it.
    Path {
        /// The index of the path.
        path: u8,
        /// The number of its names that lead to this field.
        names: u8,
    },
}

impl RoutingField {
    /// The fields that are members of the root object, whatever is configured.
    pub(super) const ROOT: [(&'static str, Self); 10] = [
        ("model", Self::Model),
        ("stream", Self::Stream),
        ("store", Self::Store),
        ("background", Self::Background),
        ("previous_response_id", Self::PreviousResponseId),
        ("conversation", Self::Conversation),
        ("instructions", Self::Instructions),
        ("system", Self::System),
        ("input", Self::Input),
        ("messages", Self::Messages),
    ];

    /// The path of the field in a request body, with a dot between the levels. Configured paths are found in `paths`.
    pub fn name(self, paths: &BodyPaths) -> Cow<'static, str> {
        let Self::Path { path, names } = self else {
            let found = Self::ROOT.iter().find(|(_, field)| *field == self);
            let (name, _) = found.expect("every other field is in the table");
            return Cow::Borrowed(name);
        };
        match paths.iter().nth(usize::from(path)) {
            Some((_, path)) => {
                let names: Vec<&str> = path.names().take(usize::from(names)).collect();
                Cow::Owned(names.join("."))
            }
            None => Cow::Borrowed("(a configured path)"),
        }
    }
}

/// Whether `key` differs from `name` in case only. Case is folded in ASCII and by Unicode's simple case folding, in which
/// the long s (U+017F) equals `s` and the Kelvin sign (U+212A) equals `k`. `name` is ASCII.
pub(super) fn differs_only_in_case(key: &[u8], name: &str) -> bool {
    key != name.as_bytes()
        && key.len() >= name.len()
        && std::str::from_utf8(key).is_ok_and(|key| key.chars().map(folded).eq(name.chars().map(folded)))
}

/// The folded form of `letter`; see [`differs_only_in_case`].
pub(super) fn folded(letter: char) -> char {
    match letter {
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        letter => letter.to_ascii_lowercase(),
    }
}

/// Whether a key is surely not the same as another name but for its case, if that name is in lower case. Nearly all keys are
/// written like this.
pub(super) fn is_lower_case(key: &[u8]) -> bool {
    key.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'_')
}

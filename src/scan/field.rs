//! The request fields that decide which upstream a request goes to.

/// A field of a request body that routing reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoutingField {
    /// `model`.
    Model,
    /// `prompt_cache_key`.
    PromptCacheKey,
    /// `stream`.
    Stream,
    /// `previous_response_id`.
    PreviousResponseId,
    /// `client_metadata`.
    ClientMetadata,
    /// `session_id` inside `client_metadata`.
    SessionId,
    /// `instructions`.
    Instructions,
    /// `input`.
    Input,
}

impl RoutingField {
    /// The fields that are members of the root object.
    pub(super) const ROOT: &[Self] = &[
        Self::Model,
        Self::PromptCacheKey,
        Self::Stream,
        Self::PreviousResponseId,
        Self::ClientMetadata,
        Self::Instructions,
        Self::Input,
    ];

    /// The path of the field in a request body, with a dot between the levels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::PromptCacheKey => "prompt_cache_key",
            Self::Stream => "stream",
            Self::PreviousResponseId => "previous_response_id",
            Self::ClientMetadata => "client_metadata",
            Self::SessionId => "client_metadata.session_id",
            Self::Instructions => "instructions",
            Self::Input => "input",
        }
    }

    /// Whether `key` differs from the field's own key in case only. Case is folded in ASCII and by Unicode's simple case
    /// folding, in which the long s (U+017F) equals `s` and the Kelvin sign (U+212A) equals `k`. `key` must not be the
    /// field's own key.
    pub(super) fn differs_only_in_case(self, key: &[u8]) -> bool {
        // Nearly all keys are written in lower case. Such a key equals the field's key or is another key.
        if key.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'_') {
            return false;
        }
        let name = self.name();
        let name = name.rsplit_once('.').map_or(name, |(_, last)| last);
        let folded = |letter| match letter {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            letter => letter.to_ascii_lowercase(),
        };
        std::str::from_utf8(key).is_ok_and(|key| key.chars().map(folded).eq(name.chars()))
    }
}

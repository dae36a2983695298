//! The sources of a session key, as the configuration names them.
//!
//! A header or a text in the body needs no new source: the configuration names it as `header:NAME` or `body:PATH`. To add
//! another kind of source, add a variant to [`SessionSource`] and its text to `from_str` and `fmt`; the same text belongs
//! into the list `SOURCE` in `config/fields.rs`. [`Affinity::find`](super::Affinity::find) looks each source up in the
//! [`Clues`](super::Clues).

use std::{fmt, str::FromStr};

use http::HeaderName;

use crate::body_path::{BodyPath, InvalidBodyPath};

/// A place in a request where Steadfast looks for the session key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionSource {
    /// A text in the body.
    Body(BodyPath),
    /// A text in the body of a request to the Messages API. Other APIs use the same path for other purposes.
    MessagesBody(BodyPath),
    /// A request header.
    Header(HeaderName),
    /// The upstream that owns an object that the request names (a response, a conversation, a file and so on) or an
    /// encrypted item, or that issued the turn state.
    Owner,
    /// The beginning of the conversation, which all requests of the conversation repeat.
    Content,
}

impl SessionSource {
    /// The default order of sources in the notation of the configuration.
    pub const DEFAULT_ORDER: &'static [&'static str] = &[
        "body:prompt_cache_key",
        "header:session-id",
        "header:session_id",
        "header:x-session-id",
        "header:x-session-affinity",
        "header:x-claude-code-session-id",
        "body:client_metadata.session_id",
        "messages:metadata.user_id",
        "owner",
        "content",
    ];

    /// The names of the sources that have no parameter.
    pub const NAMES: &'static [&'static str] = &["owner", "content"];

    /// The default order of sources, used if the configuration names none.
    pub fn default_order() -> Vec<Self> {
        let parsed = Self::DEFAULT_ORDER.iter().map(|text| text.parse());
        parsed
            .map(|source| source.expect("the default sources are valid"))
            .collect()
    }

    /// The path in the body that the source reads.
    pub fn body_path(&self) -> Option<&BodyPath> {
        match self {
            Self::Body(path) | Self::MessagesBody(path) => Some(path),
            Self::Header(_) | Self::Owner | Self::Content => None,
        }
    }
}

impl FromStr for SessionSource {
    type Err = UnknownSessionSource;

    fn from_str(text: &str) -> Result<Self, UnknownSessionSource> {
        match text.split_once(':') {
            Some(("body", path)) => path.parse().map(Self::Body).map_err(|_| UnknownSessionSource),
            Some(("messages", path)) => path.parse().map(Self::MessagesBody).map_err(|_| UnknownSessionSource),
            Some(("header", name)) => name.parse().map(Self::Header).map_err(|_| UnknownSessionSource),
            None if text == "owner" => Ok(Self::Owner),
            None if text == "content" => Ok(Self::Content),
            Some(_) | None => Err(UnknownSessionSource),
        }
    }
}

impl fmt::Display for SessionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body(path) => write!(f, "body:{path}"),
            Self::MessagesBody(path) => write!(f, "messages:{path}"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Owner => f.write_str("owner"),
            Self::Content => f.write_str("content"),
        }
    }
}

/// The error for a text that is not the name of a session source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownSessionSource;

impl fmt::Display for UnknownSessionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a source is one of \"owner\", \"content\", \"header:NAME\", \"body:PATH\" and \"messages:PATH\"; {InvalidBodyPath}"
        )
    }
}

impl std::error::Error for UnknownSessionSource {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_parsed_from_its_own_text() {
        let more = ["body:user", "messages:a.b.c", "header:x-other"].map(|text| text.parse().expect(text));
        for source in SessionSource::default_order().into_iter().chain(more) {
            assert_eq!(source.to_string().parse(), Ok(source));
        }
        for wrong in [
            "",
            "header:",
            "header:a b",
            "body:",
            "body:a.b.c.d",
            "body:a b",
            "cookie:a",
            "owner:",
            "Owner",
        ] {
            assert_eq!(wrong.parse::<SessionSource>(), Err(UnknownSessionSource), "{wrong}");
        }
    }
}

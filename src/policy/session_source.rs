//! The sources of a session key, as the configuration names them.
//!
//! To add a source, add a variant to [`SessionSource`] and its text to `from_str`, `fmt` and the error's message; the same text
//! belongs into the list `SOURCE` in `config/fields.rs`. [`Affinity::find`](super::Affinity::find) looks each source up in
//! the [`Clues`](super::Clues), where a new source also needs a field. A header needs no new source: the configuration names it
//! as `header:NAME`.

use std::{fmt, str::FromStr};

use http::HeaderName;

/// A place in a request where Steadfast looks for the session key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionSource {
    /// The body's top-level `prompt_cache_key`.
    PromptCacheKey,
    /// A request header.
    Header(HeaderName),
    /// The body's `client_metadata.session_id`.
    ClientSessionId,
    /// The upstream that owns the `previous_response_id`, the response id in the path or an encrypted item, or that issued
    /// the turn state.
    Owner,
    /// The beginning of the conversation, which all requests of the conversation repeat.
    Content,
}

impl SessionSource {
    /// The default order of sources, used if the configuration names none.
    pub fn default_order() -> Vec<Self> {
        vec![
            Self::PromptCacheKey,
            Self::Header(HeaderName::from_static("session-id")),
            Self::Header(HeaderName::from_static("session_id")),
            Self::ClientSessionId,
            Self::Owner,
            Self::Content,
        ]
    }
}

/// Gives each source that is no header its name in the configuration.
macro_rules! names {
    ($($source:ident: $name:literal,)+) => {
        impl SessionSource {
            /// The names in the configuration of the sources that are no header. A header is named `header:NAME`.
            pub const NAMES: &'static [&'static str] = &[$($name),+];
        }

        impl FromStr for SessionSource {
            type Err = UnknownSessionSource;

            fn from_str(text: &str) -> Result<Self, UnknownSessionSource> {
                match text {
                    $($name => Ok(Self::$source),)+
                    _ => {
                        let name = text.strip_prefix("header:").ok_or(UnknownSessionSource)?;
                        name.parse().map(Self::Header).map_err(|_| UnknownSessionSource)
                    }
                }
            }
        }

        impl fmt::Display for SessionSource {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$source => f.write_str($name),)+
                    Self::Header(name) => write!(f, "header:{name}"),
                }
            }
        }
    };
}

names! {
    PromptCacheKey: "body:prompt_cache_key",
    ClientSessionId: "body:client_metadata.session_id",
    Owner: "owner",
    Content: "content",
}

/// The error for a text that is not the name of a session source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownSessionSource;

impl fmt::Display for UnknownSessionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a source is one of ")?;
        for name in SessionSource::NAMES {
            write!(f, "\"{name}\", ")?;
        }
        f.write_str("\"header:NAME\"")
    }
}

impl std::error::Error for UnknownSessionSource {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_parsed_from_its_own_text() {
        for source in SessionSource::default_order() {
            assert_eq!(source.to_string().parse(), Ok(source));
        }
        for wrong in ["", "header:", "header:a b", "body:model", "Owner"] {
            assert_eq!(wrong.parse::<SessionSource>(), Err(UnknownSessionSource), "{wrong}");
        }
    }
}

//! The facts by which a turn is routed. They are its input, and do not depend on the transport of the request.

use http::HeaderName;

use crate::{
    endpoint::Endpoint,
    ids::{EncryptedContent, UpstreamId},
    state::Group,
};

/// The facts by which a turn is routed.
pub(in crate::proxy) struct TurnFacts<'a, H> {
    /// The group that the caller belongs to. It decides which upstreams and models the turn may use.
    pub group: &'a Group,
    /// The endpoint that the request calls.
    pub endpoint: Endpoint,
    /// The model that the request names.
    pub model: Option<&'a str>,
    /// The length of the request's body in bytes after decompression, or 0 if the body is not read before it is passed
    /// on. It stands for the length of the prompt: a session with a longer prompt waits longer for its own upstream,
    /// because another upstream would need longer to read it, and the pin follows the longest conversation of a session.
    pub body_bytes: u64,
    /// The facts about the session in the request.
    pub session: SessionFacts<'a, H>,
    /// The state at an upstream that the request refers to.
    pub named_state: NamedState<'a>,
}

/// The facts about the session in a request.
pub(in crate::proxy) struct SessionFacts<'a, H> {
    /// The body's `prompt_cache_key`.
    pub prompt_cache_key: Option<&'a str>,
    /// The body's `client_metadata.session_id`.
    pub session_id: Option<&'a str>,
    /// Returns the value of a header, if the header is there exactly once and its value is UTF-8.
    pub header: H,
    /// The first bytes of the body's `instructions`; empty if there is none.
    pub instructions: &'a [u8],
    /// The first bytes of the body's `input`; empty if there is none.
    pub input: &'a [u8],
}

/// The state at an upstream that a request refers to. Only the organization that made the state has it. A turn can go on
/// without its turn state, but not without any other state.
#[derive(Clone, Copy, Default)]
pub(in crate::proxy) struct NamedState<'a> {
    /// The response id in the path.
    pub response_in_path: Option<&'a str>,
    /// The body's `previous_response_id`.
    pub previous_response: Option<&'a str>,
    /// The upstream that issued the turn state that the request returns.
    pub turn_state_issuer: Option<UpstreamId>,
    /// The encrypted items in the body's `input`, in their order.
    pub encrypted: &'a [EncryptedContent],
}

/// A function that looks a request's header up; see [`SessionFacts::header`].
pub(in crate::proxy) trait HeaderLookup<'a>: Fn(&HeaderName) -> Option<&'a str> {}

impl<'a, F: Fn(&HeaderName) -> Option<&'a str>> HeaderLookup<'a> for F {}

//! The facts by which a turn is routed. They are its input, and do not depend on the transport of the request.

use http::HeaderName;

use crate::{
    body_path::BodyTexts,
    endpoint::Endpoint,
    ids::{ContentDigest, EncryptedContent, ObjectId, UpstreamId},
    scan::{NamedObject, ReferenceKind},
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
    /// The length of the prompt in bytes of text: the length of the body after decompression, in which each image,
    /// recording or file counts like as much text as it costs tokens. 0 if the body is not read before it is passed on. A session
    /// with a longer prompt waits longer for its own upstream, because another upstream would need longer to read it, and
    /// the pin follows the longest conversation of a session.
    pub prompt_bytes: u64,
    /// The facts about the session in the request.
    pub session: SessionFacts<'a, H>,
    /// The state at an upstream that the request refers to.
    pub named_state: NamedState<'a>,
}

/// The facts about the session in a request.
pub(in crate::proxy) struct SessionFacts<'a, H> {
    /// The texts in the body at the paths of the snapshot.
    pub texts: &'a BodyTexts,
    /// Returns the value of a header, if the header is there exactly once and its value is UTF-8.
    pub header: H,
    /// The beginning of the conversation.
    pub content: Option<ContentDigest>,
}

/// The state at an upstream that a request refers to. Only the organization that made the state has it. A turn can go on
/// without its turn state, but not without any other state.
#[derive(Clone, Copy, Default)]
pub(in crate::proxy) struct NamedState<'a> {
    /// The object in the path.
    pub in_path: Option<ObjectId>,
    /// The objects that the body names.
    pub in_body: &'a [NamedObject],
    /// The upstream that issued the turn state that the request returns.
    pub turn_state_issuer: Option<UpstreamId>,
    /// The encrypted items in the body's `input`, in their order.
    pub encrypted: &'a [EncryptedContent],
}

impl NamedState<'_> {
    /// Whether the upstream has the beginning of the conversation, so that the body is only its end.
    pub fn continues_stored_conversation(&self) -> bool {
        let is_stored = |object: &NamedObject| match object.kind {
            ReferenceKind::PreviousResponse | ReferenceKind::Conversation => true,
            ReferenceKind::Container
            | ReferenceKind::VectorStore
            | ReferenceKind::File
            | ReferenceKind::Item
            | ReferenceKind::ComparedResponse => false,
        };
        self.in_body.iter().any(is_stored)
    }
}

/// A function that looks a request's header up; see [`SessionFacts::header`].
pub(in crate::proxy) trait HeaderLookup<'a>: Fn(&HeaderName) -> Option<&'a str> {}

impl<'a, F: Fn(&HeaderName) -> Option<&'a str>> HeaderLookup<'a> for F {}

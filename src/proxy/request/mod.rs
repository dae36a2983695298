//! What may come in, and what it says: the head of a request, the caller, the target, and the facts in its body.

pub(super) mod admit;
pub(super) mod caller;
pub(super) mod headers;
pub(super) mod host;
pub(super) mod inspect;
pub(super) mod target;

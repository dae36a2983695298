//! Part of the second stage: refuses a field that names a session or an object, and whose value has another type than the
//! API defines.
//!
//! Every upstream of the API refuses such a value as well, but only after Steadfast has chosen the upstream without it. The
//! fields are checked at the endpoints whose API defines them. At any other endpoint a field of the same name is data.

use crate::{
    endpoint::Endpoint,
    fault::Fault,
    proxy::request::{admit::Admitted, inspect::Inspected, target::RequestTarget},
    scan::TypedField,
};

/// A field, its name, and the type that it must have.
type FieldType = (TypedField, &'static str, &'static str);

const PREVIOUS_RESPONSE_ID: FieldType = (TypedField::PreviousResponseId, "previous_response_id", "a string");
const CONVERSATION: FieldType = (
    TypedField::Conversation,
    "conversation",
    "a string, or an object with a string 'id'",
);
const PROMPT_CACHE_KEY: FieldType = (TypedField::PromptCacheKey, "prompt_cache_key", "a string");

/// Checks the types of the fields in the request's body.
///
/// # Errors
/// [`Fault::InvalidType`] for the first field of another type.
#[inline]
pub(in crate::proxy) fn check(admitted: &Admitted<'_>, inspected: &Inspected) -> Result<(), Fault> {
    let mistyped = inspected.facts.mistyped;
    if mistyped.is_empty() {
        return Ok(());
    }
    let mut fields = fields_of(&admitted.target).iter();
    match fields.find(|(field, ..)| mistyped.contains(*field)) {
        None => Ok(()),
        Some(&(_, field, expected)) => Err(Fault::InvalidType { field, expected }),
    }
}

/// The fields that the API defines for the body of a request to this target.
fn fields_of(target: &RequestTarget) -> &'static [FieldType] {
    match target.endpoint {
        Endpoint::Responses | Endpoint::Compact => &[PREVIOUS_RESPONSE_ID, CONVERSATION, PROMPT_CACHE_KEY],
        Endpoint::Response if target.counts_tokens() => &[PREVIOUS_RESPONSE_ID, CONVERSATION, PROMPT_CACHE_KEY],
        Endpoint::ChatCompletions => &[PROMPT_CACHE_KEY],
        _ => &[],
    }
}

//! Finds the fields that name a session or an object and whose values have another type than the API defines.
//!
//! An upstream refuses such a value, or takes another one for it: a number that names a response is not the response that
//! Steadfast would have looked up. Which endpoint has which field is decided later.

use super::facts::{MistypedFields, TypedField};

/// Checks the types of the values, as the visitor meets them.
#[derive(Default)]
pub(super) struct TypeReader {
    /// The field that the last key names, until its value begins.
    next: Option<NextValue>,
    /// The object `conversation` that is being read.
    conversation: Option<ConversationObject>,
}

/// The value that follows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NextValue {
    Of(TypedField),
    /// The `id` of the object `conversation`.
    ConversationId,
}

/// What is known about the object `conversation`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ConversationObject {
    WithoutId,
    WithId,
}

impl TypeReader {
    /// Visits a key of the root, or of an object in it.
    #[inline(always)]
    pub fn visit_key(&mut self, depth: u32, name: &[u8]) {
        if depth == 1 {
            self.next = match name {
                b"previous_response_id" => Some(NextValue::Of(TypedField::PreviousResponseId)),
                b"conversation" => Some(NextValue::Of(TypedField::Conversation)),
                b"prompt_cache_key" => Some(NextValue::Of(TypedField::PromptCacheKey)),
                _ => None,
            };
        } else if self.conversation.is_some() && depth == 2 && name == b"id" {
            self.next = Some(NextValue::ConversationId);
        }
    }

    /// Visits the beginning of a value.
    #[inline(always)]
    pub fn visit_value(&mut self, first: u8, mistyped: &mut MistypedFields) {
        if let Some(next) = self.next.take() {
            self.check(next, first, mistyped);
        }
    }

    fn check(&mut self, next: NextValue, first: u8, mistyped: &mut MistypedFields) {
        match (next, first) {
            (NextValue::Of(TypedField::Conversation), b'{') => {
                self.conversation = Some(ConversationObject::WithoutId);
            }
            // A value that begins with `n` is `null`; the scanner refuses any other.
            (NextValue::Of(_), b'"' | b'n') => {}
            (NextValue::Of(field), _) => mistyped.add(field),
            (NextValue::ConversationId, b'"') => self.conversation = Some(ConversationObject::WithId),
            (NextValue::ConversationId, _) => mistyped.add(TypedField::Conversation),
        }
    }

    /// Visits the end of a value.
    #[inline(always)]
    pub fn visit_value_end(&mut self, depth: u32, mistyped: &mut MistypedFields) {
        if depth == 1 && self.conversation.take() == Some(ConversationObject::WithoutId) {
            mistyped.add(TypedField::Conversation);
        }
    }
}

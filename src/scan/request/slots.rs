//! The fields of a request body that the visitor reads.

use super::{
    conversation::{Leaf, Part},
    facts::ReferenceKind,
    references::ReferenceSlot,
};
use crate::scan::field::RoutingField;

/// A field that the visitor reads.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestSlot {
    /// A text at a configured path, and nothing else.
    Path,
    /// `model`.
    Model,
    /// A member of the root that is `true` or `false`.
    Flag(RoutingField),
    /// A member of the root that contains the conversation.
    Part(Part),
    /// The `role` of an item of the conversation.
    Role,
    /// A text of the conversation.
    Leaf(Leaf),
    /// Members of an item that do not belong to the conversation, because they come and go.
    Skipped,
    /// The name of an object, or what belongs to it.
    Reference(ReferenceSlot),
}

/// How a key is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyForm {
    Plain,
    /// With escapes, as no JSON writer writes it.
    Escaped,
}

pub(super) fn slot_of_root(field: RoutingField) -> RequestSlot {
    match field {
        RoutingField::Model => RequestSlot::Model,
        RoutingField::Stream | RoutingField::Store | RoutingField::Background => RequestSlot::Flag(field),
        RoutingField::PreviousResponseId => {
            RequestSlot::Reference(ReferenceSlot::Name(ReferenceKind::PreviousResponse))
        }
        RoutingField::Conversation => RequestSlot::Reference(ReferenceSlot::Name(ReferenceKind::Conversation)),
        RoutingField::Instructions => RequestSlot::Part(Part::Instructions),
        RoutingField::System => RequestSlot::Part(Part::System),
        RoutingField::Input => RequestSlot::Part(Part::Input),
        RoutingField::Messages => RequestSlot::Part(Part::Messages),
        RoutingField::Path { .. } => RequestSlot::Path,
    }
}

//! Turns the facts of the oracle into those of the scanner.
//!
//! The fuzz target also includes this file, so the file takes the types from the module that includes it.

use super::{
    DigestBuilder, EncryptedContent, Item, Leaf, MediaTally, NamedObject, ObjectId, Part, ReferenceKind, RequestFacts,
    TypedField, oracle,
};

/// The facts that the scanner must return, without the place of the model.
pub fn facts_of(expected: oracle::ExpectedFacts) -> RequestFacts {
    let mut facts = RequestFacts {
        model: expected.model,
        stream: expected.stream,
        store: expected.store,
        background: expected.background,
        ..RequestFacts::default()
    };
    for (index, text) in expected.texts.into_iter().enumerate() {
        text.into_iter().for_each(|text| facts.texts.set(index, text));
    }
    let mut digest = DigestBuilder::default();
    for item in expected.items {
        let part = match item.part {
            "instructions" => Part::Instructions,
            "system" => Part::System,
            "input" => Part::Input,
            _ => Part::Messages,
        };
        let mut hashed = Item::default();
        item.role.iter().for_each(|role| hashed.set_role(role));
        for (is_media, position, raw) in item.texts {
            hashed.add_text(if is_media { Leaf::Media } else { Leaf::Text }, position, &raw);
        }
        digest.push(part, hashed);
    }
    facts.content = digest.finish();
    facts.encrypted = expected
        .encrypted
        .iter()
        .map(|text| EncryptedContent::from_text(text))
        .collect();
    let named = expected.named.iter().map(|(kind, id)| NamedObject {
        kind: reference_kind(kind),
        id: ObjectId::from_text(id.as_bytes()),
    });
    facts.named = named.collect();
    for name in expected.mistyped {
        facts.mistyped.add(match name {
            "previous_response_id" => TypedField::PreviousResponseId,
            "conversation" => TypedField::Conversation,
            _ => TypedField::PromptCacheKey,
        });
    }
    let [images, recordings, files, bytes] = expected.media;
    let count = |number| u32::try_from(number).unwrap();
    facts.media = MediaTally {
        images: count(images),
        recordings: count(recordings),
        files: count(files),
        bytes,
    };
    facts
}

fn reference_kind(name: &str) -> ReferenceKind {
    match name {
        "response" => ReferenceKind::PreviousResponse,
        "conversation" => ReferenceKind::Conversation,
        "container" => ReferenceKind::Container,
        "vector store" => ReferenceKind::VectorStore,
        "file" => ReferenceKind::File,
        "item" => ReferenceKind::Item,
        _ => ReferenceKind::ComparedResponse,
    }
}

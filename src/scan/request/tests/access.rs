//! The names of objects where they decide access.

use super::{rules_of, scan_all};
use crate::{
    ids::ObjectId,
    scan::{JsonError, JsonErrorKind, ReferenceSearch, RequestFacts},
};

fn read(body: &str) -> Result<RequestFacts, JsonError> {
    scan_all(body.as_bytes(), 0..=body.len(), rules_of(ReferenceSearch::Exhaustive))
}

#[test]
fn no_spelling_and_no_place_hides_a_name_that_decides_access() {
    for body in [
        r#"{"tools":[{"vector_store_ids":["mine","secret"]}]}"#,
        r#"{"tools":[{"Vector_Store_IDs":["secret"]}]}"#,
        r#"{"tools":[{"vector_\u0073tore_ids":["\u0073ecret"]}]}"#,
        "{\"tools\":[{\"vector_\u{17f}tore_ids\":[\"secret\"]}]}",
        r#"{"input":[[[[[[[[[[{"file_id":"secret"}]]]]]]]]]]}"#,
        r#"{"input":[{"file_id":"mine","file_id":"secret"}]}"#,
        r#"{"input":[{"file_id":"mine","FILE_ID":"secret"}]}"#,
        r#"{"input":[{"id":"secret","type":"item_\u0072eference"}]}"#,
        r#"{"input":[{"type":"item_reference","type":"message","ID":"secret"}]}"#,
        r#"{"input":[{"type":"message","id":"secret","type":"item_reference"}]}"#,
        r#"{"conversation":{"ID":"secret"}}"#,
        r#"{"tools":[{"container":"secret"},{"container":{"type":"auto","file_ids":["mine"]}}]}"#,
        r#"{"data_source":{"source":{"type":"file_id","id":"secret"}}}"#,
    ] {
        let named = read(body).expect(body).named;
        let secret = ObjectId::from_text(b"secret");
        assert!(named.iter().any(|object| object.id == secret), "{body}: {named:?}");
    }
}

#[test]
fn two_names_that_parsers_read_differently_are_refused() {
    for (body, kind) in [
        (
            r#"{"conversation":{"id":"mine","Id":"secret"}}"#,
            JsonErrorKind::DuplicateReference,
        ),
        (
            r#"{"input":[{"type":"item_reference","id":"mine","i\u0064":"secret"}]}"#,
            JsonErrorKind::DuplicateReference,
        ),
    ] {
        assert_eq!(read(body).map_err(|error| error.kind), Err(kind), "{body}");
    }
}

#[test]
fn a_lone_surrogate_in_a_name_is_refused_at_its_own_byte() {
    for body in [
        r#"{"conversation":{"id":"ab\ud83d"}}"#,
        r#"{"input":[{"type":"item_reference","id":"ab\ud83d"}]}"#,
        r#"{"input":[{"file_id":"ab\ud83d"}]}"#,
        r#"{"tools":[{"vector_store_ids":["mine","ab\ud83d"]}]}"#,
    ] {
        let error = JsonError {
            kind: JsonErrorKind::LoneSurrogate,
            offset: body.find("\\ud83d").unwrap() as u64,
        };
        assert_eq!(read(body), Err(error), "{body}");
    }
}

#[test]
fn a_name_has_any_length_up_to_64_kib() {
    for (length, fits) in [(1, true), (65_536, true), (65_537, false)] {
        let id = "x".repeat(length);
        let body = format!(r#"{{"input":[{{"file_id":"{id}"}}]}}"#);
        let cuts = [20, length / 2, body.len() - 3].map(|cut| cut.min(body.len()));
        let facts = scan_all(body.as_bytes(), cuts, rules_of(ReferenceSearch::Exhaustive));
        match fits {
            true => assert_eq!(facts.unwrap().named[0].id, ObjectId::from_text(id.as_bytes())),
            false => assert_eq!(facts.unwrap_err().kind, JsonErrorKind::ReferenceTooLong),
        }
    }
}

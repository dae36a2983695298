//! The fields whose types are checked.

use super::check;
use crate::scan::TypedField;

#[test]
fn values_of_another_type_are_found_at_the_root_only() {
    use TypedField::{Conversation, PreviousResponseId, PromptCacheKey};
    for (body, expected) in [
        (r#"{"previous_response_id":5}"#, &[PreviousResponseId][..]),
        (
            r#"{"previous\u005fresponse_id" : {"id":"resp_1"}}"#,
            &[PreviousResponseId],
        ),
        (
            r#"{"conversation":7,"prompt_cache_key":[]}"#,
            &[Conversation, PromptCacheKey],
        ),
        (r#"{"conversation":{"id":7}}"#, &[Conversation]),
        (r#"{"conversation":{"Id":"conv_1"}}"#, &[Conversation]),
        (r#"{"conversation":{"x":{"id":"conv_1"}}}"#, &[Conversation]),
        (r#"{"conversation":{"x":1,"id":"conv_1"}}"#, &[]),
        (r#"{"conversation":{"i\u0064":"conv_1"}}"#, &[]),
        (
            r#"{"conversation":null,"previous_response_id":null,"prompt_cache_key":null}"#,
            &[],
        ),
        (
            r#"{"metadata":{"conversation":1,"prompt_cache_key":1},"tools":[{"previous_response_id":1}]}"#,
            &[],
        ),
    ] {
        let facts = check(body.as_bytes(), 0..body.len()).unwrap();
        for field in [PreviousResponseId, Conversation, PromptCacheKey] {
            assert_eq!(facts.mistyped.contains(field), expected.contains(&field), "{body}");
        }
        assert_eq!(facts.mistyped.is_empty(), expected.is_empty(), "{body}");
    }
}

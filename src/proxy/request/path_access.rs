//! Part of the first stage: decides whether the caller's group may call a path.
//!
//! A confined group may use only some models, or shares its upstream accounts with other groups. It may call only paths
//! whose effect Steadfast can check. On such a path the request's body names the model, and the request reads and
//! changes only the data that it carries or names, or it creates an object. If the accounts are shared, a later check
//! refuses objects that another group has made. Everything else that an account holds (lists of objects, batches,
//! fine-tuned models) belongs to all groups that use the account.

use http::Method;

use crate::{
    endpoint::ConfinedAccess,
    fault::Fault,
    proxy::{request::target::RequestTarget, text::truncated},
    state::Group,
};

/// Whether a group may call only paths whose effect can be checked.
fn is_confined(group: &Group) -> bool {
    group.shares_accounts || !group.models.is_all()
}

/// Checks that `group` may call a path with this method. Which model the request may use is checked later, see
/// [`model_access`](super::model_access).
///
/// # Errors
/// If the group is confined and the effect of the request cannot be checked.
pub(in crate::proxy) fn check(group: &Group, method: &Method, target: &RequestTarget) -> Result<(), Fault> {
    if !is_confined(group) || is_checkable(method, target) {
        return Ok(());
    }
    Err(Fault::PathForbidden {
        path: format!("{method} {}", truncated(target.tail())),
        why: match group.shares_accounts {
            true => {
                "the request could reach objects of other groups in the same upstream accounts. Ask the operator of this gateway \
                 for a group with upstream accounts of its own"
            }
            false => {
                "Steadfast cannot tell which model the request would use. Ask the operator of this gateway for a group that \
                 may use every model"
            }
        },
    })
}

/// Whether the effect of a request can be checked.
fn is_checkable(method: &Method, target: &RequestTarget) -> bool {
    let is_post = method == Method::POST;
    match target.endpoint.confined_access() {
        ConfinedAccess::Post => is_post,
        ConfinedAccess::Get => method == Method::GET,
        ConfinedAccess::NamedResponse => target.is_of_response(method) || is_post && target.counts_tokens(),
        ConfinedAccess::NamedObject => {
            is_post && is_stateless(target.tail()) || target.object_path().is_separable(method)
        }
    }
}

/// Whether the path is one of those that read and change nothing that is stored, and whose requests name their model.
fn is_stateless(tail: &str) -> bool {
    matches!(
        tail,
        "/moderations"
            | "/rerank"
            | "/images/generations"
            | "/images/edits"
            | "/images/variations"
            | "/audio/speech"
            | "/audio/transcriptions"
            | "/audio/translations"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::request::{
        kit::{self, GROUPS},
        target,
    };

    fn checked(group: &str, method: &Method, path: &str) -> Result<(), Fault> {
        let snapshot = kit::snapshot(GROUPS);
        let group = snapshot.access.group(Some(group)).expect("a group");
        let target = target::read(method, &path.parse().expect("a URI")).expect("a target");
        check(group, method, &target)
    }

    #[test]
    fn a_confined_group_may_call_only_checkable_paths() {
        for (method, path, is_allowed) in [
            (Method::POST, "/v1/responses", true),
            (Method::GET, "/v1/responses", false),
            (Method::POST, "/v1/responses/compact", true),
            (Method::POST, "/v1/chat/completions", true),
            (Method::GET, "/v1/chat/completions", false),
            (Method::POST, "/v1/embeddings", true),
            (Method::GET, "/v1/responses/r-1", true),
            (Method::DELETE, "/v1/responses/r-1", true),
            (Method::POST, "/v1/responses/r-1", false),
            (Method::POST, "/v1/responses/r-1/cancel", true),
            (Method::GET, "/v1/responses/r-1/input_items", true),
            (Method::GET, "/v1/responses/r-1/other", false),
            (Method::POST, "/v1/responses/input_tokens", true),
            (Method::GET, "/v1/responses/input_tokens", false),
            (Method::GET, "/v1/models", true),
            (Method::GET, "/v1/models/m", true),
            (Method::DELETE, "/v1/models/m", false),
            (Method::POST, "/v1/moderations", true),
            (Method::POST, "/v1/audio/speech", true),
            (Method::GET, "/v1/moderations", false),
            (Method::POST, "/v1/files", true),
            (Method::GET, "/v1/files", false),
            (Method::GET, "/v1/files/file-1/content", true),
            (Method::DELETE, "/v1/vector_stores/vs_1", true),
            (Method::POST, "/v1/vector_stores/vs_1/search", true),
            (Method::POST, "/v1/conversations", true),
            (Method::GET, "/v1/conversations/conv_1/items", true),
            (Method::POST, "/v1/containers", true),
            (Method::POST, "/v1/uploads/upload_1/complete", true),
            (Method::GET, "/v1/vector_stores", false),
            (Method::POST, "/v1/batches", false),
            (Method::GET, "/v1/batches/batch_1", false),
            (Method::POST, "/v1/fine_tuning/jobs", false),
            (Method::POST, "/v1/evals/eval_1/runs", false),
            (Method::POST, "/v1/assistants", false),
            (Method::GET, "/v1/organization/projects/proj_1", false),
            (Method::GET, "/v1/chat/completions/chatcmpl-1", false),
        ] {
            for group in ["shared", "models"] {
                assert_eq!(
                    checked(group, &method, path).is_ok(),
                    is_allowed,
                    "{group}: {method} {path}"
                );
            }
            assert_eq!(checked("alone", &method, path), Ok(()), "{method} {path}");
        }
    }

    #[test]
    fn the_fault_names_the_path_and_the_reason() {
        let why = |group| match checked(group, &Method::GET, "/v1/files?limit=1") {
            Err(Fault::PathForbidden { path, why }) if path == "GET /files" => why,
            other => panic!("{group}: {other:?}"),
        };
        assert!(why("shared").contains("other groups"));
        assert!(why("models").contains("which model"));
    }
}

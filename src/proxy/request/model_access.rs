//! Part of the second stage: decides whether the caller's group may use the model that a request names.

use http::{HeaderMap, HeaderValue, header::CONTENT_TYPE};

use crate::proxy::{
    request::{admit::Admitted, inspect::Inspected},
    text::truncated,
};
use crate::{fault::Fault, state::Snapshot, wire::Framing};

/// Checks that the caller's group may use the model that the request's body names, which is the one that an upstream will
/// read.
///
/// # Errors
/// If the group may not use the model, if it may use only some models and the model cannot be read, or if an unread
/// body could name an object of another group.
pub(in crate::proxy) fn check(
    snapshot: &Snapshot,
    admitted: &Admitted<'_>,
    inspected: &Inspected,
) -> Result<(), Fault> {
    let (group, target) = (admitted.caller.group, &admitted.target);
    if target.is_of_response(&admitted.method) || !target.endpoint.runs_model() {
        return Ok(());
    }
    let is_inspected = admitted.is_inspected();
    if !is_inspected && may_hide_object(admitted) {
        return Err(Fault::PathForbidden {
            path: format!("{} {}", admitted.method, truncated(target.tail())),
            why: "Steadfast cannot read the body of this request, and it could name an object of another group. Send the \
                  body as JSON, uncompressed",
        });
    }
    if group.models.is_all() || target.object_path().is_separable(&admitted.method) {
        return Ok(());
    }
    if !is_inspected {
        let problem = "Steadfast cannot read the body of this request";
        return Err(Fault::ModelUnreadable { problem });
    }
    match &inspected.facts.model {
        Some(model) if group.models.matches(model) => Ok(()),
        Some(model) => Err(Fault::ModelForbidden {
            model: truncated(model),
            allowed: snapshot.models_of(group),
        }),
        None => {
            let problem = "this request names no model";
            Err(Fault::ModelUnreadable { problem })
        }
    }
}

/// Whether a body that is not inspected may name an object of another group. The form with the content of a new file names
/// none.
fn may_hide_object(admitted: &Admitted<'_>) -> bool {
    let path = admitted.target.object_path();
    admitted.caller.group.shares_accounts
        && admitted.framing != Framing::None
        && admitted.target.endpoint.names_objects()
        && !path.refers_to_nothing()
        && !(path.takes_content() && is_form(&admitted.headers))
}

/// Whether every upstream reads the body as a form.
fn is_form(headers: &HeaderMap) -> bool {
    const FORM: &[u8] = b"multipart/form-data";
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let is_named = |value: &HeaderValue| {
        let start = value.as_bytes().get(..FORM.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(FORM))
    };
    types.next().is_some_and(is_named) && types.next().is_none()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{
        proxy::request::kit::{self, GROUPS},
        scan::RequestFacts,
        wire::Replay,
    };

    /// The result of the check for a request with this key, head and model.
    fn code(key: &str, head: (&str, &str, &str), framing: Framing, model: Option<&str>) -> Option<&'static str> {
        let (method, path, coding) = head;
        let snapshot = kit::snapshot(GROUPS);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "h")
            .header("x-api-key", key)
            .header("content-encoding", coding)
            .body(())
            .expect("a request");
        let admitted = kit::admit(&snapshot, request, framing).expect("an admitted request");
        let inspected = Inspected {
            facts: RequestFacts {
                model: model.map(str::to_owned),
                ..RequestFacts::default()
            },
            body: Replay::empty(framing),
            decompressed: 0,
        };
        check(&snapshot, &admitted, &inspected).err().map(|fault| fault.code())
    }

    const BODY: Framing = Framing::Length(2);

    #[test]
    fn a_group_may_use_its_models_only() {
        let responses = ("POST", "/v1/responses", "identity");
        for (key, model, expected) in [
            ("key-models", Some("gpt-5-mini"), None),
            ("key-models", Some("gpt-4"), Some("model_not_allowed")),
            ("key-models", None, Some("model_unreadable")),
            ("key-alone", Some("gpt-4"), None),
            ("key-alone", None, None),
            ("key-shared", None, None),
        ] {
            assert_eq!(code(key, responses, BODY, model), expected, "{key} {model:?}");
        }
    }

    #[test]
    fn a_body_that_cannot_be_read_is_refused_if_its_content_decides_access() {
        for (key, path, framing, expected) in [
            ("key-alone", "/v1/responses", BODY, None),
            ("key-models", "/v1/responses", BODY, Some("model_unreadable")),
            ("key-models", "/v1/moderations", BODY, Some("model_unreadable")),
            ("key-shared", "/v1/responses", BODY, Some("path_not_allowed")),
            (
                "key-shared",
                "/v1/responses/input_tokens",
                BODY,
                Some("path_not_allowed"),
            ),
            ("key-shared", "/v1/responses", Framing::None, None),
            ("key-shared", "/v1/chat/completions", BODY, Some("path_not_allowed")),
            ("key-shared", "/v1/moderations", BODY, None),
            ("key-shared", "/v1/embeddings", BODY, None),
            ("key-shared", "/v1/vector_stores", BODY, Some("path_not_allowed")),
            ("key-shared", "/v1/vector_stores/vs_1", Framing::None, None),
            ("key-models", "/v1/vector_stores", BODY, None),
        ] {
            let head = ("POST", path, "unheard-of");
            assert_eq!(code(key, head, framing, None), expected, "{key} {path} {framing:?}");
        }
    }

    #[test]
    fn a_form_may_carry_the_content_of_a_new_file() {
        let snapshot = kit::snapshot(GROUPS);
        for (path, content_type, is_allowed) in [
            ("/v1/files", "multipart/form-data; boundary=x", true),
            ("/v1/files", "Multipart/Form-Data; boundary=x", true),
            ("/v1/uploads/upload_1/parts", "multipart/form-data; boundary=x", true),
            ("/v1/images/edits", "multipart/form-data; boundary=x", true),
            ("/v1/files", "text/plain", false),
            ("/v1/files", "", false),
            ("/v1/containers/cntr_1/files", "multipart/form-data; boundary=x", false),
            ("/v1/vector_stores", "multipart/form-data; boundary=x", false),
        ] {
            let request = Request::post(path)
                .header("host", "h")
                .header("x-api-key", "key-shared");
            let request = request
                .header("content-type", content_type)
                .body(())
                .expect("a request");
            let admitted = kit::admit(&snapshot, request, BODY).expect("an admitted request");
            assert_eq!(may_hide_object(&admitted), !is_allowed, "{path} {content_type}");
        }
    }

    #[test]
    fn requests_that_run_no_model_need_none() {
        for head in [
            ("POST", "/v1/conversations", "identity"),
            ("GET", "/v1/files/file-1", "identity"),
            ("GET", "/v1/models", "identity"),
            ("GET", "/v1/responses/r-1", "identity"),
            ("POST", "/v1/responses/r-1/cancel", "identity"),
        ] {
            assert_eq!(code("key-models", head, Framing::None, None), None, "{head:?}");
        }
    }
}

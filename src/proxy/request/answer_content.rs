//! Tells from a request what its answer contains.

use http::Method;

use super::target::RequestTarget;
use crate::{endpoint::Endpoint, proxy::turn::answer_content::AnswerContent};

/// The content of the answer to a request with this method and target. `store` is that field of its body.
pub(in crate::proxy) fn answer_content(method: &Method, target: &RequestTarget, store: Option<bool>) -> AnswerContent {
    let is_post = *method == Method::POST;
    match target.endpoint {
        Endpoint::Models | Endpoint::Images | Endpoint::Audio | Endpoint::Administration => AnswerContent::Nothing,
        // What has been deleted is not there any more.
        _ if *method == Method::DELETE || *method == Method::HEAD => AnswerContent::Nothing,
        Endpoint::Other if is_content(target) => AnswerContent::Nothing,
        Endpoint::Other => AnswerContent::Object,
        Endpoint::Response if target.is_of_response(method) && !target.tail().ends_with("/input_items") => {
            AnswerContent::EarlierResponse
        }
        Endpoint::Response
        | Endpoint::Responses
        | Endpoint::Compact
        | Endpoint::ChatCompletions
        | Endpoint::Messages
        | Endpoint::Embeddings
            if !is_post =>
        {
            AnswerContent::Nothing
        }
        Endpoint::Response if target.counts_tokens() => AnswerContent::Nothing,
        Endpoint::Response => AnswerContent::Object,
        Endpoint::Responses | Endpoint::Compact => AnswerContent::NewResponse,
        Endpoint::ChatCompletions if store == Some(true) => AnswerContent::StoredResult,
        Endpoint::ChatCompletions | Endpoint::Messages | Endpoint::Embeddings => AnswerContent::Result,
    }
}

/// Whether the answer is the content of a file and not an object: `/files/{id}/content` and the like.
fn is_content(target: &RequestTarget) -> bool {
    target.tail().split('/').any(|segment| segment == "content")
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::*;
    use crate::proxy::request::target;

    #[test]
    fn the_content_of_an_answer_follows_from_its_request() {
        use AnswerContent::{EarlierResponse, NewResponse, Nothing, Object, Result, StoredResult};
        for (method, path, store, expected) in [
            (Method::POST, "/v1/responses", None, NewResponse),
            (Method::POST, "/v1/responses", Some(false), NewResponse),
            (Method::POST, "/v1/responses/compact", None, NewResponse),
            (Method::GET, "/v1/responses", None, Nothing),
            (Method::GET, "/v1/responses/resp_1", None, EarlierResponse),
            (Method::GET, "/v1/responses/resp_1?stream=true", None, EarlierResponse),
            (Method::POST, "/v1/responses/resp_1/cancel", None, EarlierResponse),
            (Method::DELETE, "/v1/responses/resp_1", None, Nothing),
            (Method::GET, "/v1/responses/resp_1/input_items", None, Nothing),
            (Method::POST, "/v1/responses/input_tokens", None, Nothing),
            (Method::POST, "/v1/chat/completions", None, Result),
            (Method::POST, "/v1/chat/completions", Some(false), Result),
            (Method::POST, "/v1/chat/completions", Some(true), StoredResult),
            (Method::GET, "/v1/chat/completions", None, Nothing),
            (Method::GET, "/v1/chat/completions/chatcmpl-1", None, Object),
            (Method::POST, "/v1/messages", None, Result),
            (Method::POST, "/v1/embeddings", None, Result),
            (Method::POST, "/v1/conversations", None, Object),
            (Method::POST, "/v1/files", None, Object),
            (Method::GET, "/v1/batches/batch_1", None, Object),
            (Method::DELETE, "/v1/files/file-1", None, Nothing),
            (Method::GET, "/v1/files/file-1/content", None, Nothing),
            (Method::GET, "/v1/containers/c/files/f/content", None, Nothing),
            (Method::POST, "/v1/images/generations", None, Nothing),
            (Method::POST, "/v1/audio/transcriptions", None, Nothing),
            (Method::GET, "/v1/models", None, Nothing),
            (Method::POST, "/v1/organization/projects", None, Nothing),
        ] {
            let target = target::read(&method, &Uri::from_static(path)).expect("a known path");
            let content = answer_content(&method, &target, store);
            assert_eq!(content, expected, "{method} {path} {store:?}");
        }
    }
}

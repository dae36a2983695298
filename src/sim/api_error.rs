//! The errors of the simulated account, with the texts and the shape of OpenAI's errors.

use http::StatusCode;
use serde_json::{Value, json};

/// An error response.
#[derive(Debug, PartialEq)]
pub(super) struct ApiError {
    pub status: StatusCode,
    body: Value,
}

impl ApiError {
    fn new(status: StatusCode, message: impl Into<String>, param: Option<&str>, code: Option<&str>) -> Self {
        let error = json!({"message": message.into(), "type": "invalid_request_error", "param": param, "code": code});
        Self {
            status,
            body: json!({"error": error}),
        }
    }

    /// Returns the JSON body.
    pub(super) fn json(&self) -> &Value {
        &self.body
    }

    fn bad(message: impl Into<String>, param: Option<&str>, code: Option<&str>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message, param, code)
    }

    pub(super) fn no_key() -> Self {
        let message = "You didn't provide an API key. You need to provide your API key in an Authorization header using \
                       Bearer auth (i.e. Authorization: Bearer YOUR_KEY).";
        Self::new(StatusCode::UNAUTHORIZED, message, None, None)
    }

    pub(super) fn wrong_key() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "Incorrect API key provided.",
            None,
            Some("invalid_api_key"),
        )
    }

    pub(super) fn unknown_path(method: &http::Method, path: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            format!("Invalid URL ({method} {path})"),
            None,
            None,
        )
    }

    pub(super) fn wrong_method(method: &http::Method, path: &str) -> Self {
        let message =
            format!("Not allowed to {method} on {path}. (HINT: Perhaps you meant to use a different HTTP method?)");
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            message,
            None,
            Some("method_not_supported"),
        )
    }

    pub(super) fn not_json(problem: &str) -> Self {
        let message = format!("We could not parse the JSON body of your request. ({problem})");
        Self::bad(message, None, None)
    }

    pub(super) fn undecodable(encoding: &str) -> Self {
        Self::bad(
            format!("The request body is not valid {encoding}."),
            None,
            Some("invalid_content_encoding"),
        )
    }

    pub(super) fn unknown_encoding(encoding: &str) -> Self {
        let message = format!("Unsupported content encoding: '{encoding}'.");
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            message,
            None,
            Some("unsupported_content_encoding"),
        )
    }

    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("The request body is larger than {limit} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message, None, Some("request_too_large"))
    }

    pub(super) fn broken_body() -> Self {
        Self::bad("The request body ended before it was complete.", None, None)
    }

    pub(super) fn missing(param: &str) -> Self {
        let message = format!("Missing required parameter: '{param}'.");
        Self::bad(message, Some(param), Some("missing_required_parameter"))
    }

    pub(super) fn wrong_type(param: &str, expected: &str) -> Self {
        let message = format!("Invalid type for '{param}': expected {expected}.");
        Self::bad(message, Some(param), Some("invalid_type"))
    }

    pub(super) fn unknown_model(model: &str) -> Self {
        let message = format!("The model `{model}` does not exist or you do not have access to it.");
        Self::new(StatusCode::NOT_FOUND, message, Some("model"), Some("model_not_found"))
    }

    /// An error for a parameter with an invalid value.
    pub(super) fn invalid(param: &str, rule: &str) -> Self {
        Self::bad(
            format!("Invalid '{param}': {rule}."),
            Some(param),
            Some("invalid_value"),
        )
    }

    /// An error for two parameters that cannot stand together.
    pub(super) fn exclusive(one: &str, other: &str) -> Self {
        let message = format!(
            "Mutually exclusive parameters: '{one}' and '{other}'. Ensure you are only providing one of: '{one}' or \
             '{other}'."
        );
        Self::bad(message, Some(one), Some("mutually_exclusive_parameters"))
    }

    pub(super) fn not_a_form(problem: &str) -> Self {
        let message = format!("We could not parse your request as multipart/form-data. ({problem})");
        Self::bad(message, None, None)
    }

    fn not_found(message: String, param: Option<&str>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message, param, None)
    }

    pub(super) fn unknown_response(id: &str) -> Self {
        Self::not_found(format!("Response with id '{id}' not found."), None)
    }

    pub(super) fn unknown_conversation(id: &str) -> Self {
        Self::not_found(format!("Conversation with id '{id}' not found."), None)
    }

    pub(super) fn unknown_conversation_item(conversation: &str, id: &str) -> Self {
        let message = format!("Item with id '{id}' not found in conversation with id '{conversation}'.");
        Self::not_found(message, None)
    }

    pub(super) fn unknown_item(id: &str) -> Self {
        let message = format!(
            "Item with id '{id}' not found. Items are not persisted when `store` is set to false. Try again with \
             `store` set to true, or remove this item from your input."
        );
        Self::not_found(message, Some("input"))
    }

    pub(super) fn unknown_file(id: &str) -> Self {
        Self::not_found(format!("No such File object: {id}"), Some("id"))
    }

    pub(super) fn unknown_upload(id: &str) -> Self {
        Self::not_found(format!("No upload found with id '{id}'."), None)
    }

    pub(super) fn unknown_vector_store(id: &str) -> Self {
        Self::not_found(format!("Vector store with id '{id}' not found."), None)
    }

    pub(super) fn unknown_store_file(store: &str, id: &str) -> Self {
        let message = format!("No file found with id '{id}' in vector store '{store}'.");
        Self::not_found(message, None)
    }

    pub(super) fn unknown_file_batch(id: &str) -> Self {
        Self::not_found(format!("No file batch found with id '{id}'."), None)
    }

    pub(super) fn unknown_container(id: &str) -> Self {
        Self::not_found(format!("Container with id '{id}' not found."), None)
    }

    pub(super) fn unknown_container_file(container: &str, id: &str) -> Self {
        Self::not_found(format!("File {id} not found on container {container}."), None)
    }

    pub(super) fn unknown_batch(id: &str) -> Self {
        Self::not_found(format!("No batch found with id '{id}'."), None)
    }

    pub(super) fn unknown_tuning_job(id: &str) -> Self {
        let (param, code) = (Some("fine_tune_id"), Some("fine_tune_not_found"));
        Self::new(
            StatusCode::NOT_FOUND,
            format!("Could not find fine tune: {id}"),
            param,
            code,
        )
    }

    pub(super) fn unknown_eval(id: &str) -> Self {
        Self::not_found(format!("Eval with id '{id}' not found."), None)
    }

    pub(super) fn unknown_run(id: &str) -> Self {
        Self::not_found(format!("Eval run with id '{id}' not found."), None)
    }

    pub(super) fn unknown_completion(id: &str) -> Self {
        Self::not_found(format!("Chat completion with id '{id}' not found."), None)
    }

    pub(super) fn unknown_previous_response(id: &str) -> Self {
        let message = format!("Previous response with id '{id}' not found.");
        Self::bad(
            message,
            Some("previous_response_id"),
            Some("previous_response_not_found"),
        )
    }

    pub(super) fn foreign_encrypted_content() -> Self {
        let message = "The encrypted content could not be verified. Reason: Encrypted content organization_id did not match \
                       the target organization.";
        Self::bad(message, None, Some("invalid_encrypted_content"))
    }

    pub(super) fn foreign_turn_state() -> Self {
        let message = "The x-codex-turn-state header was not issued by this account.";
        Self::bad(message, None, Some("invalid_turn_state"))
    }

    pub(super) fn websocket() -> Self {
        let message = "This account does not support WebSocket. Send a POST request with \"stream\": true instead.";
        Self::new(
            StatusCode::UPGRADE_REQUIRED,
            message,
            None,
            Some("websocket_unsupported"),
        )
    }
}

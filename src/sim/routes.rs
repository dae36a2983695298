//! The table of requests: which answer belongs to which method and path.

use http::header::{AUTHORIZATION, HeaderName, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::Value;

use super::account::Account;
use super::api::ParsedRequest;
use super::api_error::ApiError;
use super::catalog;
use super::outgoing::SimResponse;
use super::responses::model_of;

/// The credential of a request to Anthropic's API.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// The answer to a request, or `None` if the table has no entry for it.
type TableAnswer = Option<Result<SimResponse, ApiError>>;

impl Account {
    /// Answers one request.
    pub(super) fn answer(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        self.authorize(&call.head.headers)?;
        let head = call.head;
        let (method, path) = (head.method.as_str(), head.path());
        let unknown = || ApiError::unknown_path(&head.method, path);
        let rest = path.strip_prefix("/v1/").ok_or_else(unknown)?;
        let segments: Vec<&str> = rest.split('/').collect();
        let found = match segments.as_slice() {
            ["responses", rest @ ..] => self.responses_route(call, method, rest),
            ["models", ..] => self.models_route(&call, rest.strip_prefix("models").unwrap_or_default()),
            ["chat", "completions", rest @ ..] => self.chat_route(call, method, rest),
            ["messages", rest @ ..] => self.messages_route(call, method, rest),
            ["embeddings"] if method == "POST" => Some(self.embed(call)),
            ["audio", "transcriptions" | "translations"] if method == "POST" => Some(self.transcribe(&call)),
            ["images", "edits" | "variations"] if method == "POST" => Some(self.edit_image(&call)),
            ["images", "generations"] if method == "POST" => Some(self.draw_image(call)),
            ["embeddings"]
            | ["audio", "transcriptions" | "translations"]
            | ["images", "edits" | "variations" | "generations"] => None,
            ["conversations", rest @ ..] => self.conversations_route(call, method, rest),
            ["files", rest @ ..] => self.files_route(&call, method, rest),
            ["uploads", rest @ ..] => self.uploads_route(call, method, rest),
            ["vector_stores", rest @ ..] => self.vector_stores_route(call, method, rest),
            ["containers", rest @ ..] => self.containers_route(call, method, rest),
            ["batches", rest @ ..] => self.batches_route(call, method, rest),
            ["fine_tuning", "jobs", rest @ ..] => self.tuning_route(call, method, rest),
            ["evals", rest @ ..] => self.evals_route(call, method, rest),
            _ => return Err(unknown()),
        };
        found.unwrap_or_else(|| Err(ApiError::wrong_method(&head.method, path)))
    }

    fn responses_route(&self, call: ParsedRequest<'_>, method: &str, rest: &[&str]) -> TableAnswer {
        Some(match (method, rest) {
            ("POST", []) => self.respond(call),
            ("GET", []) if call.head.headers.contains_key(UPGRADE) => Err(ApiError::websocket()),
            ("POST", ["compact"]) => self.compact(call),
            ("GET", [id]) => self.response(call.head, id),
            ("DELETE", [id]) => self.delete_response(id),
            ("POST", [id, "cancel"]) => self.cancel_response(id),
            ("GET", [id, "input_items"]) => self.input_items(call.head, id),
            (_, [] | [_] | [_, "cancel" | "input_items"]) => return None,
            _ => Err(ApiError::unknown_path(&call.head.method, call.head.path())),
        })
    }

    /// Answers requests for models. The names of models may contain slashes.
    fn models_route(&self, call: &ParsedRequest<'_>, rest: &str) -> TableAnswer {
        if call.head.method != Method::GET {
            return None;
        }
        let models = &self.config.models;
        Some(Ok(match rest.strip_prefix('/') {
            Some(id) => match models.iter().find(|known| *known == id) {
                Some(known) => SimResponse::json(StatusCode::OK, &catalog::model(known)),
                None => return Some(Err(ApiError::unknown_model(id))),
            },
            None if call.head.query().contains("client_version=") => {
                SimResponse::json(StatusCode::OK, &catalog::codex_list(models))
            }
            None => SimResponse::json(StatusCode::OK, &catalog::list(models)),
        }))
    }

    fn chat_route(&self, call: ParsedRequest<'_>, method: &str, rest: &[&str]) -> TableAnswer {
        Some(match (method, rest) {
            ("POST", []) => self.chat(call),
            ("GET", []) => self.list_completions(call.head),
            ("GET", [id]) => self.completion(id),
            ("POST", [id]) => self.update_completion(call, id),
            ("DELETE", [id]) => self.delete_completion(id),
            ("GET", [id, "messages"]) => self.completion_messages(call.head, id),
            _ => return None,
        })
    }

    fn messages_route(&self, call: ParsedRequest<'_>, method: &str, rest: &[&str]) -> TableAnswer {
        Some(match (method, rest) {
            ("POST", []) => self.message(call),
            ("POST", ["count_tokens"]) => self.count_tokens(call),
            _ => return None,
        })
    }

    fn conversations_route(&self, call: ParsedRequest<'_>, method: &str, rest: &[&str]) -> TableAnswer {
        Some(match (method, rest) {
            ("POST", []) => self.new_conversation(call),
            ("GET", [id]) => self.conversation(id),
            ("POST", [id]) => self.update_conversation(call, id),
            ("DELETE", [id]) => self.delete_conversation(id),
            ("GET", [id, "items"]) => self.conversation_items(call.head, id),
            ("POST", [id, "items"]) => self.add_items(call, id),
            ("GET", [id, "items", item]) => self.conversation_item(id, item),
            ("DELETE", [id, "items", item]) => self.delete_item(id, item),
            _ => return None,
        })
    }

    fn files_route(&self, call: &ParsedRequest<'_>, method: &str, rest: &[&str]) -> TableAnswer {
        Some(match (method, rest) {
            ("POST", []) => self.upload_file(call),
            ("GET", []) => self.list_files(call.head),
            ("GET", [id]) => self.file(id),
            ("GET", [id, "content"]) => self.file_content(id),
            ("DELETE", [id]) => self.delete_file(id),
            _ => return None,
        })
    }

    fn uploads_route(&self, call: ParsedRequest<'_>, method: &str, rest: &[&str]) -> TableAnswer {
        Some(match (method, rest) {
            ("POST", []) => self.new_upload(call),
            ("POST", [id, "parts"]) => self.add_part(&call, id),
            ("POST", [id, "complete"]) => self.complete_upload(call, id),
            ("POST", [id, "cancel"]) => self.cancel_upload(id),
            _ => return None,
        })
    }

    fn vector_stores_route(&self, call: ParsedRequest<'_>, method: &str, rest: &[&str]) -> TableAnswer {
        Some(match (method, rest) {
            ("POST", []) => self.new_vector_store(call),
            ("GET", []) => self.list_vector_stores(call.head),
            ("GET", [id]) => self.vector_store(id),
            ("POST", [id]) => self.update_vector_store(call, id),
            ("DELETE", [id]) => self.delete_vector_store(id),
            ("POST", [id, "search"]) => self.search_vector_store(call, id),
            ("POST", [id, "files"]) => self.attach_file(call, id),
            ("GET", [id, "files"]) => self.list_store_files(call.head, id),
            ("GET", [id, "files", file]) => self.store_file_entry(id, file),
            ("POST", [id, "files", file]) => self.update_store_file(call, id, file),
            ("DELETE", [id, "files", file]) => self.detach_file(id, file),
            ("GET", [id, "files", file, "content"]) => self.store_file_content(id, file),
            ("POST", [id, "file_batches"]) => self.attach_batch(call, id),
            ("GET", [id, "file_batches", batch]) | ("POST", [id, "file_batches", batch, "cancel"]) => {
                self.file_batch(id, batch)
            }
            ("GET", [id, "file_batches", batch, "files"]) => self.list_batch_files(call.head, id, batch),
            _ => return None,
        })
    }

    fn containers_route(&self, call: ParsedRequest<'_>, method: &str, rest: &[&str]) -> TableAnswer {
        Some(match (method, rest) {
            ("POST", []) => self.create_container(call),
            ("GET", []) => self.list_containers(call.head),
            ("GET", [id]) => self.container(id),
            ("DELETE", [id]) => self.delete_container(id),
            ("POST", [id, "files"]) => self.add_container_file(call, id),
            ("GET", [id, "files"]) => self.list_container_files(call.head, id),
            ("GET", [id, "files", file]) => self.container_file(id, file),
            ("GET", [id, "files", file, "content"]) => self.container_file_content(id, file),
            ("DELETE", [id, "files", file]) => self.delete_container_file(id, file),
            _ => return None,
        })
    }

    fn batches_route(&self, call: ParsedRequest<'_>, method: &str, rest: &[&str]) -> TableAnswer {
        Some(match (method, rest) {
            ("POST", []) => self.new_batch(call),
            ("GET", []) => self.list_batches(call.head),
            ("GET", [id]) => self.batch(id),
            ("POST", [id, "cancel"]) => self.cancel_batch(id),
            _ => return None,
        })
    }

    fn tuning_route(&self, call: ParsedRequest<'_>, method: &str, rest: &[&str]) -> TableAnswer {
        Some(match (method, rest) {
            ("POST", []) => self.new_tuning_job(call),
            ("GET", []) => self.list_tuning_jobs(call.head),
            ("GET", [id]) => self.tuning_job(id),
            ("POST", [id, action @ ("cancel" | "pause" | "resume")]) => self.steer_tuning_job(id, action),
            ("GET", [id, "events"]) => self.tuning_events(call.head, id),
            ("GET", [id, "checkpoints"]) => self.tuning_checkpoints(call.head, id),
            _ => return None,
        })
    }

    fn evals_route(&self, call: ParsedRequest<'_>, method: &str, rest: &[&str]) -> TableAnswer {
        Some(match (method, rest) {
            ("POST", []) => self.new_eval(call),
            ("GET", []) => self.list_evals(call.head),
            ("GET", [id]) => self.eval(id),
            ("POST", [id]) => self.update_eval(call, id),
            ("DELETE", [id]) => self.delete_eval(id),
            ("POST", [id, "runs"]) => self.new_run(call, id),
            ("GET", [id, "runs"]) => self.list_runs(call.head, id),
            ("GET", [id, "runs", run]) => self.run(id, run),
            ("POST", [id, "runs", run]) => self.cancel_run(id, run),
            ("DELETE", [id, "runs", run]) => self.delete_run(id, run),
            ("GET", [id, "runs", run, "output_items"]) => self.run_items(call.head, id, run),
            _ => return None,
        })
    }

    /// Checks the credential of a request. Every credential that the request has must be right, so that a credential of
    /// the caller that a proxy passes on is refused.
    fn authorize(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(key) = &self.config.api_key else { return Ok(()) };
        let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let bearer = headers.get(AUTHORIZATION).map(text);
        let bearer = bearer.map(|sent| sent.strip_prefix("Bearer ").unwrap_or_default().to_owned());
        let sent: Vec<String> = bearer.into_iter().chain(headers.get(X_API_KEY).map(text)).collect();
        match sent.as_slice() {
            [] => Err(ApiError::no_key()),
            sent if sent.iter().all(|sent| sent == key.expose()) => Ok(()),
            _ => Err(ApiError::wrong_key()),
        }
    }

    /// Returns the model that a request names, if the account has it.
    pub(super) fn check_model<'r>(&self, request: &'r Value) -> Result<&'r str, ApiError> {
        match model_of(request) {
            "" => Err(ApiError::missing("model")),
            model if self.config.only_models && !self.config.models.iter().any(|known| known == model) => {
                Err(ApiError::unknown_model(model))
            }
            model => Ok(model),
        }
    }
}

//! Chat completions, whole, streamed and stored; and embeddings.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::account::Account;
use super::super::api_error::ApiError;
use super::super::body::BodySource;
use super::super::cache::Prefix;
use super::super::chat::{self, Completion, CompletionChunks, UsageChunk};
use super::super::head::RecordedHead;
use super::super::outgoing::SimResponse;
use super::super::responses::{answer_text, is_true, new_id, tokens, unix_seconds};
use super::page::{ListDefaults, ListOrder, USUAL, found, page_of, query_value};
use super::parsed::{ParsedRequest, field_or, replace_fields};

/// The defaults of the lists of stored completions and of their messages.
const OLDEST_FIRST: ListDefaults = ListDefaults {
    order: ListOrder::OldestFirst,
    ..USUAL
};

impl Account {
    /// Answers `POST /v1/chat/completions`.
    pub(in crate::sim) fn chat(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let model = self.check_model(&request)?;
        let messages = match request.get("messages") {
            Some(Value::Array(messages)) => messages,
            Some(_) => return Err(ApiError::wrong_type("messages", "an array of messages")),
            None => return Err(ApiError::missing("messages")),
        };
        let (mut prefix, mut marks) = (Prefix::new(model), Vec::new());
        for message in messages {
            self.read_item(message, &mut prefix, &mut marks)?;
        }
        let mut usage = self.count(prefix, &marks).usage;
        let text = answer_text(&self.config.name, self.config.deltas);
        usage.output = tokens(text.len() as u64);
        self.write_message(prefix, &text);
        let usage_chunk = match request.pointer("/stream_options/include_usage") {
            Some(Value::Bool(true)) => UsageChunk::Sent,
            _ => UsageChunk::Omitted,
        };
        let completion = Completion {
            id: new_id("chatcmpl").replacen('_', "-", 1),
            created: unix_seconds(),
            model: model.to_owned(),
            text,
            usage,
            usage_chunk,
        };
        if is_true(&request, "store") {
            let mut object = completion.json();
            object["metadata"] = field_or(&request, "metadata", json!({}));
            self.objects
                .completions
                .insert(&completion.id, (object, messages.clone()));
        }
        if is_true(&request, "stream") {
            let chunks = CompletionChunks::new(completion);
            return Ok(SimResponse::stream(BodySource::Chunks(Box::new(chunks))));
        }
        Ok(SimResponse {
            thinking: self.thinking(),
            ..SimResponse::json(StatusCode::OK, &completion.json())
        })
    }

    /// Appends the answer to the conversation, so that a client that replays it finds it in the cache.
    pub(super) fn write_message(&self, mut prefix: Prefix, text: &str) {
        let mut marks = Vec::new();
        prefix.message("assistant", text, &mut marks);
        self.cache.lock().read(&marks, self.clock.now());
    }

    /// Answers `GET /v1/chat/completions`, the list of stored completions.
    pub(in crate::sim) fn list_completions(&self, head: &RecordedHead) -> Result<SimResponse, ApiError> {
        let stored = self.objects.completions.list().into_iter();
        let mut completions: Vec<Value> = stored.map(|(completion, _)| completion).collect();
        if let Some(model) = query_value(head, "model") {
            completions.retain(|completion| completion["model"] == model.as_str());
        }
        page_of(head, completions, OLDEST_FIRST)
    }

    fn find_completion(&self, id: &str) -> Result<(Value, Vec<Value>), ApiError> {
        self.objects
            .completions
            .get(id)
            .ok_or_else(|| ApiError::unknown_completion(id))
    }

    /// Answers `GET /v1/chat/completions/{id}`.
    pub(in crate::sim) fn completion(&self, id: &str) -> Result<SimResponse, ApiError> {
        self.find_completion(id).map(|(completion, _)| found(&completion))
    }

    /// Answers `POST /v1/chat/completions/{id}`.
    pub(in crate::sim) fn update_completion(&self, call: ParsedRequest<'_>, id: &str) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let change = |(completion, _): &mut (Value, Vec<Value>)| {
            replace_fields(completion, &request, &["metadata"]);
            found(completion)
        };
        let changed = self.objects.completions.update(id, change);
        changed.ok_or_else(|| ApiError::unknown_completion(id))
    }

    /// Answers `DELETE /v1/chat/completions/{id}`.
    pub(in crate::sim) fn delete_completion(&self, id: &str) -> Result<SimResponse, ApiError> {
        let known = self.objects.completions.remove(id);
        let gone = found(&json!({"object": "chat.completion.deleted", "id": id, "deleted": true}));
        known.map(|_| gone).ok_or_else(|| ApiError::unknown_completion(id))
    }

    /// Answers `GET /v1/chat/completions/{id}/messages`.
    pub(in crate::sim) fn completion_messages(&self, head: &RecordedHead, id: &str) -> Result<SimResponse, ApiError> {
        let (_, mut messages) = self.find_completion(id)?;
        for (index, message) in messages
            .iter_mut()
            .enumerate()
            .filter(|(_, message)| message.is_object())
        {
            message["id"] = format!("{id}-{index}").into();
            // Content in parts is listed under another name.
            let parts = message["content"].take();
            message["content"] = if parts.is_array() {
                parts[0]["text"].clone()
            } else {
                parts.clone()
            };
            message["content_parts"] = if parts.is_array() { parts } else { Value::Null };
        }
        page_of(head, messages, OLDEST_FIRST)
    }

    /// Answers `POST /v1/embeddings`.
    pub(in crate::sim) fn embed(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let model = self.check_model(&request)?;
        Ok(found(&chat::embeddings(model, &request)))
    }
}

//! The account's usual responses to requests that no script changes.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, HeaderName, UPGRADE};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::api_error::ApiError;
use super::body::BodySource;
use super::cache::Prefix;
use super::chat::{self, Completion, CompletionChunks, UsageChunk};
use super::events::ResponseEvents;
use super::head::RecordedHead;
use super::issued::IssuedResponse;
use super::outgoing::SimResponse;
use super::responses::{
    self, GeneratedResponse, ResponseStatus, TokenUsage, answer_text, model_of, new_id, tokens, unix_seconds,
};
use super::{account::Account, catalog};

const TURN_STATE: HeaderName = HeaderName::from_static("x-codex-turn-state");

/// A request that has been read.
pub(super) struct ParsedRequest<'a> {
    pub head: &'a RecordedHead,
    /// The body without its content encoding.
    pub plain: Bytes,
    /// The body, parsed as JSON.
    pub json: Result<Value, ApiError>,
    /// The output items that a script demands.
    pub items: Option<Vec<Value>>,
}

impl Account {
    /// Answers one request.
    pub(super) fn answer(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        self.authorize(&call.head.headers)?;
        let (method, path) = (call.head.method.clone(), call.head.path());
        let Some(rest) = path.strip_prefix("/v1/") else {
            return Err(ApiError::unknown_path(&method, path));
        };
        let mut segments = rest.splitn(3, '/');
        let place = (
            segments.next().expect("`splitn` yields at least one segment"),
            segments.next(),
            segments.next(),
        );
        match (&method, place) {
            (&Method::POST, ("responses", None, None)) => self.respond(call),
            (&Method::GET, ("responses", None, None)) if call.head.headers.contains_key(UPGRADE) => {
                Err(ApiError::websocket())
            }
            (&Method::POST, ("responses", Some("compact"), None)) => self.compact(call),
            (&Method::GET, ("responses", Some(id), None)) => self.find(id).map(|issued| object(&issued)),
            (&Method::DELETE, ("responses", Some(id), None)) => self.delete(id),
            (&Method::POST, ("responses", Some(id), Some("cancel"))) => self
                .issued
                .cancel(id)
                .map(|issued| object(&issued))
                .ok_or_else(|| ApiError::unknown_response(id)),
            (&Method::GET, ("responses", Some(id), Some("input_items"))) => {
                let order = if call.head.target.contains("order=asc") {
                    ItemOrder::OldestFirst
                } else {
                    ItemOrder::NewestFirst
                };
                self.find(id).map(|issued| input_items(&issued, order))
            }
            (&Method::GET, ("models", None, None)) if call.head.target.contains("client_version=") => Ok(
                SimResponse::json(StatusCode::OK, &catalog::codex_list(&self.config.models)),
            ),
            (&Method::GET, ("models", None, None)) => {
                Ok(SimResponse::json(StatusCode::OK, &catalog::list(&self.config.models)))
            }
            (&Method::GET, ("models", Some(_), _)) => {
                self.model(rest.strip_prefix("models/").expect("the first segment is `models`"))
            }
            (&Method::POST, ("chat", Some("completions"), None)) => self.chat(call),
            (&Method::POST, ("embeddings", None, None)) => {
                let request = call.json?;
                let model = self.check_model(&request)?;
                Ok(SimResponse::json(StatusCode::OK, &chat::embeddings(model, &request)))
            }
            (_, ("responses", _, None) | ("models", _, _) | ("embeddings", None, None))
            | (_, ("chat", Some("completions"), None) | ("responses", _, Some("cancel" | "input_items"))) => {
                Err(ApiError::wrong_method(&method, path))
            }
            _ => Err(ApiError::unknown_path(&method, path)),
        }
    }

    fn authorize(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(key) = &self.config.api_key else { return Ok(()) };
        let sent = headers.get(AUTHORIZATION).ok_or_else(ApiError::no_key)?;
        let sent = sent.to_str().ok().and_then(|sent| sent.strip_prefix("Bearer "));
        if sent == Some(key.expose()) {
            Ok(())
        } else {
            Err(ApiError::wrong_key())
        }
    }

    fn check_model<'r>(&self, request: &'r Value) -> Result<&'r str, ApiError> {
        match model_of(request) {
            "" => Err(ApiError::missing("model")),
            model if self.config.only_models && !self.config.models.iter().any(|known| known == model) => {
                Err(ApiError::unknown_model(model))
            }
            model => Ok(model),
        }
    }

    fn model(&self, id: &str) -> Result<SimResponse, ApiError> {
        let known = self.config.models.iter().find(|known| *known == id);
        let known = known.ok_or_else(|| ApiError::unknown_model(id))?;
        Ok(SimResponse::json(StatusCode::OK, &catalog::model(known)))
    }

    fn find(&self, id: &str) -> Result<IssuedResponse, ApiError> {
        self.issued.find(id).ok_or_else(|| ApiError::unknown_response(id))
    }

    fn delete(&self, id: &str) -> Result<SimResponse, ApiError> {
        if !self.issued.delete(id) {
            return Err(ApiError::unknown_response(id));
        }
        Ok(SimResponse::json(
            StatusCode::OK,
            &json!({"id": id, "object": "response", "deleted": true}),
        ))
    }

    fn respond(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let model = self.check_model(&request)?;
        let turn = self.turn(&call.head.headers)?;
        let (mut prefix, mut usage) = self.read_prompt(model, &request)?;
        let items = match call.items {
            Some(items) => items.into_iter().map(responses::complete_item).collect(),
            None => self.output(&request),
        };
        self.write_output(&items, &mut prefix, &mut usage);
        let reply = Arc::new(GeneratedResponse::new(&request, items, usage));
        let response = if request.get("stream") == Some(&Value::Bool(true)) {
            SimResponse::stream(BodySource::Events(Box::new(ResponseEvents::new(Arc::clone(&reply)))))
        } else {
            let mut body = BytesMut::new();
            reply.write(ResponseStatus::Completed, &mut body);
            SimResponse {
                thinking: self.thinking(),
                ..SimResponse::whole(StatusCode::OK, body.freeze())
            }
        };
        self.issued.remember(IssuedResponse {
            reply,
            // This is a copy, because the original bytes keep the whole read buffer alive.
            request: Bytes::copy_from_slice(&call.plain),
            prefix,
            cancelled: false,
        });
        let response = response.with(HeaderName::from_static("openai-model"), model);
        Ok(match turn {
            Some(turn) => response.with(TURN_STATE, &turn),
            None => response,
        })
    }

    /// Returns the state of a turn that begins with this request; `None` if the turn has begun before.
    fn turn(&self, headers: &HeaderMap) -> Result<Option<String>, ApiError> {
        match headers.get(TURN_STATE) {
            Some(state) if self.config.refuse_foreign => {
                let own = state.to_str().is_ok_and(|state| self.issued.knows_turn(state));
                if own {
                    Ok(None)
                } else {
                    Err(ApiError::foreign_turn_state())
                }
            }
            Some(_) => Ok(None),
            None => Ok(self.config.turn_state.then(|| self.issued.begin_turn())),
        }
    }

    /// Reads the prompt. Returns the conversation so far and the usage of the prompt.
    fn read_prompt(&self, model: &str, request: &Value) -> Result<(Prefix, TokenUsage), ApiError> {
        let mut marks = Vec::new();
        let previous = request.get("previous_response_id").and_then(Value::as_str);
        let known = previous.and_then(|id| self.issued.find(id));
        let mut prefix = match (&known, previous) {
            (Some(issued), _) => issued.prefix,
            (None, Some(id)) if self.config.refuse_foreign => return Err(ApiError::unknown_previous_response(id)),
            (None, _) => Prefix::new(model),
        };
        prefix.mark(&mut marks);
        let instructions = request.get("instructions").and_then(Value::as_str);
        if let (Some(text), None) = (instructions, &known) {
            prefix.message("instructions", text, &mut marks);
        }
        match request.get("input") {
            Some(Value::String(text)) => prefix.message("user", text, &mut marks),
            Some(Value::Array(items)) => {
                if self.config.refuse_foreign && items.iter().any(|item| self.has_foreign_secret(item)) {
                    return Err(ApiError::foreign_encrypted_content());
                }
                items.iter().for_each(|item| prefix.item(item, &mut marks));
            }
            Some(Value::Null) | None if previous.is_some() => {}
            Some(Value::Null) | None => return Err(ApiError::missing("input")),
            Some(_) => return Err(ApiError::wrong_type("input", "a string or an array of items")),
        }
        let cached = self.cache.lock().read(&marks, self.clock.now());
        let usage = TokenUsage {
            input: tokens(prefix.bytes()),
            cached: tokens(cached),
            ..TokenUsage::default()
        };
        Ok((prefix, usage))
    }

    fn has_foreign_secret(&self, value: &Value) -> bool {
        match value {
            Value::Array(values) => values.iter().any(|value| self.has_foreign_secret(value)),
            Value::Object(fields) => fields.iter().any(|(name, value)| match value {
                Value::String(content) => name == "encrypted_content" && !self.issued.decrypts(content),
                value => self.has_foreign_secret(value),
            }),
            _ => false,
        }
    }

    /// Returns the account's usual output.
    fn output(&self, request: &Value) -> Vec<Value> {
        let last = request
            .get("input")
            .and_then(Value::as_array)
            .and_then(|items| items.last());
        if last.is_some_and(|item| item["type"] == "compaction_trigger") {
            return vec![responses::compaction(self.issued.encrypt())];
        }
        let include = request.get("include").and_then(Value::as_array);
        let encrypted = include.is_some_and(|names| names.iter().any(|name| name == "reasoning.encrypted_content"));
        let answer = responses::message(&answer_text(&self.config.name, self.config.deltas));
        if encrypted {
            vec![responses::reasoning(self.issued.encrypt()), answer]
        } else {
            vec![answer]
        }
    }

    /// Appends the output to the conversation, so that a client that replays it finds it in the cache.
    fn write_output(&self, items: &[Value], prefix: &mut Prefix, usage: &mut TokenUsage) {
        let mut marks = Vec::new();
        for item in items {
            let before = prefix.bytes();
            prefix.item(item, &mut marks);
            let written = tokens(prefix.bytes() - before);
            usage.output += written;
            if item["type"] == "reasoning" {
                usage.reasoning += written;
            }
        }
        self.cache.lock().read(&marks, self.clock.now());
    }

    fn compact(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let model = self.check_model(&request)?;
        let (mut prefix, mut usage) = self.read_prompt(model, &request)?;
        let mut output: Vec<Value> = match request.get("input") {
            Some(Value::Array(items)) => {
                let own_words = items.iter().filter(|item| item["role"] == "user").cloned();
                own_words.map(responses::input_item).collect()
            }
            Some(Value::String(text)) => vec![responses::user_message(text)],
            _ => Vec::new(),
        };
        let compaction = responses::compaction(self.issued.encrypt());
        self.write_output(std::slice::from_ref(&compaction), &mut prefix, &mut usage);
        output.push(compaction);
        let compacted = json!({"id": new_id("resp"), "object": "response.compaction", "created_at": unix_seconds(),
            "output": output, "usage": usage.json()});
        Ok(SimResponse {
            thinking: self.thinking(),
            ..SimResponse::json(StatusCode::OK, &compacted)
        })
    }

    fn chat(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let model = self.check_model(&request)?;
        let messages = match request.get("messages") {
            Some(Value::Array(messages)) => messages,
            Some(_) => return Err(ApiError::wrong_type("messages", "an array of messages")),
            None => return Err(ApiError::missing("messages")),
        };
        let (mut prefix, mut marks) = (Prefix::new(model), Vec::new());
        messages.iter().for_each(|message| prefix.item(message, &mut marks));
        let cached = self.cache.lock().read(&marks, self.clock.now());
        let text = answer_text(&self.config.name, self.config.deltas);
        let usage = TokenUsage {
            input: tokens(prefix.bytes()),
            cached: tokens(cached),
            output: tokens(text.len() as u64),
            reasoning: 0,
        };
        let usage_chunk = match request.pointer("/stream_options/include_usage") {
            Some(Value::Bool(true)) => UsageChunk::Sent,
            _ => UsageChunk::Omitted,
        };
        let completion = Completion {
            model: model.to_owned(),
            text,
            usage,
            usage_chunk,
        };
        if request.get("stream") == Some(&Value::Bool(true)) {
            return Ok(SimResponse::stream(BodySource::Chunks(Box::new(
                CompletionChunks::new(completion),
            ))));
        }
        Ok(SimResponse {
            thinking: self.thinking(),
            ..SimResponse::json(StatusCode::OK, &completion.json())
        })
    }

    /// Returns the delay of a response in one piece, which is the time that its text would take to stream.
    fn thinking(&self) -> Duration {
        self.config
            .pace
            .saturating_mul(u32::try_from(self.config.deltas).unwrap_or(u32::MAX))
    }
}

fn object(issued: &IssuedResponse) -> SimResponse {
    let mut body = BytesMut::new();
    let status = if issued.cancelled {
        ResponseStatus::Cancelled
    } else {
        ResponseStatus::Completed
    };
    issued.reply.write(status, &mut body);
    SimResponse::whole(StatusCode::OK, body.freeze())
}

/// The order of a list of input items.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ItemOrder {
    OldestFirst,
    NewestFirst,
}

fn input_items(issued: &IssuedResponse, order: ItemOrder) -> SimResponse {
    let request: Value = serde_json::from_slice(&issued.request).expect("the request was parsed when it was answered");
    let mut items: Vec<Value> = match request.get("input") {
        Some(Value::Array(items)) => items.iter().cloned().map(responses::input_item).collect(),
        Some(Value::String(text)) => vec![responses::user_message(text)],
        _ => Vec::new(),
    };
    if order == ItemOrder::NewestFirst {
        items.reverse();
    }
    let id = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
    let list = json!({"object": "list", "first_id": id(items.first()), "last_id": id(items.last()),
        "has_more": false, "data": items});
    SimResponse::json(StatusCode::OK, &list)
}

//! Anthropic's Messages API.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::account::Account;
use super::super::api_error::ApiError;
use super::super::body::BodySource;
use super::super::cache::{Mark, Prefix};
use super::super::messages::{AnsweredMessage, MessageEvents};
use super::super::outgoing::SimResponse;
use super::super::responses::{answer_text, is_true, new_id, tokens};
use super::page::found;
use super::parsed::ParsedRequest;

impl Account {
    /// Answers `POST /v1/messages`.
    pub(in crate::sim) fn message(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let model = self.check_model(&request)?;
        if !request.get("max_tokens").is_some_and(Value::is_u64) {
            return Err(ApiError::missing("max_tokens"));
        }
        let (prefix, marks) = self.messages_prompt(model, &request)?;
        let mut usage = self.count(prefix, &marks).usage;
        let text = answer_text(&self.config.name, self.config.deltas);
        usage.output = tokens(text.len() as u64);
        self.write_message(prefix, &text);
        let message = AnsweredMessage {
            id: new_id("msg"),
            model: model.to_owned(),
            text,
            usage,
        };
        if is_true(&request, "stream") {
            let events = MessageEvents::new(message);
            return Ok(SimResponse::stream(BodySource::Messages(Box::new(events))));
        }
        Ok(SimResponse {
            thinking: self.thinking(),
            ..SimResponse::json(StatusCode::OK, &message.json())
        })
    }

    /// Answers `POST /v1/messages/count_tokens`.
    pub(in crate::sim) fn count_tokens(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let model = self.check_model(&request)?;
        let (prefix, _) = self.messages_prompt(model, &request)?;
        Ok(found(&json!({"input_tokens": tokens(prefix.bytes())})))
    }

    fn messages_prompt(&self, model: &str, request: &Value) -> Result<(Prefix, Vec<Mark>), ApiError> {
        let messages = match request.get("messages") {
            Some(Value::Array(messages)) => messages,
            Some(_) => return Err(ApiError::wrong_type("messages", "an array of messages")),
            None => return Err(ApiError::missing("messages")),
        };
        let (mut prefix, mut marks) = (Prefix::new(model), Vec::new());
        if let Some(system) = request.get("system").filter(|system| !system.is_null()) {
            self.read_item(&json!({"role": "system", "content": system}), &mut prefix, &mut marks)?;
        }
        for message in messages {
            self.read_item(message, &mut prefix, &mut marks)?;
        }
        Ok((prefix, marks))
    }
}

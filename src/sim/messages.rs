//! The answers of Anthropic's Messages API (`POST /v1/messages`), whole and streamed, and its errors.
//!
//! The shapes are those of <https://docs.claude.com/en/api/messages> and
//! <https://docs.claude.com/en/docs/build-with-claude/streaming>.

use bytes::{BufMut, BytesMut};
use http::StatusCode;
use serde_json::{Value, json};

use super::api_error::ApiError;
use super::events::{StreamEvent, piece_end};
use super::responses::{TokenUsage, put, put_json};

/// The number of tokens at the end of a prompt that are never written to the cache.
const UNCACHED_TAIL: u64 = 4;

/// A message that can be written as one object or as a stream.
pub(super) struct AnsweredMessage {
    pub id: String,
    pub model: String,
    pub text: String,
    pub usage: TokenUsage,
}

impl AnsweredMessage {
    /// Returns the usage with this many output tokens. The input tokens are those that are neither read from the cache
    /// nor written to it.
    fn usage(&self, output: u64) -> Value {
        let new = self.usage.input - self.usage.cached;
        let tail = new.min(UNCACHED_TAIL);
        json!({"input_tokens": tail, "cache_read_input_tokens": self.usage.cached,
            "cache_creation_input_tokens": new - tail, "output_tokens": output, "service_tier": "standard",
            "cache_creation": {"ephemeral_5m_input_tokens": new - tail, "ephemeral_1h_input_tokens": 0}})
    }

    fn object(&self, content: &Value, stop_reason: Option<&str>, output: u64) -> Value {
        json!({"id": self.id, "type": "message", "role": "assistant", "model": self.model, "content": content,
            "stop_reason": stop_reason, "stop_sequence": null, "usage": self.usage(output)})
    }

    /// Returns the message.
    pub(super) fn json(&self) -> Value {
        let content = json!([{"type": "text", "text": self.text}]);
        self.object(&content, Some("end_turn"), self.usage.output)
    }
}

enum MessageStep {
    Start,
    BlockStart,
    Ping,
    Delta(usize),
    BlockStop,
    Usage,
    Stop,
    End,
}

/// The events of one message, in order.
pub(super) struct MessageEvents {
    message: AnsweredMessage,
    step: MessageStep,
    out: BytesMut,
}

impl MessageEvents {
    pub(super) fn new(message: AnsweredMessage) -> Self {
        Self {
            message,
            step: MessageStep::Start,
            out: BytesMut::new(),
        }
    }

    /// Returns the next event, or `None` after the last.
    pub(super) fn next(&mut self) -> Option<StreamEvent> {
        let message = &self.message;
        let (event, next) = match self.step {
            MessageStep::Start => (
                json!({"type": "message_start", "message": message.object(&json!([]), None, 1)}),
                MessageStep::BlockStart,
            ),
            MessageStep::BlockStart => (
                json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
                MessageStep::Ping,
            ),
            MessageStep::Ping => (json!({"type": "ping"}), MessageStep::Delta(0)),
            MessageStep::Delta(from) => {
                let end = piece_end(&message.text, from);
                let text = message.text.get(from..end);
                let text = text.expect("a piece ends at a space or at the end of the text");
                let delta = json!({"type": "content_block_delta", "index": 0,
                    "delta": {"type": "text_delta", "text": text}});
                let next = if end < message.text.len() {
                    MessageStep::Delta(end)
                } else {
                    MessageStep::BlockStop
                };
                (delta, next)
            }
            MessageStep::BlockStop => (json!({"type": "content_block_stop", "index": 0}), MessageStep::Usage),
            MessageStep::Usage => (
                json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null},
                    "usage": message.usage(message.usage.output)}),
                MessageStep::Stop,
            ),
            MessageStep::Stop => (json!({"type": "message_stop"}), MessageStep::End),
            MessageStep::End => return None,
        };
        let terminal = matches!(self.step, MessageStep::Stop);
        self.step = next;
        let name = event["type"].as_str().expect("every event has a type");
        put!(&mut self.out, "event: {name}\ndata: ");
        put_json(&mut self.out, &event);
        self.out.put_slice(b"\n\n");
        Some(StreamEvent {
            bytes: self.out.split().freeze(),
            terminal,
        })
    }
}

/// Returns an error in the shape of the Messages API.
pub(super) fn message_error(error: &ApiError, request_id: &str) -> Value {
    let kind = match error.status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::NOT_FOUND => "not_found_error",
        StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
        _ => "invalid_request_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": error.json()["error"]["message"]},
        "request_id": request_id})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> AnsweredMessage {
        AnsweredMessage {
            id: "msg_1".into(),
            model: "m".into(),
            text: "sim answers: steady as".into(),
            usage: TokenUsage {
                input: 100,
                cached: 60,
                output: 7,
                reasoning: 0,
            },
        }
    }

    #[test]
    fn the_events_come_in_the_order_that_the_sdk_expects() {
        let mut events = MessageEvents::new(message());
        let (mut names, mut text, mut last) = (Vec::new(), String::new(), json!(null));
        while let Some(event) = events.next() {
            let sent = String::from_utf8(event.bytes.to_vec()).unwrap();
            let (name, data) = sent.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
            let data: Value = serde_json::from_str(data.trim_end()).unwrap();
            assert_eq!(data["type"], name);
            assert_eq!(event.terminal, name == "message_stop");
            text.push_str(data["delta"]["text"].as_str().unwrap_or_default());
            if name == "message_delta" {
                last = data["usage"].clone();
            }
            names.push(name.to_owned());
        }
        names.dedup();
        let expected = [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ];
        assert_eq!(names, expected);
        assert_eq!(text, "sim answers: steady as");
        assert_eq!(last, message().json()["usage"]);
    }

    #[test]
    fn input_tokens_exclude_the_reads_and_the_writes_of_the_cache() {
        let usage = message().json()["usage"].clone();
        assert_eq!(usage["cache_read_input_tokens"], 60);
        assert_eq!(usage["cache_creation_input_tokens"], 36);
        assert_eq!(
            (&usage["input_tokens"], &usage["output_tokens"]),
            (&json!(4), &json!(7))
        );
    }
}

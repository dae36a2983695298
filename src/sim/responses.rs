//! Response objects as `POST /v1/responses` returns them, whole or at the start and the end of a stream.
//!
//! The shapes are those of <https://platform.openai.com/docs/api-reference/responses/object>. The parts that are the
//! same in every object of one response (the copy of the request's settings and tools) are serialized once.

use bytes::{BufMut, BytesMut};
use serde::Serialize;
use serde_json::{Value, json};

/// Writes formatted text into a buffer in memory, which never fails.
macro_rules! put {
    ($out:expr, $($format:tt)*) => {
        std::fmt::Write::write_fmt($out, format_args!($($format)*)).expect("writing to memory never fails");
    };
}
pub(super) use put;

/// The settings of a request that its response repeats, and their values if the request does not name them.
const ECHO: [(&str, &str); 18] = [
    ("background", "false"),
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("max_tool_calls", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("previous_response_id", "null"),
    ("prompt_cache_key", "null"),
    ("reasoning", r#"{"effort":null,"summary":null}"#),
    ("safety_identifier", "null"),
    ("service_tier", r#""default""#),
    ("store", "true"),
    ("temperature", "1.0"),
    ("text", r#"{"format":{"type":"text"}}"#),
    ("tool_choice", r#""auto""#),
    ("tools", "[]"),
    ("top_p", "1.0"),
    ("truncation", r#""disabled""#),
];

/// The tokens of a request and its response, as the account bills them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TokenUsage {
    /// The number of tokens of the prompt.
    pub input: u64,
    /// The number of tokens of the prompt that were read from the cache.
    pub cached: u64,
    /// The number of generated tokens, including those of reasoning.
    pub output: u64,
    /// The number of generated tokens of reasoning.
    pub reasoning: u64,
}

impl TokenUsage {
    /// Returns the usage in the shape of the Responses API.
    pub(super) fn json(self) -> Value {
        json!({
            "input_tokens": self.input,
            "input_tokens_details": {"cached_tokens": self.cached, "cache_write_tokens": self.input - self.cached},
            "output_tokens": self.output,
            "output_tokens_details": {"reasoning_tokens": self.reasoning},
            "total_tokens": self.input + self.output,
        })
    }
}

/// Returns the number of tokens in this many bytes of text: about four bytes per token.
pub(super) fn tokens(bytes: u64) -> u64 {
    bytes.div_ceil(4)
}

/// The status of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseStatus {
    /// A background response has not begun.
    Queued,
    InProgress,
    Completed,
    /// The response was cancelled after its output was complete.
    Cancelled,
    /// The background response was cancelled while it was in progress. It has neither output nor usage.
    CancelledEarly,
}

/// One response, which is complete before its first event is sent.
pub(super) struct GeneratedResponse {
    id: String,
    /// The id in the last event of a stream, if it differs from `id`.
    last_id: Option<String>,
    background: bool,
    /// The time of creation as Unix time, in seconds.
    created_at: u64,
    model: String,
    /// The settings of the request that the response repeats, as JSON members.
    echo: String,
    items: Vec<Value>,
    usage: TokenUsage,
}

impl GeneratedResponse {
    /// Creates the response with output `items` to `request`.
    pub(super) fn new(request: &Value, items: Vec<Value>, usage: TokenUsage) -> Self {
        let mut echo = String::new();
        for (name, default) in ECHO {
            put!(&mut echo, ",\"{name}\":");
            match request.get(name) {
                Some(Value::Null) | None => echo.push_str(default),
                Some(value) => echo.push_str(&value.to_string()),
            }
        }
        if let Some(conversation) = conversation_of(request) {
            put!(&mut echo, ",\"conversation\":{}", json!({"id": conversation}));
        }
        Self {
            id: new_id("resp"),
            last_id: None,
            background: is_true(request, "background"),
            created_at: unix_seconds(),
            model: model_of(request).to_owned(),
            echo,
            items,
            usage,
        }
    }

    /// Gives the response another id in the last event of its stream.
    pub(super) fn with_changed_id(mut self) -> Self {
        self.last_id = Some(new_id("resp"));
        self
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Returns the id in the last event of a stream, if it differs from [`Self::id`].
    pub(super) fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// Whether the response was requested with `background`.
    pub(super) fn is_background(&self) -> bool {
        self.background
    }

    pub(super) fn items(&self) -> &[Value] {
        &self.items
    }

    /// Returns the approximate number of bytes that are needed to remember this response.
    pub(super) fn weight(&self) -> usize {
        const ITEMS: usize = 2048;
        self.echo.len() + ITEMS
    }

    /// Writes the response object.
    pub(super) fn write(&self, status: ResponseStatus, out: &mut BytesMut) {
        let (status, done) = match status {
            ResponseStatus::Queued => ("queued", false),
            ResponseStatus::InProgress => ("in_progress", false),
            ResponseStatus::Completed => ("completed", true),
            ResponseStatus::Cancelled => ("cancelled", true),
            ResponseStatus::CancelledEarly => ("cancelled", false),
        };
        let created = self.created_at;
        let id = self.last_id.as_ref().filter(|_| done).unwrap_or(&self.id);
        put!(out, r#"{{"id":"{id}","object":"response","created_at":{created}"#);
        put!(out, r#","status":"{status}","error":null,"completed_at":"#);
        put_json(out, &done.then_some(created));
        out.put_slice(br#","incomplete_details":null,"user":null,"model":"#);
        put_json(out, &self.model);
        out.put_slice(self.echo.as_bytes());
        out.put_slice(br#","output":"#);
        put_json(out, if done { self.items.as_slice() } else { &[] });
        out.put_slice(br#","usage":"#);
        put_json(out, &done.then(|| self.usage.json()));
        out.put_u8(b'}');
    }
}

/// Writes a value as JSON.
pub(super) fn put_json<T: Serialize + ?Sized>(out: &mut BytesMut, value: &T) {
    serde_json::to_writer(out.writer(), value).expect("writing to memory never fails, and the value is JSON");
}

/// Returns a new identifier: the kind and 128 random bits.
pub(super) fn new_id(kind: &str) -> String {
    format!("{kind}_{:032x}", fastrand::u128(..))
}

/// Returns the Unix time in seconds.
pub(super) fn unix_seconds() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Returns the model that a request names, or the empty string.
pub(super) fn model_of(request: &Value) -> &str {
    request.get("model").and_then(Value::as_str).unwrap_or_default()
}

/// Whether this field of a request is `true`.
pub(super) fn is_true(request: &Value, field: &str) -> bool {
    request.get(field) == Some(&Value::Bool(true))
}

/// Returns the conversation that a request names: `"conversation": "conv_…"` or `{"id": "conv_…"}`.
pub(super) fn conversation_of(request: &Value) -> Option<&str> {
    let conversation = request.get("conversation")?;
    conversation.get("id").unwrap_or(conversation).as_str()
}

/// Returns a text that contains the account's name, so that a person sees which account served the request. It has
/// `deltas` pieces.
pub(super) fn answer_text(name: &str, deltas: usize) -> String {
    const WORDS: [&str; 12] = [
        "steady", "as", "she", "goes", "with", "a", "warm", "cache", "and", "a", "fair", "wind",
    ];
    let mut text = format!("{name} answers:");
    for word in WORDS.iter().cycle().take(deltas.saturating_sub(1)) {
        text.push(' ');
        text.push_str(word);
    }
    text
}

/// Returns a message of the assistant.
pub(super) fn message(text: &str) -> Value {
    json!({"type": "message", "id": new_id("msg"), "status": "completed", "role": "assistant",
        "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]})
}

/// Returns a message of the user.
pub(super) fn user_message(text: &str) -> Value {
    input_item(json!({"role": "user", "content": text}))
}

/// Returns an input item as the account lists it. A message in short form is completed, as the SDKs expect.
pub(super) fn input_item(mut item: Value) -> Value {
    let part = match item.get("role").and_then(Value::as_str) {
        Some("assistant") => "output_text",
        _ => "input_text",
    };
    if let Some(fields) = item.as_object_mut()
        && fields.contains_key("role")
    {
        fields.entry("type").or_insert_with(|| "message".into());
        if let Some(content) = fields.get_mut("content").filter(|content| content.is_string()) {
            *content = json!([{"type": part, "text": content.take()}]);
        }
    }
    complete_item(item)
}

/// Returns a reasoning item with content that only this account can decrypt.
pub(super) fn reasoning(encrypted_content: String) -> Value {
    json!({"type": "reasoning", "id": new_id("rs"), "summary": [], "encrypted_content": encrypted_content})
}

/// Returns a compaction item: the conversation so far, in a form that only this account can decrypt.
pub(super) fn compaction(encrypted_content: String) -> Value {
    json!({"type": "compaction", "id": new_id("cmp"), "encrypted_content": encrypted_content})
}

/// Adds the id and the status that a scripted item does not name.
pub(super) fn complete_item(mut item: Value) -> Value {
    let prefix = match item.get("type").and_then(Value::as_str) {
        Some("message") => "msg",
        Some("function_call") => "fc",
        Some("reasoning") => "rs",
        Some("compaction") => "cmp",
        Some("function_call_output") => "fco",
        Some("code_interpreter_call") => "ci",
        Some("file_search_call") => "fs",
        _ => "item",
    };
    if let Some(fields) = item.as_object_mut() {
        fields.entry("id").or_insert_with(|| new_id(prefix).into());
        if matches!(prefix, "msg" | "fc") {
            fields.entry("status").or_insert_with(|| "completed".into());
        }
    }
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(reply: &GeneratedResponse, status: ResponseStatus) -> Value {
        let mut out = BytesMut::new();
        reply.write(status, &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn objects_echo_the_request_and_report_usage_when_done() {
        let request = json!({"model": "gpt-\"5\"", "tools": [{"type": "function", "name": "f"}], "store": false,
            "prompt_cache_key": "k", "metadata": null});
        let usage = TokenUsage {
            input: 10,
            cached: 4,
            output: 3,
            reasoning: 1,
        };
        let reply = GeneratedResponse::new(&request, vec![message("hi")], usage);
        let done = object(&reply, ResponseStatus::Completed);
        assert_eq!(done["model"], "gpt-\"5\"");
        assert_eq!(done["tools"], request["tools"]);
        assert_eq!((&done["store"], &done["metadata"]), (&json!(false), &json!({})));
        assert_eq!(done["output"][0]["content"][0]["text"], "hi");
        assert_eq!(
            done["usage"]["input_tokens_details"],
            json!({"cached_tokens": 4, "cache_write_tokens": 6})
        );
        assert_eq!(done["usage"]["total_tokens"], 13);
        let begun = object(&reply, ResponseStatus::InProgress);
        assert_eq!(
            (&begun["status"], &begun["usage"]),
            (&json!("in_progress"), &Value::Null)
        );
        assert_eq!(begun["output"], json!([]));
        assert_eq!(begun["id"], done["id"]);
    }

    #[test]
    fn messages_in_short_form_are_completed() {
        let told = input_item(json!({"role": "user", "content": "hi"}));
        assert_eq!(told["content"], json!([{"type": "input_text", "text": "hi"}]));
        assert_eq!(
            (&told["type"], &told["status"]),
            (&json!("message"), &json!("completed"))
        );
        let own = input_item(json!({"role": "assistant", "content": "aye"}));
        assert_eq!(own["content"][0]["type"], "output_text");
        let whole = json!({"type": "message", "id": "msg_1", "status": "completed", "role": "user",
            "content": [{"type": "input_image", "image_url": "x"}]});
        assert_eq!(input_item(whole.clone()), whole);
        assert_eq!(
            input_item(json!({"type": "compaction", "id": "cmp_1"})),
            json!({"type": "compaction", "id": "cmp_1"})
        );
    }

    #[test]
    fn scripted_items_get_an_id_and_keep_their_own() {
        let call = complete_item(json!({"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"}));
        assert!(call["id"].as_str().unwrap().starts_with("fc_"));
        assert_eq!(call["status"], "completed");
        assert_eq!(complete_item(json!({"type": "reasoning", "id": "mine"}))["id"], "mine");
    }
}

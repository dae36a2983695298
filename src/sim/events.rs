//! The event stream of `POST /v1/responses` with `"stream": true`.
//!
//! Each event is `event: TYPE
//!
//! data: {"type":TYPE,…,"sequence_number":n}
//!
//!
//! `. It is made when it is requested. The events come in the order that Codex and the SDKs rely on: first created and
//! in_progress, then for every output item added, its parts and done, and finally completed. See
//! <https://platform.openai.com/docs/api-reference/responses-streaming>.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};

use super::responses::{GeneratedResponse, ResponseStatus, put, put_json};

/// The number of bytes that are allocated at a time, which is enough for about ten deltas.
const EVENTS_AT_ONCE: usize = 2048;

/// An event as it is sent.
pub(super) struct StreamEvent {
    /// The text of the event, including the blank line at its end.
    pub bytes: Bytes,
    /// Whether a client needs no further event after this one.
    pub terminal: bool,
}

/// The next event of a stream. Positions inside an item are byte offsets into its text.
#[derive(Clone, Copy)]
enum ResponseStep {
    Created,
    Queued,
    InProgress,
    ItemAdded,
    PartAdded,
    Delta(usize),
    TextDone,
    PartDone,
    ItemDone,
    Completed,
    End,
}

/// The way in which an item is streamed.
enum Shape<'a> {
    Text(&'a str),
    Arguments(&'a str),
    Whole,
}

/// The events of one response, in order.
pub(super) struct ResponseEvents {
    reply: Arc<GeneratedResponse>,
    /// The status with which the response ends.
    end: ResponseStatus,
    step: ResponseStep,
    /// The index of the current output item.
    item: usize,
    /// The number of the next event.
    sequence: u64,
    /// The buffer in which events are written.
    out: BytesMut,
}

impl ResponseEvents {
    pub(super) fn new(reply: Arc<GeneratedResponse>) -> Self {
        Self {
            reply,
            end: ResponseStatus::Completed,
            step: ResponseStep::Created,
            item: 0,
            sequence: 0,
            out: BytesMut::with_capacity(EVENTS_AT_ONCE),
        }
    }

    /// Ends the stream as a cancelled response ends: without output.
    pub(super) fn cancelled(mut self) -> Self {
        self.end = ResponseStatus::CancelledEarly;
        self
    }

    /// Drops the events up to and including the one with this number.
    pub(super) fn after(mut self, sequence: u64) -> Self {
        while self.sequence <= sequence && self.next().is_some() {}
        self
    }

    /// Returns the number of events that come before the output and that are still to come.
    pub(super) fn before_output(&self) -> usize {
        let opening = if self.reply.is_background() { 3 } else { 2 };
        usize::try_from(opening - self.sequence.min(opening)).expect("there are at most three such events")
    }

    /// Returns the next event, or `None` after the last.
    pub(super) fn next(&mut self) -> Option<StreamEvent> {
        let reply = Arc::clone(&self.reply);
        let Some(item) = reply.items().get(self.item) else {
            return self.outside(&reply);
        };
        let shape = shape(item);
        match (self.step, &shape) {
            (ResponseStep::ItemAdded, _) => {
                self.item_event("response.output_item.added", "item", &begun(item));
                self.step = match shape {
                    Shape::Text(_) => ResponseStep::PartAdded,
                    Shape::Arguments(_) => ResponseStep::Delta(0),
                    Shape::Whole => ResponseStep::ItemDone,
                };
            }
            (ResponseStep::PartAdded, _) => {
                let part = json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []});
                self.part_event("response.content_part.added", item, "part", &part);
                self.step = ResponseStep::Delta(0);
            }
            (ResponseStep::Delta(from), Shape::Text(text)) => {
                self.text_delta(item, text, from);
            }
            (ResponseStep::TextDone, Shape::Text(text)) => {
                self.text_event("response.output_text.done", item, "text", text);
                self.step = ResponseStep::PartDone;
            }
            (ResponseStep::Delta(_), Shape::Arguments(arguments)) => {
                self.call_event("response.function_call_arguments.delta", item, "delta", arguments);
                self.step = ResponseStep::TextDone;
            }
            (ResponseStep::TextDone, Shape::Arguments(arguments)) => {
                self.call_event("response.function_call_arguments.done", item, "arguments", arguments);
                self.step = ResponseStep::ItemDone;
            }
            (ResponseStep::PartDone, _) => {
                self.part_event("response.content_part.done", item, "part", &item["content"][0]);
                self.step = ResponseStep::ItemDone;
            }
            (ResponseStep::ItemDone, _) => {
                self.item_event("response.output_item.done", "item", item);
                self.item += 1;
                self.step = if self.item < reply.items().len() {
                    ResponseStep::ItemAdded
                } else {
                    ResponseStep::Completed
                };
            }
            _ => return self.outside(&reply),
        }
        Some(self.finish_event())
    }

    /// Writes the piece of an item's text that starts at byte `from`.
    fn text_delta(&mut self, item: &Value, text: &str, from: usize) {
        let end = piece_end(text, from);
        let piece = text
            .get(from..end)
            .expect("a piece ends at a space or at the end of the text");
        self.text_event("response.output_text.delta", item, "delta", piece);
        self.step = if end < text.len() {
            ResponseStep::Delta(end)
        } else {
            ResponseStep::TextDone
        };
    }

    /// Returns an event that belongs to no item.
    fn outside(&mut self, reply: &GeneratedResponse) -> Option<StreamEvent> {
        let is_empty = reply.items().is_empty() || self.end == ResponseStatus::CancelledEarly;
        let (name, status, next) = match self.step {
            ResponseStep::Created if reply.is_background() => {
                ("response.created", ResponseStatus::Queued, ResponseStep::Queued)
            }
            ResponseStep::Created => ("response.created", ResponseStatus::InProgress, ResponseStep::InProgress),
            ResponseStep::Queued => ("response.queued", ResponseStatus::Queued, ResponseStep::InProgress),
            ResponseStep::InProgress if is_empty => (
                "response.in_progress",
                ResponseStatus::InProgress,
                ResponseStep::Completed,
            ),
            ResponseStep::InProgress => (
                "response.in_progress",
                ResponseStatus::InProgress,
                ResponseStep::ItemAdded,
            ),
            ResponseStep::Completed if self.end == ResponseStatus::CancelledEarly => {
                ("response.cancelled", self.end, ResponseStep::End)
            }
            ResponseStep::Completed => ("response.completed", self.end, ResponseStep::End),
            _ => return None,
        };
        self.begin(name);
        self.out.put_slice(br#","response":"#);
        reply.write(status, &mut self.out);
        let terminal = matches!(self.step, ResponseStep::Completed);
        self.step = next;
        Some(StreamEvent {
            terminal,
            ..self.finish_event()
        })
    }

    fn begin(&mut self, name: &str) {
        let sequence = self.sequence;
        self.sequence += 1;
        put!(
            &mut self.out,
            "event: {name}\ndata: {{\"type\":\"{name}\",\"sequence_number\":{sequence}"
        );
    }

    fn field(&mut self, name: &str, value: &(impl serde::Serialize + ?Sized)) {
        put!(&mut self.out, ",\"{name}\":");
        put_json(&mut self.out, value);
    }

    fn item_event(&mut self, name: &str, field: &str, item: &Value) {
        self.begin(name);
        self.field("output_index", &self.item.clone());
        self.field(field, item);
    }

    fn part_event(&mut self, name: &str, item: &Value, field: &str, value: &Value) {
        self.call_begin(name, item);
        self.field("content_index", &0);
        self.field(field, value);
    }

    fn text_event(&mut self, name: &str, item: &Value, field: &str, text: &str) {
        self.call_begin(name, item);
        self.out.put_slice(br#","content_index":0,"logprobs":[]"#);
        self.field(field, text);
    }

    fn call_event(&mut self, name: &str, item: &Value, field: &str, text: &str) {
        self.call_begin(name, item);
        self.field(field, text);
    }

    fn call_begin(&mut self, name: &str, item: &Value) {
        self.begin(name);
        self.field("output_index", &self.item.clone());
        self.field("item_id", &item["id"]);
    }

    fn finish_event(&mut self) -> StreamEvent {
        self.out.put_slice(b"}\n\n");
        StreamEvent {
            bytes: self.out.split().freeze(),
            terminal: false,
        }
    }
}

fn shape(item: &Value) -> Shape<'_> {
    match item["type"].as_str() {
        Some("message") => item["content"][0]["text"].as_str().map_or(Shape::Whole, Shape::Text),
        Some("function_call") => item["arguments"].as_str().map_or(Shape::Whole, Shape::Arguments),
        _ => Shape::Whole,
    }
}

/// Returns the item as it is before its content arrives.
fn begun(item: &Value) -> Value {
    let mut item = item.clone();
    match item["type"].as_str() {
        Some("message") => item["content"] = json!([]),
        Some("function_call") => item["arguments"] = json!(""),
        _ => return item,
    }
    item["status"] = json!("in_progress");
    item
}

/// Returns the end of the piece of text that starts at `from`. A piece is a word with the space before it; the first
/// piece is two words.
pub(super) fn piece_end(text: &str, from: usize) -> usize {
    let next_space = |from: usize| {
        let rest = text.as_bytes().get(from + 1..).unwrap_or_default();
        memchr::memchr(b' ', rest).map_or(text.len(), |at| from + 1 + at)
    };
    let end = next_space(from);
    if from == 0 && end < text.len() {
        next_space(end)
    } else {
        end
    }
}

#[cfg(test)]
mod tests {
    use super::super::responses::{TokenUsage, answer_text, message};
    use super::*;

    fn stream(items: Vec<Value>) -> Vec<(String, Value)> {
        let reply = GeneratedResponse::new(&json!({"model": "m"}), items, TokenUsage::default());
        let mut events = ResponseEvents::new(Arc::new(reply));
        let mut seen = Vec::new();
        while let Some(event) = events.next() {
            let text = String::from_utf8(event.bytes.to_vec()).unwrap();
            let (name, data) = text.strip_prefix("event: ").unwrap().split_once('\n').unwrap();
            let data: Value =
                serde_json::from_str(data.strip_prefix("data: ").unwrap().strip_suffix("\n\n").unwrap()).unwrap();
            assert_eq!(data["type"], name);
            assert_eq!(data["sequence_number"], seen.len());
            assert_eq!(event.terminal, name == "response.completed");
            seen.push((name.to_owned(), data));
        }
        seen
    }

    #[test]
    fn the_events_of_a_message_come_in_the_order_that_clients_expect() {
        let events = stream(vec![message(&answer_text("sim-a", 3))]);
        let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "response.created",
                "response.in_progress",
                "response.output_item.added",
                "response.content_part.added",
                "response.output_text.delta",
                "response.output_text.delta",
                "response.output_text.delta",
                "response.output_text.done",
                "response.content_part.done",
                "response.output_item.done",
                "response.completed",
            ]
        );
        let deltas: String = events.iter().filter_map(|(_, data)| data["delta"].as_str()).collect();
        assert_eq!(deltas, "sim-a answers: steady as");
        assert_eq!(events[7].1["text"], deltas);
        assert_eq!(events[10].1["response"]["output"][0]["content"][0]["text"], deltas);
        assert_eq!(events[2].1["item"]["content"], json!([]));
    }

    #[test]
    fn calls_and_opaque_items_are_streamed_too() {
        let call =
            json!({"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{\"a\":1}"});
        let events = stream(vec![call.clone(), json!({"type": "compaction", "id": "cmp_1"})]);
        let names: Vec<&str> = events[2..events.len() - 1]
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "response.output_item.added",
                "response.function_call_arguments.delta",
                "response.function_call_arguments.done",
                "response.output_item.done",
                "response.output_item.added",
                "response.output_item.done",
            ]
        );
        assert_eq!(events[2].1["item"]["arguments"], "");
        assert_eq!(events[5].1["item"], call);
        assert_eq!(events[7].1["output_index"], 1);
        assert_eq!(stream(Vec::new()).len(), 3, "no items: created, in_progress, completed");
    }

    #[test]
    fn pieces_are_never_empty_and_together_are_the_text() {
        for text in [
            "",
            " ",
            "a",
            "a b",
            "é é é",
            "sim answers: a b",
            "  two  spaces  ",
            "日本 語 x",
        ] {
            let (mut from, mut whole) = (0, String::new());
            while from < text.len() {
                let end = piece_end(text, from);
                assert!(end > from);
                whole.push_str(text.get(from..end).unwrap());
                from = end;
            }
            assert_eq!(whole, text);
        }
        assert_eq!(answer_text("sim-a", 1), "sim-a answers:");
    }
}

//! The older endpoints, minimal but correct: chat completions, whole and streamed, and embeddings.

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};
use twox_hash::XxHash3_64;

use super::events::{StreamEvent, piece_end};
use super::responses::{TokenUsage, put_json, tokens};

/// The number of dimensions of an embedding if the request names none.
const DIMENSIONS: u64 = 16;
/// The maximum number of dimensions of an embedding.
const MAX_DIMENSIONS: u64 = 4096;

/// Whether a stream ends with a chunk of usage (`stream_options.include_usage`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UsageChunk {
    Sent,
    Omitted,
}

/// A chat completion that can be written as one object or as a stream.
pub(super) struct Completion {
    pub id: String,
    /// The time of creation as Unix time, in seconds.
    pub created: u64,
    pub model: String,
    pub text: String,
    pub usage: TokenUsage,
    pub usage_chunk: UsageChunk,
}

impl Completion {
    fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.usage.input,
            "completion_tokens": self.usage.output,
            "total_tokens": self.usage.input + self.usage.output,
            "prompt_tokens_details": {"cached_tokens": self.usage.cached},
            "completion_tokens_details": {"reasoning_tokens": self.usage.reasoning},
        })
    }

    /// Returns the `chat.completion` object.
    pub(super) fn json(&self) -> Value {
        json!({
            "id": self.id, "object": "chat.completion", "created": self.created, "model": self.model,
            "choices": [{"index": 0, "finish_reason": "stop", "logprobs": null,
                "message": {"role": "assistant", "content": self.text, "refusal": null}}],
            "usage": self.usage(), "system_fingerprint": null,
        })
    }
}

enum ChunkStep {
    Role,
    Text(usize),
    Stop,
    Usage,
    Done,
    End,
}

/// The `chat.completion.chunk` events of one completion, and the `[DONE]` after them.
pub(super) struct CompletionChunks {
    completion: Completion,
    step: ChunkStep,
    out: BytesMut,
}

impl CompletionChunks {
    pub(super) fn new(completion: Completion) -> Self {
        Self {
            completion,
            step: ChunkStep::Role,
            out: BytesMut::new(),
        }
    }

    /// Returns the next event, or `None` after the last.
    pub(super) fn next(&mut self) -> Option<StreamEvent> {
        let text = self.completion.text.as_str();
        let (choices, next) = match self.step {
            ChunkStep::Role => (
                choice(&json!({"role": "assistant", "content": ""}), None),
                ChunkStep::Text(0),
            ),
            ChunkStep::Text(from) => {
                let end = piece_end(text, from);
                let delta =
                    json!({"content": text.get(from..end).expect("a piece ends at a space or at the end of the text")});
                let next = if end < text.len() {
                    ChunkStep::Text(end)
                } else {
                    ChunkStep::Stop
                };
                (choice(&delta, None), next)
            }
            ChunkStep::Stop if self.completion.usage_chunk == UsageChunk::Sent => {
                (choice(&json!({}), Some("stop")), ChunkStep::Usage)
            }
            ChunkStep::Stop => (choice(&json!({}), Some("stop")), ChunkStep::Done),
            ChunkStep::Usage => (json!([]), ChunkStep::Done),
            ChunkStep::Done => {
                self.step = ChunkStep::End;
                return Some(StreamEvent {
                    bytes: Bytes::from_static(b"data: [DONE]\n\n"),
                    terminal: true,
                });
            }
            ChunkStep::End => return None,
        };
        let usage = matches!(self.step, ChunkStep::Usage).then(|| self.completion.usage());
        let chunk = json!({"id": self.completion.id, "object": "chat.completion.chunk", "created": self.completion.created,
            "model": self.completion.model, "choices": choices, "usage": usage, "system_fingerprint": null});
        self.step = next;
        self.out.put_slice(b"data: ");
        put_json(&mut self.out, &chunk);
        self.out.put_slice(b"\n\n");
        Some(StreamEvent {
            bytes: self.out.split().freeze(),
            terminal: false,
        })
    }
}

fn choice(delta: &Value, finish_reason: Option<&str>) -> Value {
    json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}])
}

/// Returns the answer to `POST /v1/embeddings`: one vector for each input, the same vector for the same text.
pub(super) fn embeddings(model: &str, request: &Value) -> Value {
    let inputs = match request.get("input") {
        // A list of token numbers is a single input.
        Some(Value::Array(inputs)) if !inputs.iter().all(Value::is_number) => inputs.as_slice(),
        Some(input) => std::slice::from_ref(input),
        None => &[],
    };
    let dimensions = request
        .get("dimensions")
        .and_then(Value::as_u64)
        .unwrap_or(DIMENSIONS)
        .min(MAX_DIMENSIONS);
    let as_base64 = request.get("encoding_format").and_then(Value::as_str) == Some("base64");
    let mut bytes = 0;
    let mut vector_of = |input: &Value| {
        let text = input.as_str().map_or_else(|| input.to_string(), str::to_owned);
        bytes += text.len() as u64;
        let vector: Vec<f32> = (0..dimensions).map(|seed| component(seed, &text)).collect();
        if as_base64 {
            json!(base64(
                &vector.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>()
            ))
        } else {
            json!(vector)
        }
    };
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, input)| json!({"object": "embedding", "index": index, "embedding": vector_of(input)}))
        .collect();
    let read = tokens(bytes);
    json!({"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": read, "total_tokens": read}})
}

/// Returns one component of a vector, between -1 and 1.
fn component(seed: u64, text: &str) -> f32 {
    let hash = XxHash3_64::oneshot_with_seed(seed, text.as_bytes());
    (hash >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// Encodes bytes as base64 (RFC 4648, section 4). The SDKs request vectors in this form by default.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) & 63;
            text.push(if digit <= group.len() {
                DIGITS[value as usize] as char
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(usage_chunk: UsageChunk) -> Completion {
        let usage = TokenUsage {
            input: 8,
            cached: 4,
            output: 2,
            reasoning: 0,
        };
        Completion {
            id: "chatcmpl-1".into(),
            created: 1,
            model: "m".into(),
            text: "sim answers: steady as".into(),
            usage,
            usage_chunk,
        }
    }

    fn stream(usage_chunk: UsageChunk) -> Vec<Value> {
        let mut chunks = CompletionChunks::new(completion(usage_chunk));
        let mut seen = Vec::new();
        while let Some(event) = chunks.next() {
            let text = String::from_utf8(event.bytes.to_vec()).unwrap();
            let data = text
                .strip_prefix("data: ")
                .unwrap()
                .strip_suffix("\n\n")
                .unwrap()
                .to_owned();
            assert_eq!(event.terminal, data == "[DONE]");
            seen.push(serde_json::from_str(&data).unwrap_or(Value::Null));
        }
        assert_eq!(seen.pop(), Some(Value::Null));
        seen
    }

    #[test]
    fn the_chunks_contain_the_whole_text_and_a_stop() {
        let chunks = stream(UsageChunk::Omitted);
        let text: String = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str())
            .collect();
        assert_eq!(text, "sim answers: steady as");
        assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
        assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
        assert!(chunks.iter().all(|chunk| chunk["usage"].is_null()));
        let with_usage = stream(UsageChunk::Sent);
        let last = with_usage.last().unwrap();
        assert_eq!(
            (
                &last["choices"],
                &last["usage"]["prompt_tokens_details"]["cached_tokens"]
            ),
            (&json!([]), &json!(4))
        );
        assert_eq!(completion(UsageChunk::Omitted).json()["usage"]["total_tokens"], 10);
    }

    #[test]
    fn base64_equals_the_examples_of_the_rfc() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
        ];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn every_input_gets_an_embedding_in_the_requested_form() {
        let many = embeddings("e", &json!({"input": ["a", "b", "a"], "dimensions": 3}));
        assert_eq!(many["data"].as_array().unwrap().len(), 3);
        assert_eq!(many["data"][0]["embedding"], many["data"][2]["embedding"]);
        assert_ne!(many["data"][0]["embedding"], many["data"][1]["embedding"]);
        assert_eq!(many["data"][0]["embedding"].as_array().unwrap().len(), 3);
        let numbers = embeddings("e", &json!({"input": [1, 2, 3], "encoding_format": "base64"}));
        assert_eq!(numbers["data"].as_array().unwrap().len(), 1);
        assert_eq!(
            numbers["data"][0]["embedding"].as_str().unwrap().len(),
            88,
            "16 floats of 4 bytes"
        );
    }
}

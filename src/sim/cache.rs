//! The simulated account's prompt cache. It knows the prefixes of prompts that the account has read before.
//!
//! A prompt is reduced to its canonical text: the instructions, then the role and the strings of each input item,
//! without the fields that a client may change when it replays an item (ids, status, annotations). There are *marks*
//! along that text. Each mark is the hash of everything before it. A mark is at the end of every item, and inside long
//! texts there is a mark about every sixteenth of the distance so far. So a prompt of 500 KB has some two hundred
//! marks. The prompt is cached up to the longest mark that the cache has seen before. A real account caches from 1,024
//! tokens in steps of 128. This cache is finer, so that a prompt of one line is cached too.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use twox_hash::XxHash3_64;

use crate::tick::Tick;

/// The number of bytes between two marks at the start of a prompt.
const FINEST: u64 = 64;

/// Fields that a client may change when it replays an item, and fields that do not reach the model.
const VOLATILE: [&str; 8] = [
    "id",
    "status",
    "type",
    "role",
    "annotations",
    "logprobs",
    "phase",
    "cache_control",
];

/// The length in bytes of the canonical text that an image, a sound or another binary file counts as: 1,100 tokens.
const MEDIA: u64 = 4400;

/// A position in a prompt that the cache can remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    hash: u64,
    bytes: u64,
}

/// The hash and the length of the canonical text so far. It is copied to continue a conversation by
/// `previous_response_id`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prefix {
    hash: u64,
    bytes: u64,
}

impl Prefix {
    /// Creates the prefix of an empty prompt for `model`. Models do not share their caches.
    pub(super) fn new(model: &str) -> Self {
        Self {
            hash: XxHash3_64::oneshot(model.as_bytes()),
            bytes: 0,
        }
    }

    /// Returns the length of the canonical text in bytes.
    pub(super) fn bytes(self) -> u64 {
        self.bytes
    }

    /// Appends a message of `role` that consists of one text.
    pub(super) fn message(&mut self, role: &str, text: &str, marks: &mut Vec<Mark>) {
        self.separate(role);
        self.text(text, marks);
        self.mark(marks);
    }

    /// Appends one input or output item.
    pub(super) fn item(&mut self, item: &Value, marks: &mut Vec<Mark>) {
        let kind = item.get("role").or_else(|| item.get("type")).and_then(Value::as_str);
        self.separate(kind.unwrap_or("user"));
        self.walk(item, marks);
        self.mark(marks);
    }

    fn walk(&mut self, value: &Value, marks: &mut Vec<Mark>) {
        match value {
            Value::Null => {}
            Value::Bool(flag) => self.text(if *flag { "true" } else { "false" }, marks),
            Value::Number(number) => self.text(&number.to_string(), marks),
            Value::String(text) => self.text(text, marks),
            Value::Array(values) => values.iter().for_each(|value| self.walk(value, marks)),
            Value::Object(fields) => {
                for (name, value) in fields {
                    match value {
                        _ if VOLATILE.contains(&name.as_str()) || name.starts_with("internal_") => {}
                        Value::String(content) if is_media(fields, name, content) => {
                            self.media(content.as_bytes(), marks);
                        }
                        value => self.walk(value, marks),
                    }
                }
            }
        }
    }

    /// Appends the content of a file: its text, or a fixed length if it is not text.
    pub(super) fn file(&mut self, content: &[u8], marks: &mut Vec<Mark>) {
        match std::str::from_utf8(content) {
            Ok(text) => self.text(text, marks),
            Err(_) => self.media(content, marks),
        }
        self.mark(marks);
    }

    /// Appends binary content, which counts as a fixed length.
    fn media(&mut self, content: &[u8], marks: &mut Vec<Mark>) {
        self.hash = XxHash3_64::oneshot_with_seed(self.hash, content);
        self.bytes += MEDIA;
        self.mark(marks);
    }

    fn text(&mut self, text: &str, marks: &mut Vec<Mark>) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let until_mark = usize::try_from(next_cut(self.bytes) - self.bytes).unwrap_or(usize::MAX);
            let (piece, tail) = rest.split_at(until_mark.min(rest.len()));
            self.hash = XxHash3_64::oneshot_with_seed(self.hash, piece);
            self.bytes += piece.len() as u64;
            if piece.len() == until_mark {
                self.mark(marks);
            }
            rest = tail;
        }
    }

    /// Adds a role, which changes the hash but not the length.
    fn separate(&mut self, role: &str) {
        self.hash = XxHash3_64::oneshot_with_seed(!self.hash, role.as_bytes());
    }

    /// Adds a mark at this position, unless it is the very beginning.
    pub(super) fn mark(&self, marks: &mut Vec<Mark>) {
        if self.bytes > 0 {
            marks.push(Mark {
                hash: self.hash,
                bytes: self.bytes,
            });
        }
    }
}

/// Whether a field contains a file in base64: a `data:` URL, or one of the fields for the data of files, sounds and
/// images.
fn is_media(fields: &serde_json::Map<String, Value>, name: &str, content: &str) -> bool {
    let is_data_url = content.starts_with("data:")
        && content
            .split_once(',')
            .is_some_and(|(head, _)| head.ends_with(";base64"));
    let holds_data = match name {
        "file_data" => true,
        "data" => fields.contains_key("format") || fields.get("type").is_some_and(|kind| kind == "base64"),
        "result" => fields.get("type").is_some_and(|kind| kind == "image_generation_call"),
        _ => false,
    };
    is_data_url || (holds_data && !content.is_empty())
}

/// Returns the first mark inside a text after `position`. The distance of marks grows with the logarithm of the
/// position.
fn next_cut(position: u64) -> u64 {
    let step = match position.checked_ilog2() {
        Some(log) => ((1 << log) / 16).max(FINEST),
        None => FINEST,
    };
    (position / step + 1) * step
}

/// The marks that were seen recently. They are kept in two generations, which approximates least recently used. So
/// memory is bounded and every operation is short.
#[derive(Debug)]
pub(super) struct PromptCache {
    /// The marks of the current generation, with the time of their last use.
    young: HashMap<u64, Tick>,
    /// The marks of the generation before.
    old: HashMap<u64, Tick>,
    /// The maximum number of marks.
    capacity: usize,
    /// The time after its last use at which a mark expires.
    ttl: Duration,
}

impl PromptCache {
    /// Creates a cache of at most `capacity` marks (zero: no cache). A mark expires `ttl` after its last use.
    pub(super) fn new(capacity: usize, ttl: Duration) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            capacity,
            ttl,
        }
    }

    /// Reads a prompt, and returns the number of its bytes that were cached. All of its marks are cached from now on.
    pub(super) fn read(&mut self, marks: &[Mark], now: Tick) -> u64 {
        let hit = marks.iter().rev().find(|mark| self.is_live(mark.hash, now));
        let cached = hit.map_or(0, |mark| mark.bytes);
        for mark in marks {
            self.insert(mark.hash, now);
        }
        cached
    }

    fn is_live(&self, hash: u64, now: Tick) -> bool {
        let used = self.young.get(&hash).or_else(|| self.old.get(&hash));
        used.is_some_and(|used| now.since(*used) <= self.ttl)
    }

    fn insert(&mut self, hash: u64, now: Tick) {
        let generation = self.capacity / 2;
        if generation == 0 {
            return;
        }
        if self.young.len() >= generation && !self.young.contains_key(&hash) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash, now);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn marks_of(items: &[Value]) -> Vec<Mark> {
        let (mut prefix, mut marks) = (Prefix::new("m"), Vec::new());
        items.iter().for_each(|item| prefix.item(item, &mut marks));
        marks
    }

    fn cache() -> PromptCache {
        PromptCache::new(10_000, Duration::from_secs(60))
    }

    /// The oracle. It counts the equal bytes and then goes back to the position of a mark.
    fn common_marked_bytes(seen: &str, asked: &str) -> u64 {
        if seen == asked {
            return asked.len() as u64;
        }
        let common = seen.bytes().zip(asked.bytes()).take_while(|(a, b)| a == b).count() as u64;
        let mut cut = 0;
        while next_cut(cut) <= common {
            cut = next_cut(cut);
        }
        cut
    }

    proptest! {
        #[test]
        fn a_text_is_cached_up_to_the_last_common_mark(
            shared in "[a-c]{0,3000}", one in "[a-c]{0,900}", two in "[a-c]{0,900}",
        ) {
            let (seen, asked) = (format!("{shared}{one}"), format!("{shared}{two}"));
            let mut cache = cache();
            cache.read(&marks_of(&[json!({"role": "user", "content": seen})]), Tick::ZERO);
            let hit = cache.read(&marks_of(&[json!({"role": "user", "content": asked})]), Tick::ZERO);
            prop_assert_eq!(hit, common_marked_bytes(&seen, &asked));
        }

        #[test]
        fn a_conversation_with_appended_items_finds_its_history_cached(
            history in prop::collection::vec("[ -~]{1,200}", 1..6), new in "[ -~]{1,200}",
        ) {
            let items = |texts: &[String]| -> Vec<Value> {
                texts.iter().map(|text| json!({"role": "user", "content": text})).collect()
            };
            let mut cache = cache();
            let before = items(&history);
            prop_assert_eq!(cache.read(&marks_of(&before), Tick::ZERO), 0);
            let mut after = before.clone();
            after.push(json!({"role": "user", "content": new}));
            let length: usize = history.iter().map(String::len).sum();
            let hit = cache.read(&marks_of(&after), Tick::ZERO);
            prop_assert!(hit >= length as u64 && hit < (length + new.len()) as u64);
        }
    }

    #[test]
    fn a_replayed_item_counts_as_the_same_item() {
        let sent = json!({"role": "user", "content": "hi there"});
        let replayed = json!({"type": "message", "id": "msg_1", "role": "user", "status": "completed",
            "content": [{"type": "input_text", "text": "hi there", "annotations": []}],
            "internal_chat_message_metadata_passthrough": {"turn_id": "t"}});
        assert_eq!(marks_of(&[sent]), marks_of(&[replayed]));
        let (mut prefix, mut marks) = (Prefix::new("m"), Vec::new());
        prefix.message("user", "hi there", &mut marks);
        assert_eq!(marks, marks_of(&[json!({"role": "user", "content": "hi there"})]));
    }

    #[test]
    fn prompts_differ_by_roles_item_boundaries_and_models() {
        let user = marks_of(&[json!({"role": "user", "content": "ab"})]);
        assert_ne!(user, marks_of(&[json!({"role": "developer", "content": "ab"})]));
        let two = marks_of(&[
            json!({"role": "user", "content": "a"}),
            json!({"role": "user", "content": "b"}),
        ]);
        assert_ne!(user.last(), two.last());
        let (mut prefix, mut marks) = (Prefix::new("other"), Vec::new());
        prefix.message("user", "ab", &mut marks);
        assert_ne!(user, marks);
    }

    #[test]
    fn marks_expire_and_memory_is_bounded() {
        let mut cache = PromptCache::new(100, Duration::from_secs(60));
        let marks = marks_of(&[json!({"role": "user", "content": "hi"})]);
        let at = |seconds| Tick::ZERO.after(Duration::from_secs(seconds));
        assert_eq!(cache.read(&marks, at(0)), 0);
        assert_eq!(
            cache.read(&marks, at(60)),
            2,
            "the marks had not expired, and this use renews them"
        );
        assert_eq!(cache.read(&marks, at(121)), 0);
        for n in 0..1000 {
            cache.read(
                &marks_of(&[json!({"role": "user", "content": format!("prompt {n}")})]),
                at(121),
            );
            assert!(cache.len() <= 100);
        }
        assert_eq!(
            cache.read(&marks, at(121)),
            0,
            "the marks that were unused the longest were dropped"
        );
    }

    #[test]
    fn images_sounds_and_files_count_at_a_fixed_length() {
        let base64 = "QUJD".repeat(500_000);
        let parts = json!([
            {"type": "input_image", "image_url": format!("data:image/png;base64,{base64}")},
            {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{base64}")}},
            {"type": "input_file", "filename": "", "file_data": base64},
            {"type": "input_audio", "input_audio": {"data": base64, "format": ""}},
            {"type": "image", "source": {"type": "base64", "media_type": "", "data": base64}},
            {"type": "image_generation_call", "result": base64},
        ]);
        let length = |part: &Value| {
            let mut prefix = Prefix::new("m");
            prefix.item(&json!({"role": "user", "content": [part]}), &mut Vec::new());
            prefix.bytes()
        };
        for part in parts.as_array().unwrap() {
            assert_eq!(length(part), MEDIA, "{}", part["type"]);
        }
        let text = json!({"type": "input_text", "text": "data:image/png;base64"});
        assert_eq!(length(&text), 21, "a text that only begins like a data URL is a text");
        let hash_of = |data: &str| marks_of(&[json!({"content": [{"file_data": data}]})]);
        assert_ne!(hash_of("QUJD"), hash_of("QUJE"), "other data is another prompt");
    }

    #[test]
    fn a_long_prompt_has_few_marks() {
        let marks = marks_of(&[json!({"role": "user", "content": "x".repeat(500_000)})]);
        assert!(marks.len() < 250, "{}", marks.len());
        assert!(marks.windows(2).all(|pair| pair[0].bytes <= pair[1].bytes));
    }
}

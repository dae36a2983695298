//! The kinds of objects that are more than one JSON value.

use bytes::Bytes;
use serde_json::{Value, json};

use super::store::Weighed;
use crate::tick::Tick;

/// A conversation and its items, the oldest first.
#[derive(Clone)]
pub(in crate::sim) struct Conversation {
    /// The object as it is returned.
    pub object: Value,
    pub items: Vec<Value>,
}

impl Weighed for Conversation {
    fn weight(&self) -> usize {
        self.object.weight() + self.items.iter().map(Value::weight).sum::<usize>()
    }
}

/// A file and its content.
#[derive(Clone)]
pub(in crate::sim) struct StoredFile {
    /// The object as it is returned.
    pub object: Value,
    pub content: Bytes,
}

impl StoredFile {
    /// Returns the content as text, if it is text.
    pub(in crate::sim) fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.content).ok()
    }
}

impl Weighed for StoredFile {
    fn weight(&self) -> usize {
        self.object.weight() + self.content.len()
    }
}

/// An upload in parts, which becomes a file when it is completed.
#[derive(Clone)]
pub(in crate::sim) struct Upload {
    /// The object as it is returned.
    pub object: Value,
    /// The id and the content of each part.
    pub parts: Vec<(String, Bytes)>,
}

impl Weighed for Upload {
    fn weight(&self) -> usize {
        self.object.weight() + self.parts.iter().map(|(id, part)| id.len() + part.len()).sum::<usize>()
    }
}

/// A vector store, or a batch of files for one: an object and the files in it, the oldest first.
#[derive(Clone)]
pub(in crate::sim) struct FileSet {
    /// The object as it is returned, without its counts of files.
    pub object: Value,
    /// The `vector_store.file` objects.
    pub files: Vec<Value>,
}

impl FileSet {
    /// Returns the object with its counts of files.
    pub(in crate::sim) fn json(&self) -> Value {
        let mut object = self.object.clone();
        let files = self.files.len();
        object["file_counts"] =
            json!({"in_progress": 0, "completed": files, "failed": 0, "cancelled": 0, "total": files});
        if object["object"] == "vector_store" {
            let bytes = self.files.iter().filter_map(|file| file["usage_bytes"].as_u64());
            object["usage_bytes"] = bytes.sum::<u64>().into();
        }
        object
    }
}

impl Weighed for FileSet {
    fn weight(&self) -> usize {
        self.object.weight() + self.files.iter().map(Value::weight).sum::<usize>()
    }
}

/// A container and its files, the oldest first.
#[derive(Clone)]
pub(in crate::sim) struct Container {
    /// The object as it is returned.
    pub object: Value,
    pub files: Vec<StoredFile>,
}

impl Weighed for Container {
    fn weight(&self) -> usize {
        self.object.weight() + self.files.iter().map(StoredFile::weight).sum::<usize>()
    }
}

/// A batch of requests. Its results exist from the start, but are shown when the batch is due.
#[derive(Clone)]
pub(in crate::sim) struct BatchJob {
    /// The completed object, as it is returned when the batch is due.
    pub object: Value,
    /// When the batch is due.
    pub due: Tick,
    /// When the batch was cancelled, as Unix time, if it was cancelled before it was due.
    pub cancelled_at: Option<u64>,
}

impl BatchJob {
    /// Returns the object as it is at this moment.
    pub(in crate::sim) fn json(&self, now: Tick) -> Value {
        let mut object = self.object.clone();
        if self.cancelled_at.is_none() && now >= self.due {
            return object;
        }
        let status = if self.cancelled_at.is_some() {
            "cancelled"
        } else {
            "in_progress"
        };
        object["status"] = json!(status);
        object["cancelling_at"] = json!(self.cancelled_at);
        object["cancelled_at"] = json!(self.cancelled_at);
        for absent in ["completed_at", "finalizing_at", "output_file_id", "error_file_id"] {
            object[absent] = Value::Null;
        }
        object["request_counts"]["completed"] = json!(0);
        object["request_counts"]["failed"] = json!(0);
        object
    }
}

impl Weighed for BatchJob {
    fn weight(&self) -> usize {
        self.object.weight()
    }
}

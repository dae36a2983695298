//! The objects that the account has made and owns: conversations, files, vector stores, containers, jobs, stored chat
//! completions, and the items of stored responses.
//!
//! Each kind has a store of its own, which is bounded in number and in bytes; the oldest objects are forgotten first.
//! The id of an object is random, so it does not tell which account owns the object.

mod kinds;
mod store;

pub(super) use kinds::{BatchJob, Container, Conversation, FileSet, StoredFile, Upload};
use serde_json::Value;
pub(super) use store::{ObjectStore, Weighed};

/// The maximum number of bytes of files, of uploads and of the files in containers that an account keeps.
const FILE_BYTES: usize = 128 << 20;
/// The maximum number of bytes of the objects of any other kind.
const OBJECT_BYTES: usize = 32 << 20;

/// All stores of one account.
pub(super) struct OwnedObjects {
    /// The items of stored responses and of conversations, by their ids.
    pub items: ObjectStore<Value>,
    pub conversations: ObjectStore<Conversation>,
    pub files: ObjectStore<StoredFile>,
    pub uploads: ObjectStore<Upload>,
    pub vector_stores: ObjectStore<FileSet>,
    /// The batches of files that were attached to vector stores.
    pub file_batches: ObjectStore<FileSet>,
    pub containers: ObjectStore<Container>,
    pub batches: ObjectStore<BatchJob>,
    pub tuning_jobs: ObjectStore<Value>,
    pub evals: ObjectStore<Value>,
    pub eval_runs: ObjectStore<Value>,
    /// Stored chat completions: the object and the messages of its prompt.
    pub completions: ObjectStore<(Value, Vec<Value>)>,
}

impl Default for OwnedObjects {
    fn default() -> Self {
        Self {
            items: ObjectStore::new(OBJECT_BYTES),
            conversations: ObjectStore::new(OBJECT_BYTES),
            files: ObjectStore::new(FILE_BYTES),
            uploads: ObjectStore::new(FILE_BYTES),
            vector_stores: ObjectStore::new(OBJECT_BYTES),
            file_batches: ObjectStore::new(OBJECT_BYTES),
            containers: ObjectStore::new(FILE_BYTES),
            batches: ObjectStore::new(OBJECT_BYTES),
            tuning_jobs: ObjectStore::new(OBJECT_BYTES),
            evals: ObjectStore::new(OBJECT_BYTES),
            eval_runs: ObjectStore::new(OBJECT_BYTES),
            completions: ObjectStore::new(OBJECT_BYTES),
        }
    }
}

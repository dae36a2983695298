//! The files of vector stores, one by one and in batches.

use serde_json::{Value, json};

use super::super::account::Account;
use super::super::api_error::ApiError;
use super::super::head::RecordedHead;
use super::super::objects::FileSet;
use super::super::outgoing::SimResponse;
use super::super::responses::{new_id, unix_seconds};
use super::page::{deleted, found, page};
use super::parsed::{ParsedRequest, field_or, required, strings};

impl Account {
    /// Returns the `vector_store.file` object for a file of this account.
    pub(super) fn attachable(&self, store: &str, file: &str, request: &Value) -> Result<Value, ApiError> {
        let bytes = self.find_file(file)?.content.len();
        let chunks = json!({"type": "static",
            "static": {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400}});
        Ok(
            json!({"id": file, "object": "vector_store.file", "created_at": unix_seconds(), "status": "completed",
            "vector_store_id": store, "last_error": null, "usage_bytes": bytes, "chunking_strategy": chunks,
            "attributes": field_or(request, "attributes", json!({}))}),
        )
    }

    /// Adds files to a vector store. A file that is in the store already is replaced.
    fn attach(&self, store: &str, files: &[Value]) -> Result<(), ApiError> {
        let change = |known: &mut FileSet| {
            known.files.retain(|old| files.iter().all(|new| new["id"] != old["id"]));
            known.files.extend(files.iter().cloned());
        };
        let changed = self.objects.vector_stores.update(store, change);
        changed.ok_or_else(|| ApiError::unknown_vector_store(store))
    }

    /// Answers `POST /v1/vector_stores/{id}/files`.
    pub(in crate::sim) fn attach_file(&self, call: ParsedRequest<'_>, store: &str) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        self.find_store(store)?;
        let entry = self.attachable(store, required(&request, "file_id")?, &request)?;
        self.attach(store, std::slice::from_ref(&entry))?;
        Ok(found(&entry))
    }

    /// Answers `GET /v1/vector_stores/{id}/files`.
    pub(in crate::sim) fn list_store_files(&self, head: &RecordedHead, store: &str) -> Result<SimResponse, ApiError> {
        page(head, self.find_store(store)?.files)
    }

    fn find_attached(&self, store: &str, file: &str) -> Result<Value, ApiError> {
        let files = self.find_store(store)?.files;
        let known = files.into_iter().find(|known| known["id"] == file);
        known.ok_or_else(|| ApiError::unknown_store_file(store, file))
    }

    /// Answers `GET /v1/vector_stores/{id}/files/{file}`.
    pub(in crate::sim) fn store_file_entry(&self, store: &str, file: &str) -> Result<SimResponse, ApiError> {
        self.find_attached(store, file).map(|entry| found(&entry))
    }

    /// Answers `POST /v1/vector_stores/{id}/files/{file}`, which changes the attributes.
    pub(in crate::sim) fn update_store_file(
        &self,
        call: ParsedRequest<'_>,
        store: &str,
        file: &str,
    ) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let mut entry = self.find_attached(store, file)?;
        entry["attributes"] = field_or(&request, "attributes", json!({}));
        self.attach(store, std::slice::from_ref(&entry))?;
        Ok(found(&entry))
    }

    /// Answers `GET /v1/vector_stores/{id}/files/{file}/content`.
    pub(in crate::sim) fn store_file_content(&self, store: &str, file: &str) -> Result<SimResponse, ApiError> {
        self.find_attached(store, file)?;
        let content = self.find_file(file)?;
        let text = content.text().unwrap_or_default();
        Ok(found(
            &json!({"object": "vector_store.file_content.page", "data": [{"type": "text", "text": text}],
            "has_more": false, "next_page": null}),
        ))
    }

    /// Answers `DELETE /v1/vector_stores/{id}/files/{file}`. The file itself is not deleted.
    pub(in crate::sim) fn detach_file(&self, store: &str, file: &str) -> Result<SimResponse, ApiError> {
        self.find_attached(store, file)?;
        self.objects
            .vector_stores
            .update(store, |known| known.files.retain(|entry| entry["id"] != file));
        Ok(deleted(file, "vector_store.file.deleted"))
    }

    /// Answers `POST /v1/vector_stores/{id}/file_batches`.
    pub(in crate::sim) fn attach_batch(&self, call: ParsedRequest<'_>, store: &str) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        self.find_store(store)?;
        let named = request.get("files").and_then(Value::as_array).into_iter().flatten();
        let by_entry = named.map(|entry| self.attachable(store, required(entry, "file_id")?, entry));
        let by_id = strings(&request, "file_ids").map(|file| self.attachable(store, file, &request));
        let files = by_id.chain(by_entry).collect::<Result<Vec<Value>, ApiError>>()?;
        if files.is_empty() {
            return Err(ApiError::missing("file_ids"));
        }
        self.attach(store, &files)?;
        let id = new_id("vsfb");
        let object = json!({"id": id, "object": "vector_store.files_batch", "created_at": unix_seconds(),
            "status": "completed", "vector_store_id": store});
        let batch = FileSet { object, files };
        let answer = found(&batch.json());
        self.objects.file_batches.insert(&id, batch);
        Ok(answer)
    }

    fn find_file_batch(&self, store: &str, batch: &str) -> Result<FileSet, ApiError> {
        self.find_store(store)?;
        let known = self.objects.file_batches.get(batch);
        let known = known.filter(|known| known.object["vector_store_id"] == store);
        known.ok_or_else(|| ApiError::unknown_file_batch(batch))
    }

    /// Answers `GET /v1/vector_stores/{id}/file_batches/{batch}`. A cancelled batch is answered in the same way, because
    /// it is complete when it has been made.
    pub(in crate::sim) fn file_batch(&self, store: &str, batch: &str) -> Result<SimResponse, ApiError> {
        self.find_file_batch(store, batch).map(|batch| found(&batch.json()))
    }

    /// Answers `GET /v1/vector_stores/{id}/file_batches/{batch}/files`.
    pub(in crate::sim) fn list_batch_files(
        &self,
        head: &RecordedHead,
        store: &str,
        batch: &str,
    ) -> Result<SimResponse, ApiError> {
        page(head, self.find_file_batch(store, batch)?.files)
    }
}

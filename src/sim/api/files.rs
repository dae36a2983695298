//! Files.

use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use serde_json::{Value, json};

use super::super::account::Account;
use super::super::api_error::ApiError;
use super::super::head::RecordedHead;
use super::super::objects::StoredFile;
use super::super::outgoing::SimResponse;
use super::super::responses::{new_id, unix_seconds};
use super::forms::SimForm;
use super::page::{ListDefaults, USUAL, deleted, found, page_of, query_value};
use super::parsed::ParsedRequest;

/// The number of files in a page if the request names none.
const LIMIT: usize = 10_000;

impl Account {
    /// Answers `POST /v1/files`.
    pub(in crate::sim) fn upload_file(&self, call: &ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let form = SimForm::read(call)?;
        let purpose = form.text("purpose").ok_or_else(|| ApiError::missing("purpose"))?;
        let (name, content) = form.file("file")?;
        Ok(found(&self.store_file(&name, purpose, content)))
    }

    /// Stores a file and returns its object.
    pub(super) fn store_file(&self, name: &str, purpose: &str, content: Bytes) -> Value {
        let id = new_id("file").replacen('_', "-", 1);
        let object = json!({"id": id, "object": "file", "bytes": content.len(), "created_at": unix_seconds(),
            "expires_at": null, "filename": name, "purpose": purpose, "status": "processed", "status_details": null});
        let file = StoredFile {
            object: object.clone(),
            content,
        };
        self.objects.files.insert(&id, file);
        object
    }

    /// Answers `GET /v1/files`.
    pub(in crate::sim) fn list_files(&self, head: &RecordedHead) -> Result<SimResponse, ApiError> {
        let mut files: Vec<Value> = self.objects.files.list().into_iter().map(|file| file.object).collect();
        if let Some(purpose) = query_value(head, "purpose") {
            files.retain(|file| file["purpose"] == purpose.as_str());
        }
        let defaults = ListDefaults { limit: LIMIT, ..USUAL };
        page_of(head, files, defaults)
    }

    /// Answers `GET /v1/files/{id}`.
    pub(in crate::sim) fn file(&self, id: &str) -> Result<SimResponse, ApiError> {
        self.find_file(id).map(|file| found(&file.object))
    }

    /// Returns a file that the account owns.
    pub(super) fn find_file(&self, id: &str) -> Result<StoredFile, ApiError> {
        self.objects.files.get(id).ok_or_else(|| ApiError::unknown_file(id))
    }

    /// Answers `GET /v1/files/{id}/content`.
    pub(in crate::sim) fn file_content(&self, id: &str) -> Result<SimResponse, ApiError> {
        self.find_file(id).map(|file| download(&file))
    }

    /// Answers `DELETE /v1/files/{id}`.
    pub(in crate::sim) fn delete_file(&self, id: &str) -> Result<SimResponse, ApiError> {
        let known = self.objects.files.remove(id);
        known
            .map(|_| deleted(id, "file"))
            .ok_or_else(|| ApiError::unknown_file(id))
    }
}

/// Answers with the content of a file.
pub(super) fn download(file: &StoredFile) -> SimResponse {
    let name = file.object["filename"]
        .as_str()
        .unwrap_or("file")
        .replace(['"', '\\'], "_");
    SimResponse::whole(StatusCode::OK, file.content.clone())
        .with(CONTENT_TYPE, "application/octet-stream")
        .with(CONTENT_DISPOSITION, &format!("attachment; filename=\"{name}\""))
}

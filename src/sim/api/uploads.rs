//! Uploads: large files that arrive in parts.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::super::account::Account;
use super::super::api_error::ApiError;
use super::super::intake::MAX_BODY;
use super::super::objects::Upload;
use super::super::outgoing::SimResponse;
use super::super::responses::{new_id, unix_seconds};
use super::forms::SimForm;
use super::page::found;
use super::parsed::{ParsedRequest, required, strings};

/// The time in seconds after which an upload expires.
const LIFETIME: u64 = 3600;

impl Account {
    /// Answers `POST /v1/uploads`.
    pub(in crate::sim) fn new_upload(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let (filename, purpose) = (required(&request, "filename")?, required(&request, "purpose")?);
        let bytes = request
            .get("bytes")
            .and_then(Value::as_u64)
            .ok_or_else(|| ApiError::missing("bytes"))?;
        if bytes > MAX_BODY as u64 {
            return Err(ApiError::too_large(MAX_BODY));
        }
        let (id, now) = (new_id("upload"), unix_seconds());
        let object = json!({"id": id, "object": "upload", "bytes": bytes, "created_at": now, "filename": filename,
            "purpose": purpose, "status": "pending", "expires_at": now + LIFETIME, "file": null});
        let upload = Upload {
            object: object.clone(),
            parts: Vec::new(),
        };
        self.objects.uploads.insert(&id, upload);
        Ok(found(&object))
    }

    /// Answers `POST /v1/uploads/{id}/parts`.
    pub(in crate::sim) fn add_part(&self, call: &ParsedRequest<'_>, id: &str) -> Result<SimResponse, ApiError> {
        let (_, data) = SimForm::read(call)?.file("data")?;
        let part = new_id("part");
        let object = json!({"id": part, "object": "upload.part", "created_at": unix_seconds(), "upload_id": id});
        self.pending(id, |upload| upload.parts.push((part, data)))?;
        Ok(found(&object))
    }

    /// Answers `POST /v1/uploads/{id}/complete`. The parts are joined in the order that the request gives.
    pub(in crate::sim) fn complete_upload(&self, call: ParsedRequest<'_>, id: &str) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let upload = self.pending(id, |upload| upload.clone())?;
        let mut content = BytesMut::new();
        for part in strings(&request, "part_ids") {
            let known = upload.parts.iter().find(|(known, _)| known == part);
            let (_, data) = known.ok_or_else(|| ApiError::invalid("part_ids", "must be parts of this upload"))?;
            content.extend_from_slice(data);
        }
        let content: Bytes = content.freeze();
        if upload.object["bytes"] != content.len() {
            return Err(ApiError::invalid("bytes", "must be the size of all parts together"));
        }
        let text = |field: &str| upload.object[field].as_str().unwrap_or_default();
        let file = self.store_file(text("filename"), text("purpose"), content);
        let completed = self.pending(id, |upload| {
            upload.object["status"] = json!("completed");
            upload.object["file"] = file;
            upload.parts.clear();
            upload.object.clone()
        })?;
        Ok(found(&completed))
    }

    /// Answers `POST /v1/uploads/{id}/cancel`.
    pub(in crate::sim) fn cancel_upload(&self, id: &str) -> Result<SimResponse, ApiError> {
        let cancelled = self.pending(id, |upload| {
            upload.object["status"] = json!("cancelled");
            upload.parts.clear();
            upload.object.clone()
        })?;
        Ok(found(&cancelled))
    }

    /// Changes an upload that is neither completed nor cancelled.
    fn pending<R>(&self, id: &str, change: impl FnOnce(&mut Upload) -> R) -> Result<R, ApiError> {
        let changed = self
            .objects
            .uploads
            .update(id, |upload| match upload.object["status"].as_str() {
                Some("pending") => Ok(change(upload)),
                _ => Err(ApiError::invalid("upload_id", "must be a pending upload")),
            });
        changed.ok_or_else(|| ApiError::unknown_upload(id))?
    }
}

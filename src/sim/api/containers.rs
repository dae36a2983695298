//! Containers of the code interpreter, and their files.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::super::account::Account;
use super::super::api_error::ApiError;
use super::super::head::RecordedHead;
use super::super::objects::{Container, StoredFile};
use super::super::outgoing::SimResponse;
use super::super::responses::{new_id, unix_seconds};
use super::files::download;
use super::forms::{SimForm, is_form};
use super::page::{deleted, found, page};
use super::parsed::{ParsedRequest, field_or, required, strings};

impl Account {
    /// Makes a container with these files, which the account owns, and returns its id.
    pub(super) fn new_container(&self, name: &str, files: &[&str]) -> String {
        let (id, now) = (new_id("cntr"), unix_seconds());
        let object = json!({"id": id, "object": "container", "created_at": now, "last_active_at": now, "name": name,
            "status": "running", "memory_limit": "1g",
            "expires_after": {"anchor": "last_active_at", "minutes": 20}});
        let files = files.iter().filter_map(|file| self.objects.files.get(file));
        let files = files.map(|file| {
            let name = file.object["filename"].as_str().unwrap_or_default();
            placed(&id, name, file.content.clone())
        });
        let files = files.collect();
        self.objects.containers.insert(&id, Container { object, files });
        id
    }

    /// Answers `POST /v1/containers`.
    pub(in crate::sim) fn create_container(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let files: Vec<&str> = strings(&request, "file_ids").collect();
        files.iter().try_for_each(|file| self.check_file(file))?;
        let id = self.new_container(required(&request, "name")?, &files);
        self.objects.containers.update(&id, |container| {
            for field in ["expires_after", "memory_limit"] {
                let default = container.object[field].clone();
                container.object[field] = field_or(&request, field, default);
            }
        });
        self.container(&id)
    }

    /// Answers `GET /v1/containers`.
    pub(in crate::sim) fn list_containers(&self, head: &RecordedHead) -> Result<SimResponse, ApiError> {
        let containers = self.objects.containers.list().into_iter();
        page(head, containers.map(|container| container.object).collect())
    }

    fn find_container(&self, id: &str) -> Result<Container, ApiError> {
        self.objects
            .containers
            .get(id)
            .ok_or_else(|| ApiError::unknown_container(id))
    }

    /// Answers `GET /v1/containers/{id}`.
    pub(in crate::sim) fn container(&self, id: &str) -> Result<SimResponse, ApiError> {
        self.find_container(id).map(|container| found(&container.object))
    }

    /// Answers `DELETE /v1/containers/{id}`.
    pub(in crate::sim) fn delete_container(&self, id: &str) -> Result<SimResponse, ApiError> {
        let known = self.objects.containers.remove(id);
        known
            .map(|_| deleted(id, "container.deleted"))
            .ok_or_else(|| ApiError::unknown_container(id))
    }

    /// Answers `POST /v1/containers/{id}/files` with a file in a form, or with the `file_id` of a file of the account.
    pub(in crate::sim) fn add_container_file(
        &self,
        call: ParsedRequest<'_>,
        id: &str,
    ) -> Result<SimResponse, ApiError> {
        let kind = call.head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let form = if kind.is_some_and(is_form) {
            Some(SimForm::read(&call)?)
        } else {
            None
        };
        let named = match &form {
            Some(form) => form.text("file_id").map(str::to_owned),
            None => Some(required(&call.json?, "file_id")?.to_owned()),
        };
        let (name, content) = match (named, &form) {
            (Some(file), _) => {
                let file = self.find_file(&file)?;
                (
                    file.object["filename"].as_str().unwrap_or_default().to_owned(),
                    file.content,
                )
            }
            (None, Some(form)) => form.file("file")?,
            (None, None) => return Err(ApiError::missing("file")),
        };
        let file = placed(id, &name, content);
        let object = file.object.clone();
        let changed = self
            .objects
            .containers
            .update(id, |container| container.files.push(file));
        changed
            .map(|()| found(&object))
            .ok_or_else(|| ApiError::unknown_container(id))
    }

    /// Answers `GET /v1/containers/{id}/files`.
    pub(in crate::sim) fn list_container_files(&self, head: &RecordedHead, id: &str) -> Result<SimResponse, ApiError> {
        let files = self.find_container(id)?.files.into_iter();
        page(head, files.map(|file| file.object).collect())
    }

    fn find_in_container(&self, id: &str, file: &str) -> Result<StoredFile, ApiError> {
        let files = self.find_container(id)?.files.into_iter();
        let known = { files }.find(|known| known.object["id"] == file);
        known.ok_or_else(|| ApiError::unknown_container_file(id, file))
    }

    /// Answers `GET /v1/containers/{id}/files/{file}`.
    pub(in crate::sim) fn container_file(&self, id: &str, file: &str) -> Result<SimResponse, ApiError> {
        self.find_in_container(id, file).map(|file| found(&file.object))
    }

    /// Answers `GET /v1/containers/{id}/files/{file}/content`.
    pub(in crate::sim) fn container_file_content(&self, id: &str, file: &str) -> Result<SimResponse, ApiError> {
        self.find_in_container(id, file).map(|file| download(&file))
    }

    /// Answers `DELETE /v1/containers/{id}/files/{file}`.
    pub(in crate::sim) fn delete_container_file(&self, id: &str, file: &str) -> Result<SimResponse, ApiError> {
        self.find_in_container(id, file)?;
        self.objects
            .containers
            .update(id, |known| known.files.retain(|known| known.object["id"] != file));
        Ok(deleted(file, "container.file.deleted"))
    }
}

/// Returns a file in a container.
fn placed(container: &str, name: &str, content: Bytes) -> StoredFile {
    let object: Value = json!({"id": new_id("cfile"), "object": "container.file", "created_at": unix_seconds(),
        "bytes": content.len(), "container_id": container, "path": format!("/mnt/data/{name}"), "source": "user"});
    StoredFile { object, content }
}

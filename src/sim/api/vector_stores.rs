//! Vector stores: made, listed, changed, deleted and searched.

use serde_json::{Value, json};

use super::super::account::Account;
use super::super::api_error::ApiError;
use super::super::head::RecordedHead;
use super::super::objects::FileSet;
use super::super::outgoing::SimResponse;
use super::super::responses::{new_id, unix_seconds};
use super::page::{deleted, found, page};
use super::parsed::{ParsedRequest, field_or, replace_fields, strings};

/// The maximum number of results of a search if the request names none.
const RESULTS: usize = 10;

impl Account {
    /// Answers `POST /v1/vector_stores`.
    pub(in crate::sim) fn new_vector_store(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let request = call.json_or_empty()?;
        let (id, now) = (new_id("vs"), unix_seconds());
        let files = strings(&request, "file_ids").map(|file| self.attachable(&id, file, &request));
        let files = files.collect::<Result<Vec<Value>, ApiError>>()?;
        let object = json!({"id": id, "object": "vector_store", "created_at": now, "last_active_at": now,
            "name": field_or(&request, "name", Value::Null), "status": "completed", "usage_bytes": 0,
            "description": field_or(&request, "description", Value::Null), "expires_at": null,
            "expires_after": field_or(&request, "expires_after", Value::Null),
            "metadata": field_or(&request, "metadata", json!({}))});
        let store = FileSet { object, files };
        let answer = found(&store.json());
        self.objects.vector_stores.insert(&id, store);
        Ok(answer)
    }

    /// Answers `GET /v1/vector_stores`.
    pub(in crate::sim) fn list_vector_stores(&self, head: &RecordedHead) -> Result<SimResponse, ApiError> {
        page(
            head,
            self.objects.vector_stores.list().iter().map(FileSet::json).collect(),
        )
    }

    /// Answers `GET /v1/vector_stores/{id}`.
    pub(in crate::sim) fn vector_store(&self, id: &str) -> Result<SimResponse, ApiError> {
        self.find_store(id).map(|store| found(&store.json()))
    }

    /// Returns a vector store that the account owns.
    pub(super) fn find_store(&self, id: &str) -> Result<FileSet, ApiError> {
        let known = self.objects.vector_stores.get(id);
        known.ok_or_else(|| ApiError::unknown_vector_store(id))
    }

    /// Answers `POST /v1/vector_stores/{id}`.
    pub(in crate::sim) fn update_vector_store(
        &self,
        call: ParsedRequest<'_>,
        id: &str,
    ) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let change = |store: &mut FileSet| {
            replace_fields(&mut store.object, &request, &["name", "expires_after", "metadata"]);
            found(&store.json())
        };
        let changed = self.objects.vector_stores.update(id, change);
        changed.ok_or_else(|| ApiError::unknown_vector_store(id))
    }

    /// Answers `DELETE /v1/vector_stores/{id}`. The files are not deleted.
    pub(in crate::sim) fn delete_vector_store(&self, id: &str) -> Result<SimResponse, ApiError> {
        let known = self.objects.vector_stores.remove(id);
        known
            .map(|_| deleted(id, "vector_store.deleted"))
            .ok_or_else(|| ApiError::unknown_vector_store(id))
    }

    /// Answers `POST /v1/vector_stores/{id}/search`.
    pub(in crate::sim) fn search_vector_store(
        &self,
        call: ParsedRequest<'_>,
        id: &str,
    ) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        self.find_store(id)?;
        let queries: Vec<String> = match request.get("query") {
            Some(Value::String(query)) => vec![query.clone()],
            Some(Value::Array(_)) => strings(&request, "query").map(str::to_owned).collect(),
            _ => return Err(ApiError::missing("query")),
        };
        let limit = request.get("max_num_results").and_then(Value::as_u64);
        let mut results = self.search_store(id, &queries);
        results.truncate(limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(RESULTS));
        Ok(found(
            &json!({"object": "vector_store.search_results.page", "search_query": queries, "data": results,
            "has_more": false, "next_page": null}),
        ))
    }

    /// Returns the files of a vector store that have words in common with the queries, the best first. The score is the
    /// share of the words that the file contains.
    pub(super) fn search_store(&self, id: &str, queries: &[String]) -> Vec<Value> {
        let Some(store) = self.objects.vector_stores.get(id) else {
            return Vec::new();
        };
        let joined = queries.join(" ").to_lowercase();
        let words: Vec<&str> = joined
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .collect();
        let result = |entry: &Value| {
            let file = self.objects.files.get(entry["id"].as_str()?)?;
            let text = file.text()?;
            let lower = text.to_lowercase();
            let hits = words.iter().filter(|word| lower.contains(**word)).count();
            let score = hits as f64 / words.len().max(1) as f64;
            (hits > 0).then(|| {
                json!({"file_id": entry["id"], "filename": file.object["filename"], "score": score,
                    "attributes": entry["attributes"], "content": [{"type": "text", "text": text}]})
            })
        };
        let mut results: Vec<Value> = store.files.iter().filter_map(result).collect();
        results.sort_by(|a, b| {
            let score = |result: &Value| result["score"].as_f64().unwrap_or_default();
            score(b).total_cmp(&score(a))
        });
        results
    }
}

//! Batches: the requests of a file, and a file with their answers.

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::super::account::Account;
use super::super::api_error::ApiError;
use super::super::body::BodySource;
use super::super::head::RecordedHead;
use super::super::lenient;
use super::super::objects::BatchJob;
use super::super::outgoing::SimResponse;
use super::super::responses::{new_id, unix_seconds};
use super::page::{found, page};
use super::parsed::{ParsedRequest, field_or, required};

/// The endpoints whose requests a batch can hold.
const ENDPOINTS: [&str; 3] = ["/v1/responses", "/v1/chat/completions", "/v1/embeddings"];
/// The time in seconds after which a batch expires.
const LIFETIME: u64 = 24 * 3600;

impl Account {
    /// Answers `POST /v1/batches`. The requests are answered at once; the answers are shown when the batch is due.
    pub(in crate::sim) fn new_batch(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let (input, endpoint) = (required(&request, "input_file_id")?, required(&request, "endpoint")?);
        if !ENDPOINTS.contains(&endpoint) {
            return Err(ApiError::invalid(
                "endpoint",
                &format!("must be one of {}", ENDPOINTS.join(", ")),
            ));
        }
        let file = self.find_file(input)?;
        let (mut outputs, mut errors) = (String::new(), String::new());
        let lines = file
            .text()
            .unwrap_or_default()
            .lines()
            .filter(|line| !line.trim().is_empty());
        let (mut total, mut failed) = (0, 0);
        for line in lines {
            total += 1;
            let (is_ok, answer) = self.batch_line(line, endpoint);
            failed += u32::from(!is_ok);
            let out = if is_ok { &mut outputs } else { &mut errors };
            out.push_str(&answer.to_string());
            out.push('\n');
        }
        let (id, now) = (new_id("batch"), unix_seconds());
        let kept = |kind: &str, lines: String| match lines.is_empty() {
            true => Value::Null,
            false => self.store_file(&format!("{id}_{kind}.jsonl"), "batch_output", lines.into())["id"].clone(),
        };
        let delay = call.background.unwrap_or(self.config.background);
        let due_at = now + delay.as_secs();
        let object = json!({"id": id, "object": "batch", "endpoint": endpoint, "errors": null, "input_file_id": input,
            "completion_window": field_or(&request, "completion_window", json!("24h")), "status": "completed",
            "output_file_id": kept("output", outputs), "error_file_id": kept("error", errors), "created_at": now,
            "in_progress_at": now, "expires_at": now + LIFETIME, "finalizing_at": due_at, "completed_at": due_at,
            "failed_at": null, "expired_at": null, "cancelling_at": null, "cancelled_at": null,
            "request_counts": {"total": total, "completed": total - failed, "failed": failed},
            "metadata": field_or(&request, "metadata", Value::Null)});
        let batch = BatchJob {
            object,
            due: self.clock.now().after(delay),
            cancelled_at: None,
        };
        self.objects.batches.insert(&id, batch.clone());
        // A batch that has just been made is being validated.
        let mut object = batch.json(crate::tick::Tick::ZERO);
        object["status"] = json!("validating");
        object["in_progress_at"] = Value::Null;
        Ok(found(&object))
    }

    /// Answers one line of the input. Returns whether the request succeeded, and the line of the output.
    fn batch_line(&self, line: &str, endpoint: &str) -> (bool, Value) {
        let request: Value = lenient::parse(line.as_bytes()).unwrap_or_default();
        let answer = match request.get("url").and_then(Value::as_str) {
            Some(url) if url == endpoint && !request["body"]["stream"].as_bool().unwrap_or_default() => {
                self.answer_within(endpoint, request["body"].clone())
            }
            _ => Err(ApiError::invalid(
                "url",
                "must be the endpoint of the batch, and requests must not stream",
            )),
        };
        let (status, body) = match answer {
            Ok(body) => (200, body),
            Err(error) => (error.status.as_u16(), error.json().clone()),
        };
        let line = json!({"id": new_id("batch_req"), "custom_id": request["custom_id"], "error": null,
            "response": {"status_code": status, "request_id": new_id("req"), "body": body}});
        (status == 200, line)
    }

    /// Answers a request within a batch.
    fn answer_within(&self, endpoint: &str, body: Value) -> Result<Value, ApiError> {
        let head = RecordedHead {
            method: Method::POST,
            target: endpoint.to_owned(),
            headers: HeaderMap::new(),
            connection: 0,
            nth: 0,
        };
        let call = ParsedRequest {
            head: &head,
            plain: Bytes::from(body.to_string()),
            json: Ok(body),
            items: None,
            background: None,
        };
        let answer = match endpoint {
            "/v1/responses" => self.respond(call),
            "/v1/chat/completions" => self.chat(call),
            _ => self.embed(call),
        }?;
        match answer.source {
            BodySource::Whole(Some(body)) => Ok(serde_json::from_slice(&body).expect("the answer is JSON")),
            _ => Ok(Value::Null),
        }
    }

    /// Answers `GET /v1/batches`.
    pub(in crate::sim) fn list_batches(&self, head: &RecordedHead) -> Result<SimResponse, ApiError> {
        let now = self.clock.now();
        page(
            head,
            self.objects
                .batches
                .list()
                .iter()
                .map(|batch| batch.json(now))
                .collect(),
        )
    }

    /// Answers `GET /v1/batches/{id}`.
    pub(in crate::sim) fn batch(&self, id: &str) -> Result<SimResponse, ApiError> {
        let known = self
            .objects
            .batches
            .get(id)
            .ok_or_else(|| ApiError::unknown_batch(id))?;
        Ok(found(&known.json(self.clock.now())))
    }

    /// Answers `POST /v1/batches/{id}/cancel`.
    pub(in crate::sim) fn cancel_batch(&self, id: &str) -> Result<SimResponse, ApiError> {
        let now = self.clock.now();
        let change = |batch: &mut BatchJob| {
            if batch.cancelled_at.is_none() && now < batch.due {
                batch.cancelled_at = Some(unix_seconds());
            }
            found(&batch.json(now))
        };
        self.objects
            .batches
            .update(id, change)
            .ok_or_else(|| ApiError::unknown_batch(id))
    }
}

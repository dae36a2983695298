//! Fine-tuning jobs. They run until they are cancelled, because there is no model behind the account.

use serde_json::{Value, json};

use super::super::account::Account;
use super::super::api_error::ApiError;
use super::super::head::RecordedHead;
use super::super::outgoing::SimResponse;
use super::super::responses::{new_id, unix_seconds};
use super::page::{found, page};
use super::parsed::{ParsedRequest, field_or, required};

impl Account {
    /// Answers `POST /v1/fine_tuning/jobs`.
    pub(in crate::sim) fn new_tuning_job(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let model = self.check_model(&request)?;
        let training = required(&request, "training_file")?;
        let validation = request.get("validation_file").and_then(Value::as_str);
        [Some(training), validation]
            .into_iter()
            .flatten()
            .try_for_each(|file| self.check_file(file))?;
        let id = new_id("ftjob").replacen('_', "-", 1);
        let auto = json!({"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"});
        let object = json!({"id": id, "object": "fine_tuning.job", "created_at": unix_seconds(), "model": model,
            "training_file": training, "validation_file": validation, "status": "running", "fine_tuned_model": null,
            "finished_at": null, "estimated_finish": null, "error": null, "trained_tokens": null, "result_files": [],
            "organization_id": self.config.name, "integrations": [], "seed": field_or(&request, "seed", json!(0)),
            "hyperparameters": field_or(&request, "hyperparameters", auto),
            "method": field_or(&request, "method", json!({"type": "supervised"})),
            "metadata": field_or(&request, "metadata", json!({}))});
        self.objects.tuning_jobs.insert(&id, object.clone());
        Ok(found(&object))
    }

    /// Answers `GET /v1/fine_tuning/jobs`.
    pub(in crate::sim) fn list_tuning_jobs(&self, head: &RecordedHead) -> Result<SimResponse, ApiError> {
        page(head, self.objects.tuning_jobs.list())
    }

    /// Answers `GET /v1/fine_tuning/jobs/{id}`.
    pub(in crate::sim) fn tuning_job(&self, id: &str) -> Result<SimResponse, ApiError> {
        self.find_tuning_job(id).map(|job| found(&job))
    }

    fn find_tuning_job(&self, id: &str) -> Result<Value, ApiError> {
        self.objects
            .tuning_jobs
            .get(id)
            .ok_or_else(|| ApiError::unknown_tuning_job(id))
    }

    /// Answers `POST /v1/fine_tuning/jobs/{id}/cancel`, `pause` and `resume`.
    pub(in crate::sim) fn steer_tuning_job(&self, id: &str, action: &str) -> Result<SimResponse, ApiError> {
        let change = |job: &mut Value| {
            let status = match (job["status"].as_str(), action) {
                (Some("cancelled"), _) => {
                    return Err(ApiError::invalid("fine_tune_id", "must be a job that has not ended"));
                }
                (_, "cancel") => "cancelled",
                (_, "pause") => "paused",
                _ => "running",
            };
            job["status"] = json!(status);
            Ok(found(job))
        };
        let changed = self.objects.tuning_jobs.update(id, change);
        changed.ok_or_else(|| ApiError::unknown_tuning_job(id))?
    }

    /// Answers `GET /v1/fine_tuning/jobs/{id}/events`.
    pub(in crate::sim) fn tuning_events(&self, head: &RecordedHead, id: &str) -> Result<SimResponse, ApiError> {
        let job = self.find_tuning_job(id)?;
        let event = json!({"id": id.replacen("ftjob", "ftevent", 1), "object": "fine_tuning.job.event",
            "created_at": job["created_at"], "level": "info", "message": "The job has started.", "type": "message",
            "data": null});
        page(head, vec![event])
    }

    /// Answers `GET /v1/fine_tuning/jobs/{id}/checkpoints`. A job that has not ended has none.
    pub(in crate::sim) fn tuning_checkpoints(&self, head: &RecordedHead, id: &str) -> Result<SimResponse, ApiError> {
        self.find_tuning_job(id)?;
        page(head, Vec::new())
    }
}

//! Evals and their runs.

use serde_json::{Value, json};

use super::super::account::Account;
use super::super::api_error::ApiError;
use super::super::head::RecordedHead;
use super::super::outgoing::SimResponse;
use super::super::responses::{new_id, unix_seconds};
use super::page::{found, page};
use super::parsed::{ParsedRequest, field_or, replace_fields};

impl Account {
    /// Answers `POST /v1/evals`.
    pub(in crate::sim) fn new_eval(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let field = |name: &str| request.get(name).cloned().ok_or_else(|| ApiError::missing(name));
        let criteria = field("testing_criteria")?;
        let mut source = field("data_source_config")?;
        // The answer has the schema of the items under another name than the request.
        source["schema"] = match source.as_object_mut().and_then(|source| source.remove("item_schema")) {
            Some(schema) => schema,
            None if source.is_object() => json!({"type": "object"}),
            None => return Err(ApiError::wrong_type("data_source_config", "an object")),
        };
        let id = new_id("eval");
        let object = json!({"id": id, "object": "eval", "created_at": unix_seconds(),
            "name": field_or(&request, "name", json!("eval")), "testing_criteria": criteria,
            "data_source_config": source,
            "metadata": field_or(&request, "metadata", json!({}))});
        self.objects.evals.insert(&id, object.clone());
        Ok(found(&object))
    }

    /// Answers `GET /v1/evals`.
    pub(in crate::sim) fn list_evals(&self, head: &RecordedHead) -> Result<SimResponse, ApiError> {
        page(head, self.objects.evals.list())
    }

    /// Answers `GET /v1/evals/{id}`.
    pub(in crate::sim) fn eval(&self, id: &str) -> Result<SimResponse, ApiError> {
        self.find_eval(id).map(|eval| found(&eval))
    }

    fn find_eval(&self, id: &str) -> Result<Value, ApiError> {
        self.objects.evals.get(id).ok_or_else(|| ApiError::unknown_eval(id))
    }

    /// Answers `POST /v1/evals/{id}`.
    pub(in crate::sim) fn update_eval(&self, call: ParsedRequest<'_>, id: &str) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let change = |eval: &mut Value| {
            replace_fields(eval, &request, &["name", "metadata"]);
            found(eval)
        };
        self.objects
            .evals
            .update(id, change)
            .ok_or_else(|| ApiError::unknown_eval(id))
    }

    /// Answers `DELETE /v1/evals/{id}`.
    pub(in crate::sim) fn delete_eval(&self, id: &str) -> Result<SimResponse, ApiError> {
        let known = self.objects.evals.remove(id);
        let gone = found(&json!({"object": "eval.deleted", "deleted": true, "eval_id": id}));
        known.map(|_| gone).ok_or_else(|| ApiError::unknown_eval(id))
    }

    /// Answers `POST /v1/evals/{id}/runs`.
    pub(in crate::sim) fn new_run(&self, call: ParsedRequest<'_>, eval: &str) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        self.find_eval(eval)?;
        let source = request
            .get("data_source")
            .ok_or_else(|| ApiError::missing("data_source"))?;
        if let Some(file) = source.pointer("/source/id").and_then(Value::as_str) {
            self.check_file(file)?;
        }
        let id = new_id("evalrun");
        let object = json!({"id": id, "object": "eval.run", "eval_id": eval, "created_at": unix_seconds(),
            "status": "queued", "model": field_or(source, "model", Value::Null), "data_source": source,
            "name": field_or(&request, "name", json!("run")), "report_url": "", "error": null,
            "per_model_usage": [], "per_testing_criteria_results": [],
            "result_counts": {"total": 0, "passed": 0, "failed": 0, "errored": 0},
            "metadata": field_or(&request, "metadata", json!({}))});
        self.objects.eval_runs.insert(&id, object.clone());
        Ok(found(&object))
    }

    /// Answers `GET /v1/evals/{id}/runs`.
    pub(in crate::sim) fn list_runs(&self, head: &RecordedHead, eval: &str) -> Result<SimResponse, ApiError> {
        self.find_eval(eval)?;
        let mut runs = self.objects.eval_runs.list();
        runs.retain(|run| run["eval_id"] == eval);
        page(head, runs)
    }

    fn find_run(&self, eval: &str, run: &str) -> Result<Value, ApiError> {
        self.find_eval(eval)?;
        let known = self.objects.eval_runs.get(run).filter(|known| known["eval_id"] == eval);
        known.ok_or_else(|| ApiError::unknown_run(run))
    }

    /// Answers `GET /v1/evals/{id}/runs/{run}`.
    pub(in crate::sim) fn run(&self, eval: &str, run: &str) -> Result<SimResponse, ApiError> {
        self.find_run(eval, run).map(|run| found(&run))
    }

    /// Answers `POST /v1/evals/{id}/runs/{run}`, which cancels the run.
    pub(in crate::sim) fn cancel_run(&self, eval: &str, run: &str) -> Result<SimResponse, ApiError> {
        self.find_run(eval, run)?;
        let cancelled = self.objects.eval_runs.update(run, |known| {
            known["status"] = json!("canceled");
            found(known)
        });
        cancelled.ok_or_else(|| ApiError::unknown_run(run))
    }

    /// Answers `DELETE /v1/evals/{id}/runs/{run}`.
    pub(in crate::sim) fn delete_run(&self, eval: &str, run: &str) -> Result<SimResponse, ApiError> {
        self.find_run(eval, run)?;
        self.objects.eval_runs.remove(run);
        Ok(found(
            &json!({"object": "eval.run.deleted", "deleted": true, "run_id": run}),
        ))
    }

    /// Answers `GET /v1/evals/{id}/runs/{run}/output_items`. A run that has not ended has none.
    pub(in crate::sim) fn run_items(
        &self,
        head: &RecordedHead,
        eval: &str,
        run: &str,
    ) -> Result<SimResponse, ApiError> {
        self.find_run(eval, run)?;
        page(head, Vec::new())
    }
}

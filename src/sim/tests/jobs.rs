//! Tests of batches, fine-tuning jobs and evals.

use super::*;

#[tokio::test]
async fn a_batch_answers_every_line_of_its_file_when_it_is_due() {
    let config = SimConfig {
        background: Duration::from_millis(20),
        only_models: true,
        ..SimConfig::default()
    };
    let sim = start(config).await;
    let line = |id: &str, model: &str| json!({"custom_id": id, "method": "POST", "url": "/v1/responses", "body": {"model": model, "input": "x"}});
    let lines = format!("{}\n{}\nnot json\n", line("one", "gpt-5.2"), line("two", "gpt-9"));
    let input = upload(&sim, "in.jsonl", lines.as_bytes()).await;
    let body = json!({"input_file_id": input, "endpoint": "/v1/responses", "completion_window": "24h"});
    let made = post(&sim, "/v1/batches", &body).await.json();
    assert_eq!(
        (&made["status"], &made["output_file_id"]),
        (&json!("validating"), &Value::Null)
    );
    let path = format!("/v1/batches/{}", id_of(&made));
    let poll = async {
        loop {
            let batch = get(&sim, &path).await.json();
            if batch["status"] == "completed" {
                break batch;
            }
            assert_eq!(
                (&batch["status"], &batch["output_file_id"]),
                (&json!("in_progress"), &Value::Null)
            );
        }
    };
    let done = timeout(PATIENCE, poll).await.unwrap();
    assert_eq!(done["request_counts"], json!({"total": 3, "completed": 1, "failed": 2}));
    let lines = async |field: &str| {
        let content = get(&sim, &format!("/v1/files/{}/content", done[field].as_str().unwrap())).await;
        let text = String::from_utf8(content.body.to_vec()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect::<Vec<Value>>()
    };
    let outputs = lines("output_file_id").await;
    assert_eq!(outputs.len(), 1);
    assert_eq!(
        (&outputs[0]["custom_id"], &outputs[0]["response"]["status_code"]),
        (&json!("one"), &json!(200))
    );
    assert_eq!(outputs[0]["response"]["body"]["object"], "response");
    let errors = lines("error_file_id").await;
    assert_eq!((errors.len(), &errors[0]["response"]["status_code"]), (2, &json!(404)));
    assert_eq!(get(&sim, "/v1/batches").await.json()["data"][0], done);
    let late = post(&sim, &format!("{path}/cancel"), &json!({})).await.json();
    assert_eq!(late["status"], "completed");
    sim.stop().await;
}

#[tokio::test]
async fn a_batch_can_be_cancelled_before_it_is_due() {
    let sim = start_named("sim-a").await;
    let act = super::super::Act {
        background: Some(Duration::from_secs(3600)),
        ..Default::default()
    };
    sim.script().once("/v1/batches", act);
    let input = upload(&sim, "in.jsonl", b"").await;
    let body = json!({"input_file_id": input, "endpoint": "/v1/embeddings", "completion_window": "24h"});
    let path = format!("/v1/batches/{}", id_of(&post(&sim, "/v1/batches", &body).await.json()));
    assert_eq!(get(&sim, &path).await.json()["status"], "in_progress");
    assert_eq!(
        post(&sim, &format!("{path}/cancel"), &json!({})).await.json()["status"],
        "cancelled"
    );
    assert_eq!(get(&sim, &path).await.json()["status"], "cancelled");
    sim.stop().await;
}

#[tokio::test]
async fn fine_tuning_jobs_and_evals_have_a_life() {
    let sim = start_named("sim-a").await;
    let file = upload(&sim, "train.jsonl", b"{}").await;
    let job = post(
        &sim,
        "/v1/fine_tuning/jobs",
        &json!({"model": "m", "training_file": file}),
    )
    .await
    .json();
    assert_eq!(
        (&job["object"], &job["status"]),
        (&json!("fine_tuning.job"), &json!("running"))
    );
    let path = format!("/v1/fine_tuning/jobs/{}", id_of(&job));
    assert_eq!(
        get(&sim, &format!("{path}/events")).await.json()["data"][0]["object"],
        "fine_tuning.job.event"
    );
    assert_eq!(
        post(&sim, &format!("{path}/pause"), &json!({})).await.json()["status"],
        "paused"
    );
    assert_eq!(
        post(&sim, &format!("{path}/cancel"), &json!({})).await.json()["status"],
        "cancelled"
    );
    assert_eq!(
        post(&sim, &format!("{path}/cancel"), &json!({})).await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        get(&sim, "/v1/fine_tuning/jobs").await.json()["data"][0]["id"],
        job["id"]
    );
    let body = json!({"name": "e", "data_source_config": {"type": "logs"}, "testing_criteria": []});
    let eval = post(&sim, "/v1/evals", &body).await.json();
    let path = format!("/v1/evals/{}", id_of(&eval));
    let run = post(
        &sim,
        &format!("{path}/runs"),
        &json!({"data_source": {"type": "responses"}}),
    )
    .await
    .json();
    assert_eq!(run["eval_id"], eval["id"]);
    let run_path = format!("{path}/runs/{}", id_of(&run));
    assert_eq!(post(&sim, &run_path, &json!({})).await.json()["status"], "canceled");
    assert_eq!(
        get(&sim, &format!("{path}/runs")).await.json()["data"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(delete(&sim, &run_path).await.json()["deleted"], true);
    assert_eq!(post(&sim, &path, &json!({"name": "f"})).await.json()["name"], "f");
    assert_eq!(delete(&sim, &path).await.json()["eval_id"], eval["id"]);
    sim.stop().await;
}

//! Tests that an account refuses every id that another account made, and that no id tells the account.

use super::*;

/// Requests that name objects as `$kind`, one in each line: method, target and body. Those that delete come last.
const REQUESTS: &str = r#"
GET /v1/responses/$response
GET /v1/responses/$response?stream=true
GET /v1/responses/$response/input_items
POST /v1/responses/$response/cancel
POST /v1/responses {"model": "m", "input": "x", "prompt_cache_options": {"comparison_response_id": "$response"}}
GET /v1/conversations/$conversation
POST /v1/conversations/$conversation {"metadata": {}}
GET /v1/conversations/$conversation/items
POST /v1/conversations/$conversation/items {"items": [{"role": "user", "content": "y"}]}
POST /v1/responses {"model": "m", "input": "x", "conversation": "$conversation"}
POST /v1/responses {"model": "m", "input": "x", "conversation": {"id": "$conversation"}}
GET /v1/files/$file
GET /v1/files/$file/content
POST /v1/responses {"model": "m", "input": [{"role": "user", "content": [{"type": "input_file", "file_id": "$file"}]}]}
POST /v1/responses {"model": "m", "input": [{"role": "user", "content": [{"type": "input_image", "file_id": "$file"}]}]}
POST /v1/conversations {"items": [{"role": "user", "content": [{"type": "input_file", "file_id": "$file"}]}]}
POST /v1/chat/completions {"model": "m", "messages": [{"role": "user", "content": [{"file": {"file_id": "$file"}}]}]}
POST /v1/uploads/$upload/complete {"part_ids": []}
GET /v1/vector_stores/$store
GET /v1/vector_stores/$store/files
GET /v1/vector_stores/$store/files/$file
GET /v1/vector_stores/$store/file_batches/$set
POST /v1/vector_stores/$store/search {"query": "harbour"}
POST /v1/vector_stores {"file_ids": ["$file"]}
POST /v1/responses {"model": "m", "input": "x", "tools": [{"type": "file_search", "vector_store_ids": ["$store"]}]}
GET /v1/containers/$container
GET /v1/containers/$container/files
POST /v1/containers {"name": "c", "file_ids": ["$file"]}
POST /v1/responses {"model": "m", "input": "x", "tools": [{"type": "code_interpreter", "container": "$container"}]}
POST /v1/responses {"model": "m", "input": "x", "tools": [{"container": {"type": "auto", "file_ids": ["$file"]}}]}
GET /v1/batches/$batch
POST /v1/batches/$batch/cancel
POST /v1/batches {"input_file_id": "$file", "endpoint": "/v1/embeddings"}
GET /v1/fine_tuning/jobs/$job
GET /v1/fine_tuning/jobs/$job/events
POST /v1/fine_tuning/jobs {"model": "m", "training_file": "$file"}
POST /v1/fine_tuning/jobs/$job/cancel
GET /v1/evals/$eval
GET /v1/evals/$eval/runs/$run
POST /v1/evals/$eval/runs/$run
GET /v1/chat/completions/$completion
GET /v1/chat/completions/$completion/messages
POST /v1/chat/completions/$completion {"metadata": {}}
DELETE /v1/chat/completions/$completion
DELETE /v1/evals/$eval/runs/$run
DELETE /v1/evals/$eval
DELETE /v1/containers/$container
DELETE /v1/vector_stores/$store
DELETE /v1/files/$file
DELETE /v1/conversations/$conversation
DELETE /v1/responses/$response
"#;

/// Makes one object of each kind, and returns the kinds with the ids.
async fn make_objects(sim: &Sim) -> Vec<(&'static str, String)> {
    let file = upload(sim, "notes.txt", b"The harbour opens at seven.").await;
    let mut made = vec![("$file", file)];
    let creations = [
        ("$response", "responses", json!({"model": "m", "input": "x"})),
        ("$conversation", "conversations", json!({})),
        ("$store", "vector_stores", json!({"name": "s", "file_ids": ["$file"]})),
        (
            "$set",
            "vector_stores/$store/file_batches",
            json!({"file_ids": ["$file"]}),
        ),
        ("$container", "containers", json!({"name": "c", "file_ids": ["$file"]})),
        (
            "$upload",
            "uploads",
            json!({"filename": "f", "purpose": "assistants", "bytes": 0, "mime_type": "x/y"}),
        ),
        (
            "$batch",
            "batches",
            json!({"input_file_id": "$file", "endpoint": "/v1/embeddings"}),
        ),
        (
            "$job",
            "fine_tuning/jobs",
            json!({"model": "m", "training_file": "$file"}),
        ),
        (
            "$eval",
            "evals",
            json!({"data_source_config": {"type": "logs"}, "testing_criteria": []}),
        ),
        (
            "$run",
            "evals/$eval/runs",
            json!({"data_source": {"type": "responses"}}),
        ),
        (
            "$completion",
            "chat/completions",
            json!({"model": "m", "store": true, "messages": []}),
        ),
    ];
    for (kind, target, body) in creations {
        let (target, body) = (fill(target, &made), fill(&body.to_string(), &made));
        let sent = request("POST", &format!("/v1/{target}"), &[], body);
        made.push((kind, id_of(&send(sim, sent).await.unwrap().json())));
    }
    made
}

/// Replaces the kinds in a text by ids.
fn fill(text: &str, ids: &[(&str, String)]) -> String {
    ids.iter()
        .fold(text.to_owned(), |text, (kind, id)| text.replace(kind, id))
}

#[tokio::test]
async fn every_object_is_found_at_its_own_account_only() {
    let a = start_named("sim-a").await;
    let lax = SimConfig {
        name: "sim-b".to_owned(),
        refuse_foreign: false,
        ..SimConfig::default()
    };
    let b = start(lax).await;
    let ids = make_objects(&a).await;
    for (kind, id) in &ids {
        assert!(!id.contains("sim"), "the id of {kind} tells the account: {id}");
    }
    let (mut seen, lines) = (0, REQUESTS.lines().filter(|line| !line.is_empty()));
    for line in lines {
        let filled = fill(line, &ids);
        let mut words = filled.splitn(3, ' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let body = words.next().unwrap_or_default().to_owned();
        let call = |sim| send(sim, request(method, target, &[], body.clone()));
        let refused = call(&b).await.unwrap();
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{line}: {:?}", refused.body);
        assert_eq!(refused.json()["error"]["type"], "invalid_request_error", "{line}");
        let found = call(&a).await.unwrap();
        assert_eq!(found.status, StatusCode::OK, "{line}: {:?}", found.body);
        seen += 1;
    }
    assert_eq!(seen, 51, "every line is a request");
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn the_errors_have_the_texts_of_openai() {
    let sim = start_named("sim-a").await;
    for (target, message) in [
        ("conversations/conv_1", "Conversation with id 'conv_1' not found."),
        ("files/file-1", "No such File object: file-1"),
        ("vector_stores/vs_1", "Vector store with id 'vs_1' not found."),
        ("containers/cntr_1", "Container with id 'cntr_1' not found."),
        ("batches/batch_1", "No batch found with id 'batch_1'."),
        ("fine_tuning/jobs/ftjob-1", "Could not find fine tune: ftjob-1"),
        ("responses/resp_1", "Response with id 'resp_1' not found."),
    ] {
        let refused = get(&sim, &format!("/v1/{target}")).await;
        assert_eq!(refused.json()["error"]["message"], message);
    }
    let wrong = send(&sim, request("PUT", "/v1/files/file-1", &[], Bytes::new()))
        .await
        .unwrap();
    assert_eq!(wrong.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get(&sim, "/v1/things/1").await.status, StatusCode::NOT_FOUND);
    sim.stop().await;
}

#[tokio::test]
async fn a_stream_can_end_with_another_id_than_it_began_with() {
    let config = SimConfig {
        changes_ids: true,
        ..SimConfig::default()
    };
    let sim = start(config).await;
    let events = ask(&sim, &hello_stream()).await.events();
    let (first, last) = (
        id_of(&events[0]["response"]),
        id_of(&events.last().unwrap()["response"]),
    );
    assert_ne!(first, last);
    assert_eq!(id_of(&events[1]["response"]), first);
    for id in [&first, &last] {
        assert_eq!(
            get(&sim, &format!("/v1/responses/{id}")).await.json()["status"],
            "completed"
        );
        let next = json!({"model": "gpt-5.2", "input": "x", "previous_response_id": id});
        assert_eq!(ask(&sim, &next).await.status, StatusCode::OK);
    }
    assert_eq!(
        delete(&sim, &format!("/v1/responses/{last}")).await.status,
        StatusCode::OK
    );
    assert_eq!(
        get(&sim, &format!("/v1/responses/{first}")).await.status,
        StatusCode::NOT_FOUND
    );
    sim.stop().await;
}

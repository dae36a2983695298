//! Tests that an account refuses every id that another account made, and that no id tells the account.

use super::*;

/// The requests that name objects of account `a`, which account `b` must refuse: method, target and body.
async fn owned_by(a: &Sim) -> Vec<(&'static str, String, Value)> {
    let file = upload(a, "notes.txt", b"The harbour opens at seven.").await;
    let container_file = upload(a, "data.csv", b"1,2").await;
    let batch_lines = json!({"custom_id": "1", "method": "POST", "url": "/v1/embeddings",
        "body": {"model": "m", "input": "x"}});
    let batch_input = upload(a, "batch.jsonl", batch_lines.to_string().as_bytes()).await;
    let made = async |target: &str, body: Value| id_of(&post(a, target, &body).await.json());
    let response = made("/v1/responses", json!({"model": "m", "input": "x"})).await;
    let conversation = made(
        "/v1/conversations",
        json!({"items": [{"role": "user", "content": "x"}]}),
    )
    .await;
    let store = made("/v1/vector_stores", json!({"name": "s", "file_ids": [file]})).await;
    let set = made(
        &format!("/v1/vector_stores/{store}/file_batches"),
        json!({"file_ids": [file]}),
    )
    .await;
    let container = made("/v1/containers", json!({"name": "c", "file_ids": [container_file]})).await;
    let upload = made(
        "/v1/uploads",
        json!({"filename": "f", "purpose": "assistants", "bytes": 3, "mime_type": "text/plain"}),
    )
    .await;
    let batch = made(
        "/v1/batches",
        json!({"input_file_id": batch_input, "endpoint": "/v1/embeddings", "completion_window": "24h"}),
    )
    .await;
    let job = made("/v1/fine_tuning/jobs", json!({"model": "m", "training_file": file})).await;
    let eval = made(
        "/v1/evals",
        json!({"data_source_config": {"type": "logs"}, "testing_criteria": []}),
    )
    .await;
    let run = made(
        &format!("/v1/evals/{eval}/runs"),
        json!({"data_source": {"type": "responses"}}),
    )
    .await;
    let messages = json!([{"role": "user", "content": "x"}]);
    let completion = made(
        "/v1/chat/completions",
        json!({"model": "m", "store": true, "messages": messages}),
    )
    .await;

    let ids = [
        &file,
        &response,
        &conversation,
        &store,
        &set,
        &container,
        &upload,
        &batch,
        &job,
        &eval,
        &run,
        &completion,
    ];
    for id in ids {
        assert!(!id.contains("sim") && !id.contains("-a"), "{id} tells the account");
    }
    let part = |part: Value| json!({"model": "m", "input": [{"role": "user", "content": [part]}]});
    let tool = |tool: Value| json!({"model": "m", "input": "x", "tools": [tool]});
    let chat_file = json!([{"role": "user", "content": [{"type": "file", "file": {"file_id": file}}]}]);
    let none = || Value::Null;
    let (respond, chat) = (|| "/v1/responses".to_owned(), || "/v1/chat/completions".to_owned());
    vec![
        ("GET", format!("/v1/responses/{response}"), none()),
        ("GET", format!("/v1/responses/{response}?stream=true"), none()),
        ("GET", format!("/v1/responses/{response}/input_items"), none()),
        ("POST", format!("/v1/responses/{response}/cancel"), none()),
        (
            "POST",
            respond(),
            json!({"model": "m", "input": "x", "prompt_cache_options": {"comparison_response_id": response}}),
        ),
        ("GET", format!("/v1/conversations/{conversation}"), none()),
        (
            "POST",
            format!("/v1/conversations/{conversation}"),
            json!({"metadata": {}}),
        ),
        ("GET", format!("/v1/conversations/{conversation}/items"), none()),
        (
            "POST",
            format!("/v1/conversations/{conversation}/items"),
            json!({"items": []}),
        ),
        (
            "POST",
            respond(),
            json!({"model": "m", "input": "x", "conversation": conversation}),
        ),
        (
            "POST",
            respond(),
            json!({"model": "m", "input": "x", "conversation": {"id": conversation}}),
        ),
        ("GET", format!("/v1/files/{file}"), none()),
        ("GET", format!("/v1/files/{file}/content"), none()),
        ("POST", respond(), part(json!({"type": "input_file", "file_id": file}))),
        ("POST", respond(), part(json!({"type": "input_image", "file_id": file}))),
        ("POST", chat(), json!({"model": "m", "messages": chat_file})),
        ("POST", format!("/v1/uploads/{upload}/cancel"), none()),
        (
            "POST",
            format!("/v1/uploads/{upload}/complete"),
            json!({"part_ids": []}),
        ),
        ("GET", format!("/v1/vector_stores/{store}"), none()),
        ("GET", format!("/v1/vector_stores/{store}/files"), none()),
        ("GET", format!("/v1/vector_stores/{store}/files/{file}"), none()),
        ("GET", format!("/v1/vector_stores/{store}/file_batches/{set}"), none()),
        (
            "POST",
            format!("/v1/vector_stores/{store}/search"),
            json!({"query": "harbour"}),
        ),
        ("POST", "/v1/vector_stores".to_owned(), json!({"file_ids": [file]})),
        (
            "POST",
            respond(),
            tool(json!({"type": "file_search", "vector_store_ids": [store]})),
        ),
        ("GET", format!("/v1/containers/{container}"), none()),
        ("GET", format!("/v1/containers/{container}/files"), none()),
        (
            "POST",
            "/v1/containers".to_owned(),
            json!({"name": "c", "file_ids": [file]}),
        ),
        (
            "POST",
            respond(),
            tool(json!({"type": "code_interpreter", "container": container})),
        ),
        (
            "POST",
            respond(),
            tool(json!({"type": "code_interpreter", "container": {"type": "auto", "file_ids": [file]}})),
        ),
        ("GET", format!("/v1/batches/{batch}"), none()),
        ("POST", format!("/v1/batches/{batch}/cancel"), none()),
        (
            "POST",
            "/v1/batches".to_owned(),
            json!({"input_file_id": batch_input, "endpoint": "/v1/embeddings"}),
        ),
        ("GET", format!("/v1/fine_tuning/jobs/{job}"), none()),
        (
            "POST",
            "/v1/fine_tuning/jobs".to_owned(),
            json!({"model": "m", "training_file": file}),
        ),
        ("GET", format!("/v1/evals/{eval}"), none()),
        ("GET", format!("/v1/evals/{eval}/runs/{run}"), none()),
        ("POST", format!("/v1/evals/{eval}/runs/{run}"), none()),
        ("GET", format!("/v1/chat/completions/{completion}"), none()),
        ("GET", format!("/v1/chat/completions/{completion}/messages"), none()),
        (
            "POST",
            format!("/v1/chat/completions/{completion}"),
            json!({"metadata": {}}),
        ),
        ("DELETE", format!("/v1/chat/completions/{completion}"), none()),
        ("DELETE", format!("/v1/evals/{eval}/runs/{run}"), none()),
        ("DELETE", format!("/v1/evals/{eval}"), none()),
        ("DELETE", format!("/v1/containers/{container}"), none()),
        ("DELETE", format!("/v1/vector_stores/{store}"), none()),
        ("DELETE", format!("/v1/files/{file}"), none()),
        ("DELETE", format!("/v1/conversations/{conversation}"), none()),
        ("DELETE", format!("/v1/responses/{response}"), none()),
    ]
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
    let call = async |sim: &Sim, (method, target, body): &(&str, String, Value)| {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        send(sim, request(method, target, &[], body)).await.unwrap()
    };
    for owned in owned_by(&a).await {
        let refused = call(&b, &owned).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND, "{owned:?}");
        let error = &refused.json()["error"];
        assert_eq!(error["type"], "invalid_request_error", "{owned:?}");
        let found = call(&a, &owned).await;
        let is_right = if owned.1.ends_with("/complete") || owned.2["items"] == json!([]) {
            // The account has the object, but the request is not complete.
            found.status == StatusCode::BAD_REQUEST
        } else {
            found.status == StatusCode::OK
        };
        assert!(is_right, "{owned:?}: {:?}", found.body);
    }
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

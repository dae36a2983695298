//! Tests of files, uploads, vector stores, containers and stored chat completions.

use super::*;

#[tokio::test]
async fn files_are_kept_as_they_were_sent() {
    let sim = start_named("sim-a").await;
    let content = b"\xff\x00binary\r\n--c0x";
    let id = upload(&sim, "a.bin", content).await;
    let path = format!("/v1/files/{id}");
    let object = get(&sim, &path).await.json();
    assert_eq!(
        (&object["bytes"], &object["filename"]),
        (&json!(content.len()), &json!("a.bin"))
    );
    let downloaded = get(&sim, &format!("{path}/content")).await;
    assert_eq!(downloaded.body, &content[..]);
    assert_eq!(downloaded.header("content-type"), "application/octet-stream");
    let other = upload(&sim, "b.txt", b"x").await;
    let listed = get(&sim, "/v1/files?purpose=user_data&limit=1").await.json();
    assert_eq!(
        (&listed["data"][0]["id"], &listed["has_more"]),
        (&json!(other), &json!(true))
    );
    assert_eq!(get(&sim, "/v1/files?purpose=batch").await.json()["data"], json!([]));
    assert_eq!(
        delete(&sim, &path).await.json(),
        json!({"id": id, "object": "file", "deleted": true})
    );
    assert_eq!(get(&sim, &path).await.status, StatusCode::NOT_FOUND);
    let no_form = post(&sim, "/v1/files", &json!({})).await;
    assert_eq!(no_form.status, StatusCode::BAD_REQUEST);
    sim.stop().await;
}

#[tokio::test]
async fn the_text_of_a_file_counts_in_the_prompt_and_a_binary_file_at_a_fixed_figure() {
    let sim = start_named("sim-a").await;
    let text = upload(&sim, "a.txt", "word ".repeat(2000).as_bytes()).await;
    let mut binary = vec![0xff; 2_000_000];
    binary[0] = 1;
    let image = upload(&sim, "a.png", &binary).await;
    let input = async |part: Value| {
        let body = json!({"model": "m", "input": [{"role": "user", "content": [part]}]});
        ask(&sim, &body).await.json()["usage"]["input_tokens"].as_u64().unwrap()
    };
    assert!((2500..2600).contains(&input(json!({"type": "input_file", "file_id": text})).await));
    assert!((1100..1200).contains(&input(json!({"type": "input_image", "file_id": image})).await));
    let inline = format!("data:image/png;base64,{}", "QUJD".repeat(400_000));
    assert_eq!(input(json!({"type": "input_image", "image_url": inline})).await, 1100);
    sim.stop().await;
}

#[tokio::test]
async fn an_upload_in_parts_becomes_a_file() {
    let sim = start_named("sim-a").await;
    let body = json!({"filename": "big.txt", "purpose": "assistants", "bytes": 6, "mime_type": "text/plain"});
    let path = format!("/v1/uploads/{}", id_of(&post(&sim, "/v1/uploads", &body).await.json()));
    let part = async |content: &str| {
        let made = post_form(
            &sim,
            &format!("{path}/parts"),
            &[],
            ("data", "blob", content.as_bytes()),
        )
        .await;
        id_of(&made.json())
    };
    let (second, first) = (part("def").await, part("abc").await);
    let incomplete = post(&sim, &format!("{path}/complete"), &json!({"part_ids": [first]})).await;
    assert_eq!(incomplete.status, StatusCode::BAD_REQUEST);
    let done = post(&sim, &format!("{path}/complete"), &json!({"part_ids": [first, second]}))
        .await
        .json();
    assert_eq!(done["status"], "completed");
    let content = get(&sim, &format!("/v1/files/{}/content", id_of(&done["file"]))).await;
    assert_eq!(content.body, "abcdef");
    assert_eq!(
        post(&sim, &format!("{path}/cancel"), &json!({})).await.status,
        StatusCode::BAD_REQUEST
    );
    sim.stop().await;
}

#[tokio::test]
async fn a_vector_store_finds_the_files_that_contain_the_words() {
    let sim = start_named("sim-a").await;
    let harbour = upload(&sim, "harbour.txt", b"The harbour opens at seven.").await;
    let tower = upload(&sim, "tower.txt", b"The tower opens at nine.").await;
    let store = post(&sim, "/v1/vector_stores", &json!({"name": "s", "file_ids": [harbour]}))
        .await
        .json();
    let path = format!("/v1/vector_stores/{}", id_of(&store));
    let attached = post(
        &sim,
        &format!("{path}/files"),
        &json!({"file_id": tower, "attributes": {"a": 1}}),
    )
    .await
    .json();
    assert_eq!(
        (&attached["status"], &attached["attributes"]),
        (&json!("completed"), &json!({"a": 1}))
    );
    let counts = &get(&sim, &path).await.json()["file_counts"];
    assert_eq!((&counts["completed"], &counts["total"]), (&json!(2), &json!(2)));
    let search = json!({"query": "When does the tower open?", "max_num_results": 1});
    let found = post(&sim, &format!("{path}/search"), &search).await.json();
    assert_eq!(found["data"].as_array().unwrap().len(), 1);
    assert_eq!(found["data"][0]["file_id"], tower.as_str());
    let tool = json!({"type": "file_search", "vector_store_ids": [store["id"]]});
    let asked = json!({"model": "m", "input": "tower", "tools": [tool], "include": ["file_search_call.results"]});
    let call = ask(&sim, &asked).await.json()["output"][0].clone();
    assert_eq!(
        (&call["type"], &call["queries"]),
        (&json!("file_search_call"), &json!(["tower"]))
    );
    assert_eq!(call["results"][0]["filename"], "tower.txt");
    assert_eq!(
        delete(&sim, &format!("{path}/files/{tower}")).await.json()["deleted"],
        true
    );
    let set = post(&sim, &format!("{path}/file_batches"), &json!({"file_ids": [tower]}))
        .await
        .json();
    let set_path = format!("{path}/file_batches/{}", id_of(&set));
    assert_eq!(get(&sim, &set_path).await.json()["file_counts"]["completed"], 1);
    assert_eq!(
        get(&sim, &format!("{set_path}/files")).await.json()["data"][0]["id"],
        tower.as_str()
    );
    let text = get(&sim, &format!("{path}/files/{tower}/content")).await.json();
    assert_eq!(text["data"][0]["text"], "The tower opens at nine.");
    sim.stop().await;
}

#[tokio::test]
async fn the_code_interpreter_works_in_a_container_of_the_account() {
    let sim = start_named("sim-a").await;
    let file = upload(&sim, "data.csv", b"1,2").await;
    let run = async |input: Value, container: Value| {
        let body =
            json!({"model": "m", "input": input, "tools": [{"type": "code_interpreter", "container": container}]});
        ask(&sim, &body).await.json()["output"][0].clone()
    };
    let call = run(json!("x"), json!({"type": "auto", "file_ids": [file]})).await;
    assert_eq!(call["type"], "code_interpreter_call");
    let container = call["container_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/containers/{container}/files");
    let files = get(&sim, &path).await.json();
    assert_eq!(files["data"][0]["path"], "/mnt/data/data.csv");
    let content = format!("{path}/{}/content", id_of(&files["data"][0]));
    assert_eq!(get(&sim, &content).await.body, "1,2");
    let again = run(json!([{"role": "user", "content": "x"}, call]), json!({"type": "auto"})).await;
    assert_eq!(
        again["container_id"],
        container.as_str(),
        "the conversation keeps its container"
    );
    assert_eq!(
        run(json!("y"), json!(container)).await["container_id"],
        container.as_str()
    );
    assert_ne!(
        run(json!("z"), json!({"type": "auto"})).await["container_id"],
        container.as_str()
    );
    let added = post_form(&sim, &path, &[], ("file", "b.txt", b"b")).await.json();
    assert_eq!(added["container_id"], container.as_str());
    let copied = post(&sim, &path, &json!({"file_id": file})).await.json();
    assert_eq!(copied["path"], "/mnt/data/data.csv");
    assert_eq!(
        delete(&sim, &format!("{path}/{}", id_of(&added))).await.json()["deleted"],
        true
    );
    assert_eq!(get(&sim, &path).await.json()["data"].as_array().unwrap().len(), 2);
    sim.stop().await;
}

#[tokio::test]
async fn chat_completions_are_stored_on_request() {
    let sim = start_named("sim-a").await;
    let ask = async |extra: Value| {
        let mut body = json!({"model": "m", "messages": [{"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hello"}]}]});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        post(&sim, "/v1/chat/completions", &body).await
    };
    let made = ask(json!({"store": true, "metadata": {"a": "b"}})).await.json();
    let path = format!("/v1/chat/completions/{}", id_of(&made));
    let stored = get(&sim, &path).await.json();
    assert_eq!(
        (&stored["choices"], &stored["metadata"]),
        (&made["choices"], &json!({"a": "b"}))
    );
    let messages = get(&sim, &format!("{path}/messages")).await.json();
    assert_eq!(
        (&messages["data"][0]["role"], &messages["data"][1]["content"]),
        (&json!("system"), &json!("Hello"))
    );
    assert_eq!(messages["data"][1]["content_parts"][0]["text"], "Hello");
    let streamed = ask(json!({"store": true, "stream": true})).await;
    let text = String::from_utf8(streamed.body.to_vec()).unwrap();
    let chunk: Value = serde_json::from_str(text.lines().next().unwrap().strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(
        get(&sim, "/v1/chat/completions").await.json()["data"][1]["id"],
        chunk["id"]
    );
    let changed = post(&sim, &path, &json!({"metadata": {"c": "d"}})).await.json();
    assert_eq!(changed["metadata"], json!({"c": "d"}));
    assert_eq!(delete(&sim, &path).await.json()["deleted"], true);
    assert_eq!(get(&sim, &path).await.status, StatusCode::NOT_FOUND);
    let unstored = ask(json!({})).await.json();
    assert_eq!(
        get(&sim, &format!("/v1/chat/completions/{}", id_of(&unstored)))
            .await
            .status,
        StatusCode::NOT_FOUND
    );
    sim.stop().await;
}

#[tokio::test]
async fn forms_name_a_model_that_the_account_must_have() {
    let config = SimConfig {
        only_models: true,
        ..SimConfig::default()
    };
    let sim = start(config).await;
    for (target, file) in [
        ("audio/transcriptions", "file"),
        ("audio/translations", "file"),
        ("images/edits", "image"),
    ] {
        let target = format!("/v1/{target}");
        let sent = async |model: &str| post_form(&sim, &target, &[("model", model)], (file, "a", b"x")).await;
        assert_eq!(sent("gpt-5.2").await.status, StatusCode::OK, "{target}");
        let refused = sent("gpt-9").await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (StatusCode::NOT_FOUND, "model_not_found"),
            "{target}"
        );
    }
    sim.stop().await;
}

//! Tests of conversations, their items and references to items.

use super::*;

async fn new_conversation(sim: &Sim, body: &Value) -> String {
    id_of(&post(sim, "/v1/conversations", body).await.json())
}

async fn items(sim: &Sim, id: &str, query: &str) -> Value {
    get(sim, &format!("/v1/conversations/{id}/items?{query}")).await.json()
}

fn texts(list: &Value) -> Vec<String> {
    let items = list["data"].as_array().unwrap().iter();
    items
        .map(|item| item["content"][0]["text"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn the_items_of_a_conversation_come_before_the_input() {
    let sim = start_named("sim-a").await;
    let id = new_conversation(&sim, &json!({"metadata": {"topic": "x"}})).await;
    let turn = |text: &str, conversation: Value| json!({"model": "m", "instructions": "Be brief.", "input": text, "conversation": conversation});
    let first = ask(&sim, &turn("Remember the number seventeen.", json!(id)))
        .await
        .json();
    assert_eq!(first["conversation"], json!({"id": id}));
    let known = first["usage"]["input_tokens"].as_u64().unwrap() + first["usage"]["output_tokens"].as_u64().unwrap();
    let second = ask(&sim, &turn("Which number was it?", json!({"id": id}))).await;
    assert!(second.cached().abs_diff(known) <= 1, "{} of {known}", second.cached());
    let listed = items(&sim, &id, "order=asc").await;
    let texts = texts(&listed);
    assert_eq!(texts.len(), 4, "the input and the output of both turns");
    assert_eq!(
        (texts[0].as_str(), texts[2].as_str()),
        ("Remember the number seventeen.", "Which number was it?")
    );
    assert_eq!(listed["data"][1]["id"], first["output"][0]["id"]);
    assert_eq!(
        get(&sim, &format!("/v1/conversations/{id}")).await.json()["metadata"],
        json!({"topic": "x"})
    );
    let both = json!({"model": "m", "input": "x", "conversation": id, "previous_response_id": first["id"]});
    assert_eq!(ask(&sim, &both).await.code(), "mutually_exclusive_parameters");
    sim.stop().await;
}

#[tokio::test]
async fn items_are_added_listed_fetched_and_deleted() {
    let sim = start_named("sim-a").await;
    let user = |text: &str| json!({"role": "user", "content": text});
    let id = new_conversation(&sim, &json!({"items": [user("one")]})).await;
    let path = format!("/v1/conversations/{id}");
    let added = post(
        &sim,
        &format!("{path}/items"),
        &json!({"items": [user("two"), user("three")]}),
    )
    .await
    .json();
    assert_eq!(texts(&added), ["two", "three"]);
    assert_eq!(texts(&items(&sim, &id, "").await), ["three", "two", "one"]);
    let page = items(&sim, &id, "order=asc&limit=1").await;
    assert_eq!(
        (texts(&page), &page["has_more"]),
        (vec!["one".to_owned()], &json!(true))
    );
    let after = format!("order=asc&after={}", page["last_id"].as_str().unwrap());
    assert_eq!(texts(&items(&sim, &id, &after).await), ["two", "three"]);
    let item = format!("{path}/items/{}", added["first_id"].as_str().unwrap());
    assert_eq!(get(&sim, &item).await.json()["content"][0]["text"], "two");
    assert_eq!(delete(&sim, &item).await.json()["object"], "conversation");
    assert_eq!(get(&sim, &item).await.status, StatusCode::NOT_FOUND);
    assert_eq!(texts(&items(&sim, &id, "").await), ["three", "one"]);
    let changed = post(&sim, &path, &json!({"metadata": {"a": "b"}})).await.json();
    assert_eq!(changed["metadata"], json!({"a": "b"}));
    assert_eq!(delete(&sim, &path).await.json()["object"], "conversation.deleted");
    assert_eq!(get(&sim, &path).await.status, StatusCode::NOT_FOUND);
    sim.stop().await;
}

#[tokio::test]
async fn references_name_items_that_were_stored_here() {
    let (a, b) = (start_named("sim-a").await, start_named("sim-b").await);
    let made = ask(&a, &hello()).await.json();
    let known = made["usage"]["input_tokens"].as_u64().unwrap() + made["usage"]["output_tokens"].as_u64().unwrap();
    let item = id_of(&made["output"][0]);
    let refer = |reference: Value| {
        json!({"model": "gpt-5.2", "input": [{"role": "user", "content": "Say hello."}, reference,
            {"role": "user", "content": "Again."}]})
    };
    for reference in [json!({"type": "item_reference", "id": item}), json!({"id": item})] {
        let answer = ask(&a, &refer(reference.clone())).await;
        assert!(
            answer.cached() + 1 >= known,
            "the account reads what the reference names"
        );
        let refused = ask(&b, &refer(reference)).await;
        assert_eq!(refused.status, StatusCode::NOT_FOUND);
        let error = refused.json()["error"].clone();
        assert!(
            error["message"]
                .as_str()
                .unwrap()
                .starts_with(&format!("Item with id '{item}' not found."))
        );
        assert_eq!(
            (&error["type"], &error["param"]),
            (&json!("invalid_request_error"), &json!("input"))
        );
    }
    // The input items of a stored response keep their ids, and can be named too.
    let path = format!("/v1/responses/{}/input_items", id_of(&made));
    let listed = get(&a, &path).await.json();
    assert_eq!(get(&a, &path).await.json(), listed);
    let input = json!({"type": "item_reference", "id": listed["data"][0]["id"]});
    assert_eq!(ask(&a, &refer(input)).await.status, StatusCode::OK);
    // A reasoning item without its content is a reference.
    let bare = json!({"type": "reasoning", "id": "rs_foreign", "summary": []});
    assert_eq!(ask(&b, &refer(bare)).await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        delete(&a, &format!("/v1/responses/{}", id_of(&made))).await.status,
        StatusCode::OK
    );
    let gone = ask(&a, &refer(json!({"type": "item_reference", "id": item}))).await;
    assert_eq!(
        gone.status,
        StatusCode::NOT_FOUND,
        "the items of a deleted response are gone"
    );
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn nothing_is_kept_of_a_response_that_is_not_stored() {
    let sim = start_named("sim-a").await;
    let made = ask(&sim, &json!({"model": "m", "input": "x", "store": false}))
        .await
        .json();
    let id = id_of(&made);
    assert_eq!(
        get(&sim, &format!("/v1/responses/{id}")).await.status,
        StatusCode::NOT_FOUND
    );
    let next = json!({"model": "m", "input": "y", "previous_response_id": id});
    assert_eq!(ask(&sim, &next).await.code(), "previous_response_not_found");
    let item = json!({"type": "item_reference", "id": made["output"][0]["id"]});
    assert_eq!(
        ask(&sim, &json!({"model": "m", "input": [item]})).await.status,
        StatusCode::NOT_FOUND
    );
    let replay = json!({"model": "m", "input": [made["output"][0]]});
    assert_eq!(
        ask(&sim, &replay).await.status,
        StatusCode::OK,
        "an item with its content needs no storage"
    );
    sim.stop().await;
}

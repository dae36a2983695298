//! Objects of accounts: each kind is made at one of three accounts, and found there wherever a request names it.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use steadfast::sim::Sim;

use crate::kit::{
    client::{self, Reply},
    gateway::Gateway,
    keys::{ALICE, BOB, two_groups, with_key},
    sims,
};

/// The requests that make one object of each kind, in order: the kind, the path and the body.
const CREATIONS: [(&str, &str, &str); 11] = [
    ("$response", "/v1/responses", r#"{"model": "m", "input": "x"}"#),
    ("$conversation", "/v1/conversations", "{}"),
    ("$store", "/v1/vector_stores", r#"{"name": "s", "file_ids": ["$file"]}"#),
    (
        "$set",
        "/v1/vector_stores/$store/file_batches",
        r#"{"file_ids": ["$file"]}"#,
    ),
    (
        "$container",
        "/v1/containers",
        r#"{"name": "c", "file_ids": ["$file"]}"#,
    ),
    (
        "$upload",
        "/v1/uploads",
        r#"{"filename": "f", "purpose": "assistants", "bytes": 0, "mime_type": "x/y"}"#,
    ),
    (
        "$batch",
        "/v1/batches",
        r#"{"input_file_id": "$file", "endpoint": "/v1/embeddings"}"#,
    ),
    (
        "$job",
        "/v1/fine_tuning/jobs",
        r#"{"model": "m", "training_file": "$file"}"#,
    ),
    (
        "$eval",
        "/v1/evals",
        r#"{"data_source_config": {"type": "logs"}, "testing_criteria": []}"#,
    ),
    (
        "$run",
        "/v1/evals/$eval/runs",
        r#"{"data_source": {"type": "responses"}}"#,
    ),
    (
        "$completion",
        "/v1/chat/completions",
        r#"{"model": "m", "store": true, "messages": []}"#,
    ),
];

/// Requests that read the objects: their paths.
const READS: [&str; 20] = [
    "/v1/responses/$response",
    "/v1/responses/$response/input_items",
    "/v1/conversations/$conversation",
    "/v1/conversations/$conversation/items",
    "/v1/files/$file",
    "/v1/files/$file/content",
    "/v1/vector_stores/$store",
    "/v1/vector_stores/$store/files",
    "/v1/vector_stores/$store/files/$file",
    "/v1/vector_stores/$store/file_batches/$set",
    "/v1/containers/$container",
    "/v1/containers/$container/files",
    "/v1/batches/$batch",
    "/v1/fine_tuning/jobs/$job",
    "/v1/fine_tuning/jobs/$job/events",
    "/v1/evals/$eval",
    "/v1/evals/$eval/runs/$run",
    "/v1/chat/completions/$completion",
    "/v1/chat/completions/$completion/messages",
    "/v1/conversations/$conversation?include[]=x",
];

/// Requests whose bodies name the objects: the paths and bodies.
const USES: [(&str, &str); 8] = [
    (
        "/v1/responses",
        r#"{"model": "m", "input": "x", "conversation": "$conversation"}"#,
    ),
    (
        "/v1/responses",
        r#"{"model": "m", "input": "x", "conversation": {"id": "$conversation"}}"#,
    ),
    (
        "/v1/responses",
        r#"{"model": "m", "input": "x", "previous_response_id": "$response"}"#,
    ),
    (
        "/v1/responses",
        r#"{"model": "m", "input": [{"role": "user", "content": [{"type": "input_file", "file_id": "$file"}]}]}"#,
    ),
    (
        "/v1/responses",
        r#"{"model": "m", "input": "x", "tools": [{"type": "file_search", "vector_store_ids": ["$store"]}]}"#,
    ),
    (
        "/v1/responses",
        r#"{"model": "m", "input": "x", "tools": [{"type": "code_interpreter", "container": "$container"}]}"#,
    ),
    ("/v1/vector_stores", r#"{"file_ids": ["$file"]}"#),
    (
        "/v1/batches",
        r#"{"input_file_id": "$file", "endpoint": "/v1/embeddings"}"#,
    ),
];

type Ids = Vec<(&'static str, String)>;

/// Replaces the kinds in a text by ids.
fn fill(text: &str, ids: &Ids) -> String {
    ids.iter()
        .fold(text.to_owned(), |text, (kind, id)| text.replace(kind, id))
}

fn id_of(reply: &Reply) -> String {
    let object = reply.json();
    let id = object["id"].as_str();
    id.unwrap_or_else(|| panic!("no id: {object}")).to_owned()
}

async fn send(gateway: &Gateway, key: &str, method: Method, path: &str, body: &str) -> Reply {
    let request = client::request(method, path, body.to_owned());
    client::send(gateway.address, with_key(request, key)).await
}

/// Uploads a file. `header` is an additional header.
async fn upload(gateway: &Gateway, key: &str, header: Option<(&'static str, &str)>) -> Reply {
    let form = "--x\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nuser_data\r\n--x\r\n\
                content-disposition: form-data; name=\"file\"; filename=\"n.txt\"\r\n\r\nThe harbour opens at seven.\r\n--x--\r\n";
    let mut request = with_key(client::post("/v1/files", form), key);
    let form_type = "multipart/form-data; boundary=x".parse().expect("a valid value");
    request.headers_mut().insert("content-type", form_type);
    if let Some((name, value)) = header {
        request
            .headers_mut()
            .insert(name, value.parse().expect("a valid value"));
    }
    client::send(gateway.address, request).await
}

/// Makes one object of each kind that the caller may make.
async fn make_objects(gateway: &Gateway, key: &str) -> Ids {
    let mut made = vec![("$file", id_of(&upload(gateway, key, None).await))];
    for (kind, path, body) in CREATIONS {
        let reply = send(gateway, key, Method::POST, &fill(path, &made), &fill(body, &made)).await;
        if reply.status != StatusCode::FORBIDDEN {
            made.push((kind, id_of(&reply)));
        }
    }
    made
}

async fn assert_all_found(gateway: &Gateway, ids: &Ids) {
    for path in READS {
        let reply = send(gateway, ALICE, Method::GET, &fill(path, ids), "").await;
        assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.text());
    }
    for (path, body) in USES {
        let reply = send(gateway, ALICE, Method::POST, path, &fill(body, ids)).await;
        assert_eq!(reply.status, StatusCode::OK, "{path} {body}: {}", reply.text());
    }
}

fn requests(sims: &[Sim]) -> usize {
    sims.iter().map(|sim| sim.requests().len()).sum()
}

#[tokio::test]
async fn every_object_is_found_wherever_it_is_named_also_after_a_restart() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    for _ in 0..3 {
        let ids = make_objects(&gateway, ALICE).await;
        let before = requests(&sims);
        assert_all_found(&gateway, &ids).await;
        let sent = requests(&sims) - before;
        assert_eq!(sent, READS.len() + USES.len(), "each request goes to its owner at once");
        let restarted = Gateway::before(&sims, "").await;
        assert_all_found(&restarted, &ids).await;
        // The owner of each object is known after it was found once, so the second time needs no search.
        let before = requests(&sims);
        assert_all_found(&restarted, &ids).await;
        assert_eq!(requests(&sims) - before, READS.len() + USES.len());
    }
}

#[tokio::test]
async fn objects_are_found_through_two_processes() {
    let sims = sims(3).await;
    let pair = [Gateway::before(&sims, "").await, Gateway::before(&sims, "").await];
    let ids = make_objects(&pair[0], ALICE).await;
    for path in READS {
        for gateway in [&pair[1], &pair[0]] {
            let reply = send(gateway, ALICE, Method::GET, &fill(path, &ids), "").await;
            assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.text());
        }
    }
}

#[tokio::test]
async fn a_session_that_begins_with_a_file_stays_where_the_file_is() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    for number in 0..6 {
        let session = format!("session-{number}");
        let made = upload(&gateway, ALICE, Some(("session-id", &session))).await;
        let owner = made.routed().0.to_owned();
        let ids = vec![("$file", id_of(&made))];
        let body = fill(r#"{"file_ids": ["$file"]}"#, &ids);
        let store = send(&gateway, ALICE, Method::POST, "/v1/vector_stores", &body).await;
        assert_eq!(store.routed(), (owner.as_str(), "owner"));
        let turn = json!({"model": "m", "input": "x", "prompt_cache_key": session});
        let reply = client::post_json(gateway.address, "/v1/responses", &turn).await;
        assert_eq!(reply.routed(), (owner.as_str(), "pin"));
    }
}

#[tokio::test]
async fn lists_of_a_group_come_from_one_account() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    let mut accounts = Vec::new();
    for path in ["/v1/files", "/v1/vector_stores", "/v1/batches", "/v1/files?limit=1"] {
        for _ in 0..4 {
            let reply = client::get(gateway.address, path).await;
            assert_eq!(reply.status, StatusCode::OK, "{path}");
            assert_eq!(reply.routed().1, "keyless");
            accounts.push(reply.routed().0.to_owned());
        }
    }
    accounts.dedup();
    assert_eq!(accounts.len(), 1, "{accounts:?}");
}

#[tokio::test]
async fn groups_on_the_same_accounts_reach_only_their_own_objects() {
    let sims = sims(2).await;
    let gateway = two_groups(&sims, "", "").await;
    let alices = make_objects(&gateway, ALICE).await;
    let bobs = make_objects(&gateway, BOB).await;
    let is_made = |kind: &str| alices.iter().any(|(made, _)| *made == kind);
    assert!(
        ["$conversation", "$file", "$store", "$container", "$upload"]
            .into_iter()
            .all(is_made)
    );
    assert!(!["$batch", "$job", "$eval"].into_iter().any(is_made));
    let own = [
        "/v1/files/$file",
        "/v1/conversations/$conversation/items",
        "/v1/containers/$container",
    ];
    for path in own {
        let reply = send(&gateway, BOB, Method::GET, &fill(path, &bobs), "").await;
        assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.text());
    }
    let before = requests(&sims);
    let refuse = async |method: Method, path: String, body: String| {
        let reply = send(&gateway, BOB, method, &path, &body).await;
        let status = reply.status.as_u16();
        assert!(
            matches!(status, 400 | 403 | 404),
            "{path} {body}: {status} {}",
            reply.text()
        );
        assert!(!reply.text().contains("harbour"), "{path}");
    };
    for path in READS {
        refuse(Method::GET, fill(path, &alices), String::new()).await;
        refuse(Method::DELETE, fill(path, &alices), String::new()).await;
        let escaped = alices
            .iter()
            .map(|(kind, id)| (*kind, id.replacen('e', "%65", 1).replacen('_', "%5F", 1)));
        refuse(Method::GET, fill(path, &escaped.collect()), String::new()).await;
    }
    for (path, body) in USES {
        refuse(Method::POST, path.to_owned(), fill(body, &alices)).await;
        let escaped = body
            .replacen("_id", "\\u005fid", 1)
            .replacen("conversation", "conv\\u0065rsation", 1);
        refuse(
            Method::POST,
            path.to_owned(),
            fill(&escaped.replacen("container", "c\\u006fntainer", 1), &alices),
        )
        .await;
    }
    let attach = fill(r#"{"file_id": "$file"}"#, &alices);
    refuse(Method::POST, fill("/v1/vector_stores/$store/files", &bobs), attach).await;
    assert_eq!(requests(&sims), before, "no request reached an account");
}

#[tokio::test]
async fn a_group_with_some_models_uses_its_objects_without_naming_a_model() {
    let sims = sims(1).await;
    let head =
        crate::kit::keys::group("red", "models = [\"gpt-5*\"]") + &crate::kit::keys::key("alice", ALICE, "red", "");
    let gateway = Gateway::before(&sims, &head).await;
    let made = upload(&gateway, ALICE, None).await;
    let ids = vec![("$file", id_of(&made))];
    let reply = send(
        &gateway,
        ALICE,
        Method::POST,
        "/v1/vector_stores",
        &fill(r#"{"file_ids": ["$file"]}"#, &ids),
    )
    .await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.text());
    let reply = send(&gateway, ALICE, Method::GET, "/v1/files", "").await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
    let body: Value = json!({"model": "o4-mini", "input": "x"});
    let reply = send(&gateway, ALICE, Method::POST, "/v1/responses", &body.to_string()).await;
    assert_eq!(reply.status, StatusCode::FORBIDDEN);
}

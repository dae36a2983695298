//! Fields of a request that name a session or an object, with a value of another type than the API defines.

use flate2::{Compression, write::GzEncoder};
use http::{HeaderValue, StatusCode};
use std::io::Write as _;

use crate::kit::{
    client::{self, Reply, post},
    gateway_with_sim,
    keys::{ALICE, BOB, post_as, two_groups},
    sims,
};

/// Whether the request was refused because of this field.
fn is_refused_for(reply: &Reply, field: &str) -> bool {
    if reply.status != StatusCode::BAD_REQUEST {
        return false;
    }
    let error = &reply.json()["error"];
    error["code"] == "invalid_type" && error["param"] == field && error["type"] == "invalid_request_error"
}

#[tokio::test]
async fn a_value_of_another_type_is_refused_with_400() {
    let (sim, gateway) = gateway_with_sim("").await;
    const RESPONSES: &str = "/v1/responses";
    for (path, fields, refused) in [
        (RESPONSES, r#""previous_response_id":5"#, "previous_response_id"),
        (
            RESPONSES,
            r#""previous_response_id":["resp_1"]"#,
            "previous_response_id",
        ),
        (
            RESPONSES,
            r#""previous_response_id":{"id":"resp_1"}"#,
            "previous_response_id",
        ),
        (RESPONSES, r#""previous_response_id":true"#, "previous_response_id"),
        (
            RESPONSES,
            r#""previous\u005fresponse_id":-1.5e3"#,
            "previous_response_id",
        ),
        (RESPONSES, r#""prompt_cache_key":7"#, "prompt_cache_key"),
        (RESPONSES, r#""prompt_cache_key":false"#, "prompt_cache_key"),
        (RESPONSES, r#""prompt_cache_key":["a"]"#, "prompt_cache_key"),
        (RESPONSES, r#""prompt_cache_key":{"a":"b"}"#, "prompt_cache_key"),
        (RESPONSES, r#""prompt_cache\u005fkey":0"#, "prompt_cache_key"),
        (RESPONSES, r#""conversation":7"#, "conversation"),
        (RESPONSES, r#""conversation":["conv_1"]"#, "conversation"),
        (RESPONSES, r#""conversation":{}"#, "conversation"),
        (RESPONSES, r#""conversation":{"id":7}"#, "conversation"),
        (RESPONSES, r#""conversation":{"id":null}"#, "conversation"),
        (RESPONSES, r#""conversation":{"id":{"id":"conv_1"}}"#, "conversation"),
        (RESPONSES, r#""conversation":{"x":{"id":"conv_1"}}"#, "conversation"),
        ("/responses", r#""prompt_cache_key":7"#, "prompt_cache_key"),
        (
            "/v1/responses/compact",
            r#""previous_response_id":5"#,
            "previous_response_id",
        ),
        ("/v1/responses/input_tokens", r#""conversation":5"#, "conversation"),
        (
            "/v1/chat/completions",
            r#""messages":[],"prompt_cache_key":7"#,
            "prompt_cache_key",
        ),
    ] {
        let body = format!(r#"{{"model":"gpt-5.2","input":"hi",{fields}}}"#);
        let reply = client::send(gateway.address, post(path, body.clone())).await;
        assert!(is_refused_for(&reply, refused), "{path} {body}: {}", reply.text());
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(body.as_bytes()).expect("memory can be written");
        let mut request = post(path, gzip.finish().expect("memory can be written"));
        request
            .headers_mut()
            .insert("content-encoding", HeaderValue::from_static("gzip"));
        let reply = client::send(gateway.address, request).await;
        assert!(is_refused_for(&reply, refused), "{path} {body}: {}", reply.text());
    }
    assert_eq!(sim.counts().requests, 0);
}

#[tokio::test]
async fn the_same_names_elsewhere_are_data() {
    let (sim, gateway) = gateway_with_sim("").await;
    for (path, fields) in [
        (
            "/v1/responses",
            r#""previous_response_id":null,"conversation":null,"prompt_cache_key":null"#,
        ),
        ("/v1/responses", r#""prompt_cache_key":"""#),
        (
            "/v1/responses",
            r#""metadata":{"previous_response_id":5,"prompt_cache_key":5,"conversation":5}"#,
        ),
        (
            "/v1/responses",
            r#""tools":[{"parameters":{"conversation":{},"prompt_cache_key":[]}}]"#,
        ),
        ("/v1/responses", r#""input":"\"conversation\":5""#),
        (
            "/v1/chat/completions",
            r#""messages":[],"conversation":5,"previous_response_id":5"#,
        ),
        ("/v1/embeddings", r#""prompt_cache_key":5,"conversation":[]"#),
        ("/v1/unheard-of", r#""conversation":{"topic":1},"prompt_cache_key":5"#),
    ] {
        let body = match fields.contains("\"input\"") {
            true => format!(r#"{{"model":"gpt-5.2",{fields}}}"#),
            false => format!(r#"{{"model":"gpt-5.2","input":"hi",{fields}}}"#),
        };
        let before = sim.counts().requests;
        let reply = client::send(gateway.address, post(path, body.clone())).await;
        assert_eq!(sim.counts().requests, before + 1, "{path} {body}: {}", reply.text());
    }
}

#[tokio::test]
async fn a_conversation_may_be_named_by_a_string_or_an_object() {
    let (sim, gateway) = gateway_with_sim("").await;
    for conversation in [
        r#""conv_1""#,
        r#"{"id":"conv_1"}"#,
        r#"{"x":{"y":[1]},"i\u0064":"conv_1"}"#,
    ] {
        let body = format!(r#"{{"model":"gpt-5.2","input":"hi","conversation":{conversation}}}"#);
        let reply = client::send(gateway.address, post("/v1/responses", body)).await;
        assert_ne!(reply.json()["error"]["code"], "invalid_type", "{conversation}");
    }
    assert_eq!(sim.counts().requests, 3);
}

#[tokio::test]
async fn groups_that_share_an_account_get_the_same_answer() {
    let sims = sims(1).await;
    let gateway = two_groups(&sims, "", "").await;
    for key in [ALICE, BOB] {
        for field in ["previous_response_id", "conversation", "prompt_cache_key"] {
            let reply = post_as(
                &gateway,
                key,
                &serde_json::json!({"model": "gpt-5.2", "input": "hi", field: 5}),
            )
            .await;
            assert!(is_refused_for(&reply, field), "{field}: {}", reply.text());
        }
    }
    assert_eq!(sims[0].counts().requests, 0);
}

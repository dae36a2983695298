//! Compressed answers: they are searched for the credential too.

use super::*;

#[tokio::test]
async fn compressed_answers_are_searched_too() {
    let (sim, gateway) = gateway_with_sim(HEAD).await;
    let codings: [(&str, Encoder); 6] = [
        ("gzip", gzip),
        ("x-gzip", gzip),
        ("deflate", zlib),
        ("deflate", raw_deflate),
        ("zstd", zstd),
        ("identity", <[u8]>::to_vec),
    ];
    for (coding, encode) in codings {
        // A part of a compressed body cannot be decompressed, which another test covers.
        for carrier in carriers().into_iter().filter(|carrier| carrier.status != 206) {
            let sent = encode(carrier.body.replace("KEY", KEY).as_bytes());
            let expected = carrier.body.replace("KEY", &"*".repeat(KEY.len()));
            for size in [1, usize::MAX] {
                let fields = [
                    ("content-type", carrier.content_type),
                    ("content-encoding", coding),
                    ("etag", "\"a\""),
                ];
                let answer = answer_of(&gateway, &sim, act(carrier.status, &fields, &sent, size)).await;
                let what = format!("{coding} {} {}", carrier.status, carrier.content_type);
                assert_eq!(
                    (answer.status, answer.end),
                    (carrier.status, End::Whole),
                    "{what}: {answer:?}"
                );
                assert_eq!(answer.text(), expected, "{what}");
                let is_plain = coding == "identity";
                assert_eq!(answer.header("content-encoding").is_none(), !is_plain, "{what}");
                assert_eq!(
                    answer.header("etag"),
                    Some(if is_plain { "\"a\"" } else { "w/\"a\"" }),
                    "{what}"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_usage_of_a_compressed_answer_is_read() {
    let (sim, gateway) = gateway_with_sim("").await;
    let body = json!({"id": "resp_1", "output": [], "usage": {"input_tokens": 7, "output_tokens": 3}}).to_string();
    let fields = [
        ("content-type", JSON),
        ("content-encoding", "gzip"),
        ("x-request-id", "up-1"),
    ];
    let answer = answer_of(&gateway, &sim, act(200, &fields, &gzip(body.as_bytes()), usize::MAX)).await;
    assert_eq!(answer.text(), body);
    assert_eq!(gateway.access_of("up-1").await["input_tokens"], 7);
}

#[tokio::test]
async fn an_answer_in_an_unreadable_coding_does_not_reach_the_caller() {
    let (sim, gateway) = gateway_with_sim(HEAD).await;
    let body = gzip(KEY.as_bytes());
    for coding in ["br", "compress", "gzip, gzip", "unheard-of"] {
        for (status, path) in [
            (400, "/v1/responses"),
            (500, "/v1/responses"),
            (302, "/v1/files"),
            (404, "/v1/files"),
        ] {
            let fields = [("content-type", JSON), ("content-encoding", coding)];
            let answer = answer_at(path, &gateway, &sim, act(status, &fields, &body, usize::MAX)).await;
            assert_eq!(
                (answer.status, answer.end, answer.body.len()),
                (status, End::Whole, 0),
                "{answer:?}"
            );
            assert_eq!(answer.header("content-encoding"), None);
        }
        for status in [200, 206] {
            let fields = [("content-type", JSON), ("content-encoding", coding)];
            let answer = answer_of(&gateway, &sim, act(status, &fields, &body, usize::MAX)).await;
            assert_eq!(
                (answer.status, answer.error_code()),
                (502, "upstream_broken".to_owned()),
                "{answer:?}"
            );
        }
    }
    // A compressed body that breaks off or continues after its end is broken off.
    for sent in [&body[..body.len() - 4], &[&body[..], b"more"].concat()] {
        let fields = [("content-type", "text/plain"), ("content-encoding", "gzip")];
        let answer = answer_of(&gateway, &sim, act(200, &fields, sent, 5)).await;
        assert!(!answer.text().contains(KEY) && answer.end != End::Whole, "{answer:?}");
    }
}

#[tokio::test]
async fn upstreams_are_asked_only_for_codings_that_can_be_read() {
    let (sim, gateway) = gateway_with_sim("").await;
    for (path, expected) in [
        ("/v1/responses", None),
        ("/v1/files", None),
        ("/v1/files/file-1/content", Some("gzip, deflate")),
    ] {
        sim.script().clear();
        let mut request = client::request(Method::POST, path, WHOLE);
        let asked = HeaderValue::from_static("gzip, deflate, br");
        request.headers_mut().insert("accept-encoding", asked);
        client::send(gateway.address, request).await;
        let seen = sim.requests();
        let seen = seen.last().expect("a request").headers.get("accept-encoding");
        assert_eq!(seen.map(|value| value.to_str().expect("text")), expected, "{path}");
    }
}

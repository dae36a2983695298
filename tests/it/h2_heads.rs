//! The limits on heads over HTTP/2 are those of HTTP/1.1, on both sides: 100 fields, and 64 KiB.

use http::{Method, Request, StatusCode};

use crate::kit::{
    frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, Outcome, fields, serve_frames},
    gateway::Gateway,
    gateway_with_sim,
    h2::{PLAIN, connect_h2c, read_whole, request},
    tls, wire,
};

/// Returns a request with `count` fields, the `Host` field of HTTP/1.1 included, of which one has `length` bytes.
fn with_fields(name: Option<&'static str>, count: usize, length: usize) -> Request<http_body_util::Full<bytes::Bytes>> {
    // The gateway answers the request itself, because the simulated account has the same limits and gets more fields.
    let mut request = request(Method::POST, "/nope", PLAIN);
    let headers = request.headers_mut();
    // The request has a Content-Type, and hyper adds a Content-Length.
    for number in 0..count - 3 {
        let own = format!("x-{number}");
        let value = "y".repeat(if number == 0 { length } else { 1 });
        headers.append(
            http::HeaderName::from_bytes(name.unwrap_or(&own).as_bytes()).expect("a name"),
            value.parse().expect("a valid header value"),
        );
    }
    request
}

fn error_code(body: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let error = value["error"].as_object().expect("an error");
    assert!(error["message"].is_string() && error["type"].is_string() && error.contains_key("param"));
    error["code"].as_str().expect("a code").to_owned()
}

#[tokio::test]
async fn a_head_over_a_limit_is_refused_and_the_connection_serves_other_requests() {
    let (_sim, gateway) = gateway_with_sim("").await;
    let mut sender = connect_h2c(&gateway).await;
    let refused = [
        (None, 101, 1),
        (Some("cookie"), 101, 1),
        (Some("x-same"), 101, 1),
        (None, 150, 1),
        (None, 1000, 1),
        (None, 10, 66_000),
        (None, 10, 100_000),
    ];
    for (name, count, length) in refused {
        let what = format!("{name:?} {count} {length}");
        let response = sender.send_request(with_fields(name, count, length)).await;
        let response = response.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(response.headers().contains_key("x-request-id"), "{what}");
        assert!(!response.headers().contains_key("connection"), "{what}");
        let (status, body) = read_whole(response).await;
        assert_eq!(status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "{what}");
        assert_eq!(error_code(&body), "head_too_large", "{what}");
    }
    for (name, count, length) in [(None, 100, 1), (Some("cookie"), 100, 1), (None, 10, 60_000)] {
        let response = sender.send_request(with_fields(name, count, length)).await;
        let (status, body) = read_whole(response.expect("a response")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{name:?} {count} {length}: {body}");
    }
    assert_eq!(gateway.metric("steadfast_connections").await, 1.0);
    let counted = gateway
        .metric("steadfast_rejected_requests_total{reason=\"head\"}")
        .await;
    assert_eq!(counted, refused.len() as f64);
}

/// The h2 library refuses a head that is so large that it is not decoded.
#[tokio::test]
async fn a_huge_head_is_refused_and_the_connection_serves_other_requests() {
    let (_sim, gateway) = gateway_with_sim("").await;
    let mut sender = connect_h2c(&gateway).await;
    for (count, length) in [(10, 200_000), (4_000, 1)] {
        if let Ok(response) = sender.send_request(with_fields(None, count, length)).await {
            assert_eq!(response.status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        let response = sender.send_request(with_fields(None, 10, 1)).await;
        assert_eq!(response.expect("a response").status(), StatusCode::NOT_FOUND);
    }
    assert_eq!(gateway.metric("steadfast_connections").await, 1.0);
}

/// The same heads, over HTTP/1.1.
#[tokio::test]
async fn a_head_has_the_same_limits_over_http1() {
    let (_sim, gateway) = gateway_with_sim("").await;
    for (count, length, status) in [(100, 1, 404), (101, 1, 431), (10, 60_000, 404), (10, 66_000, 431)] {
        let mut head = "POST /nope HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n".to_owned();
        head += &format!("content-length: {}\r\n", PLAIN.len());
        for number in 0..count - 3 {
            head += &format!("x-{number}: {}\r\n", "y".repeat(if number == 0 { length } else { 1 }));
        }
        let answer = wire::ask(gateway.address, format!("{head}\r\n{PLAIN}")).await;
        assert_eq!(answer.status, status, "{count} {length}");
    }
}

/// Sends a POST request with these fields after its own, a body, and these trailers.
async fn outcome(gateway: &Gateway, more: &[(&str, &str)], trailers: &[(String, String)]) -> Outcome {
    let mut frames = Frames::open(gateway.address).await;
    let mut list = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", "/v1/responses"),
        ("content-type", "application/json"),
    ];
    list.extend_from_slice(more);
    frames.send(HEADERS, END_HEADERS, 1, &fields(&list)).await;
    let end = if trailers.is_empty() { END_STREAM } else { 0 };
    frames.send(DATA, end, 1, PLAIN.as_bytes()).await;
    if !trailers.is_empty() {
        frames.send_fields(END_STREAM, &fields(trailers)).await;
    }
    frames.outcome().await
}

#[tokio::test]
async fn too_many_trailers_are_refused_as_over_http1() {
    let (sim, gateway) = gateway_with_sim("").await;
    let many = |count| -> Vec<(String, String)> {
        (0..count)
            .map(|number| (format!("x-{number}"), "y".to_owned()))
            .collect()
    };
    assert!(matches!(
        outcome(&gateway, &[], &many(500)).await,
        Outcome::Answered(200, _)
    ));
    for count in [2_500, 6_000, 12_000] {
        match outcome(&gateway, &[], &many(count)).await {
            Outcome::Answered(status, body) => assert_eq!(
                (status, error_code(&body).as_str()),
                (400, "incomplete_body"),
                "{count}"
            ),
            Outcome::Refused => {}
        }
    }
    assert_eq!(sim.counts().requests, 1);
}

#[tokio::test]
async fn an_unclear_length_is_refused_as_over_http1() {
    let (sim, gateway) = gateway_with_sim("").await;
    let length = PLAIN.len().to_string();
    let twice = [("content-length", &*length), ("content-length", &*length)];
    match outcome(&gateway, &twice, &[]).await {
        Outcome::Answered(status, body) => assert_eq!((status, error_code(&body).as_str()), (400, "bad_framing")),
        Outcome::Refused => panic!("an answer is expected"),
    }
    for value in ["", "+55", "55, 55", "0x37", " "] {
        let outcome = outcome(&gateway, &[("content-length", value)], &[]).await;
        assert!(!matches!(outcome, Outcome::Answered(200, _)), "{value:?}: {outcome:?}");
    }
    assert_eq!(sim.counts().requests, 0);
}

/// Starts a gateway in front of an upstream that answers each request with this head and an empty body.
async fn gateway_before_head(list: Vec<(String, String)>) -> Gateway {
    let identity = tls::identity(&["127.0.0.1"], &["h2"]);
    let table = serve_frames(&identity, "a", move |mut frames| {
        let block = fields(&list);
        async move {
            while let Some(stream) = frames.request().await {
                assert_eq!(stream, 1, "each connection carries one request");
                frames.send_fields(END_STREAM, &block).await;
            }
        }
    })
    .await;
    Gateway::configured(&table).await
}

#[tokio::test]
async fn a_response_head_over_a_limit_is_an_error_of_the_upstream() {
    for (count, length, status) in [
        (100, 1, 200),
        (101, 1, 502),
        (1000, 1, 502),
        (5, 50_000, 200),
        (5, 66_000, 502),
        (5, 200_000, 502),
    ] {
        let mut list = vec![(":status".to_owned(), "200".to_owned())];
        list.extend((0..count).map(|number| {
            let value = "y".repeat(if number == 0 { length } else { 1 });
            (format!("x-{number}"), value)
        }));
        let gateway = gateway_before_head(list).await;
        let answer = wire::ask(gateway.address, "GET /v1/x HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        assert_eq!(answer.status, status, "{count} {length}: {:.200}", answer.head);
    }
}

#[tokio::test]
async fn a_response_with_two_lengths_is_an_error_of_the_upstream() {
    let list = [(":status", "200"), ("content-length", "0"), ("content-length", "0")];
    let list = list.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let gateway = gateway_before_head(list.into()).await;
    let answer = wire::ask(gateway.address, "GET /v1/x HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(answer.status, 502);
}

//! The admin listener: metrics, probes and the admin API.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};
use steadfast::sim::{Act, Point};

use crate::kit::{
    client::{self, request},
    gateway::{Gateway, upstream},
    sessions::responses_request,
    sim, sims, until,
};

async fn scrape(gateway: &Gateway) -> String {
    let reply = gateway.ask("/metrics").await;
    assert_eq!(reply.status, 200);
    assert!(
        reply.header("content-type").starts_with("text/plain"),
        "{}",
        reply.header("content-type")
    );
    reply.text()
}

#[tokio::test]
async fn metrics_have_the_documented_names_and_bounded_labels() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    for (key, stream) in [("s1", true), ("s1", false), ("s2", true)] {
        let fields = json!({"input": "hi", "prompt_cache_key": key, "stream": stream});
        client::send(gateway.address, responses_request(fields, &[])).await;
    }
    client::get(gateway.address, "/v1/things").await;
    client::get(gateway.address, "/nothing").await;
    let text = scrape(&gateway).await;
    for (name, kind) in [
        ("requests_total", "counter"),
        ("request_duration_seconds", "histogram"),
        ("time_to_first_byte_seconds", "histogram"),
        ("proxy_overhead_seconds", "histogram"),
        ("in_flight_requests", "gauge"),
        ("pins", "gauge"),
        ("rejected_requests_total", "counter"),
        ("buffered_bytes", "gauge"),
        ("connections", "gauge"),
        ("client_connections_shed_total", "counter"),
        ("reloads_total", "counter"),
        ("build_info", "gauge"),
    ] {
        let declared = format!("# TYPE steadfast_{name} {kind}");
        assert_eq!(text.lines().filter(|line| *line == declared).count(), 1, "{declared}");
        assert!(text.contains(&format!("# HELP steadfast_{name} ")), "{name}");
        assert!(
            text.lines().any(|line| line.starts_with(&format!("steadfast_{name}"))),
            "{name} has no value"
        );
    }
    assert_labels_are_documented(&text);
    assert_eq!(gateway.metric("steadfast_requests_total").await, 4.0);
    assert_eq!(gateway.metric("steadfast_pins").await, 2.0);
    assert_eq!(
        gateway
            .metric("steadfast_rejected_requests_total{reason=\"path\"}")
            .await,
        1.0
    );
    assert_eq!(gateway.metric("steadfast_in_flight_requests").await, 0.0);
    assert_eq!(gateway.metric("steadfast_buffered_bytes").await, 0.0);
    assert_requests_are_labelled(&text);
}

/// Checks that all series have the program's prefix and only documented labels.
fn assert_labels_are_documented(text: &str) {
    const LABELS: [&str; 10] = [
        "state", "upstream", "group", "endpoint", "route", "status", "reason", "outcome", "version", "le",
    ];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("steadfast_"), "{line}");
        let labels = line.split_once('{').map_or("", |(_, labels)| labels);
        for label in labels.split("\",").filter_map(|label| label.split_once("=\"")) {
            assert!(LABELS.contains(&label.0), "{line}");
        }
    }
}

/// Checks that requests are counted by endpoint, route and status.
fn assert_requests_are_labelled(text: &str) {
    let counted: BTreeSet<&str> = text
        .lines()
        .filter(|line| line.starts_with("steadfast_requests_total"))
        .collect();
    let all = counted.iter().copied().collect::<String>();
    for label in [
        "endpoint=\"responses\"",
        "endpoint=\"other\"",
        "route=\"home\"",
        "route=\"pin\"",
        "route=\"keyless\"",
    ] {
        assert!(all.contains(label), "{label} is not in {all}");
    }
    assert!(
        all.contains("status=\"2xx\"") && all.contains("status=\"4xx\""),
        "{all}"
    );
}

#[tokio::test]
async fn gauges_follow_running_requests() {
    let sims = sims(1).await;
    let gateway = Gateway::before(&sims, "").await;
    sims[0].script().once("/v1/responses", Act::stall(Point::Events(1)));
    let streaming = client::open(
        gateway.address,
        responses_request(json!({"input": "hi", "stream": true}), &[]),
    )
    .await;
    assert_eq!(
        gateway.metric("steadfast_in_flight_requests{upstream=\"a\"}").await,
        1.0
    );
    assert_eq!(
        gateway.metric("steadfast_connections").await,
        1.0,
        "connections to the admin listener are not counted"
    );
    let described = gateway.ask("/api/upstreams").await.json();
    assert_eq!(described["upstreams"][0]["in_flight"], 1);
    drop(streaming);
    until("no running request and no connection", || async {
        let running =
            gateway.metric("steadfast_in_flight_requests").await + gateway.metric("steadfast_connections").await;
        (running == 0.0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_admin_api_describes_upstreams_and_routes() {
    let sims = sims(2).await;
    let config = upstream(&sims[0], "weight = 7\nmodels = [\"gpt-5*\"]") + &upstream(&sims[1], "");
    let gateway = Gateway::configured(&config).await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(gateway.ask(path).await.status, 200, "{path}");
    }
    let described = gateway.ask("/api/upstreams").await.json();
    let names: Vec<&Value> = described["upstreams"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| &one["name"])
        .collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(
        (
            &described["upstreams"][0]["weight"],
            &described["upstreams"][0]["models"]
        ),
        (&json!(7), &json!(["gpt-5*"]))
    );

    let route = gateway.ask("/api/route?key=a%20key%2Bmore&model=gpt-5.2").await.json();
    assert_eq!(
        (&route["key"], &route["model"], &route["pin"]),
        (&json!("a key+more"), &json!("gpt-5.2"), &Value::Null)
    );
    let told: Vec<&str> = route["upstreams"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    assert_eq!(told, gateway.order(&["a key+more", "--model", "gpt-5.2"]).await);
    client::send(
        gateway.address,
        responses_request(json!({"input": "hi", "prompt_cache_key": "a key+more"}), &[]),
    )
    .await;
    assert_eq!(gateway.ask("/api/route?key=a+key%2Bmore").await.json()["pin"], told[0]);
    assert_eq!(
        gateway.ask("/api/route?key=x&model=o4").await.json()["upstreams"]
            .as_array()
            .map(Vec::len),
        Some(1)
    );
}

#[tokio::test]
async fn the_admin_api_refuses_invalid_requests() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    for path in [
        "/api/route",
        "/api/route?key=",
        "/api/route?model=gpt-5.2",
        "/api/route?key=x&wat=1",
        "/api/route?key=x&group=g",
    ] {
        let reply = gateway.ask(path).await;
        assert_eq!(reply.status, 400, "{path}: {}", reply.text());
        assert!(
            reply.json()["error"]["message"]
                .as_str()
                .is_some_and(|message| message.len() > 20),
            "{path}"
        );
    }
    for path in ["/api", "/v1/models", "/metrics/"] {
        assert_eq!(gateway.ask(path).await.status, 404, "{path}");
    }
    for (method, path) in [("POST", "/metrics"), ("DELETE", "/api/upstreams"), ("POST", "/livez")] {
        let reply = client::send(gateway.admin, request(method.parse().expect("a method"), path, "")).await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("allow")),
            (405, "GET, HEAD"),
            "{method} {path}"
        );
    }
    for method in ["GET", "HEAD", "PUT"] {
        let reply = client::send(
            gateway.admin,
            request(method.parse().expect("a method"), "/api/reload", ""),
        )
        .await;
        assert_eq!(
            (reply.status.as_u16(), reply.header("allow")),
            (405, "POST"),
            "{method}: a request that changes state needs POST"
        );
    }
    let reply = client::send(gateway.admin, request(Method::HEAD, "/metrics", "")).await;
    assert_eq!((reply.status.as_u16(), reply.body.len()), (200, 0));
    for path in ["/metrics", "/livez", "/api/upstreams"] {
        assert_eq!(
            client::get(gateway.address, path).await.status,
            404,
            "{path} is not for callers"
        );
    }
}

#[tokio::test]
async fn an_admin_token_is_required_except_for_probes() {
    let sim = sim("a").await;
    let head = "[admin]\ntoken = \"env:STEADFAST_TEST_KEY\"\n";
    let gateway = Gateway::before(std::slice::from_ref(&sim), head).await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(gateway.ask(path).await.status, 200, "{path}");
    }
    for path in ["/metrics", "/api/upstreams", "/api/route?key=x", "/nothing"] {
        for shown in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer wrong",
            "Bearer sk-upstream-canary1",
            "Basic sk-upstream-canary",
        ] {
            let asked = Request::get(path)
                .header("authorization", shown)
                .body(Full::<Bytes>::default());
            let reply = client::send(gateway.admin, asked.expect("a valid request")).await;
            assert_eq!(
                (reply.status.as_u16(), reply.header("www-authenticate")),
                (401, "Bearer"),
                "{path} {shown}"
            );
        }
        assert_eq!(gateway.ask(path).await.status, 401);
    }
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let asked = Request::get("/metrics").header("authorization", format!("{scheme} sk-upstream-canary"));
        let reply = client::send(
            gateway.admin,
            asked.body(Full::<Bytes>::default()).expect("a valid request"),
        )
        .await;
        assert_eq!(reply.status, 200, "the scheme is case-insensitive: {scheme}");
    }
}

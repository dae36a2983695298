//! The input of the workloads: recorded and generated requests and responses, and gateways with any number of
//! upstreams.

use std::{fmt::Write as _, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, Request, request::Parts};
use steadfast::{
    config::{Config, Overrides},
    state::Gateway,
};

use crate::BenchError;

/// The head of a recorded turn of Codex.
pub const CODEX_HEAD: &str = include_str!("../../../tests/fixtures/recordings/codex0.169-sse-openai-apikey.head");
/// The body of that turn.
pub const CODEX_BODY: &[u8] = include_bytes!("../../../tests/fixtures/recordings/codex0.169-sse-openai-apikey.body");

/// The head of a response of OpenAI with a typical length.
pub const RESPONSE_HEAD: &str = "HTTP/1.1 200 OK\r\n\
    date: Mon, 23 Nov 2026 12:00:00 GMT\r\n\
    content-type: application/json\r\n\
    x-ratelimit-limit-requests: 10000\r\n\
    x-ratelimit-limit-tokens: 30000000\r\n\
    x-ratelimit-remaining-requests: 9999\r\n\
    x-ratelimit-remaining-tokens: 29989990\r\n\
    x-ratelimit-reset-requests: 6ms\r\n\
    x-ratelimit-reset-tokens: 20ms\r\n\
    openai-version: 2020-10-01\r\n\
    openai-organization: org-1\r\n\
    openai-project: proj_1\r\n\
    x-request-id: req_9f3c6d0c4f1b4c0e8f5b1f8f0c1d2e3f\r\n\
    openai-processing-ms: 1234\r\n\
    strict-transport-security: max-age=31536000; includeSubDomains; preload\r\n\
    x-content-type-options: nosniff\r\n\
    set-cookie: __cf_bm=0123456789abcdef; path=/; HttpOnly; Secure\r\n\
    server: cloudflare\r\n\
    alt-svc: h3=\":443\"; ma=86400\r\n";

/// The body of a short response with its token usage.
pub const RESPONSE: &str = concat!(
    r#"{"id":"resp_01a206a040757de097444102e6786650","object":"response","status":"completed","model":"gpt-5.2","#,
    r#""output":[{"type":"message","role":"assistant","content":[{"type":"output_text","text":"Yes."}]}],"#,
    r#""usage":{"input_tokens":9000,"input_tokens_details":{"cached_tokens":8960},"output_tokens":3,"total_tokens":9003}}"#
);

/// Returns a request body of 4 KB: text with an escape about every 55 bytes, and the session key at the end.
pub fn conversation_4kb() -> String {
    let text = r#"The function returns early when the buffer is empty.\nIt says \"no\" then, and the caller gives the\tresult. "#
        .repeat(11);
    let item = format!(r#"{{"type":"message","role":"user","content":[{{"type":"input_text","text":"{text}"}}]}}"#);
    let items = vec![item; 3].join(",");
    let key = "01a2069e-bb2c-76f3-b814-64a0c2fa928c";
    format!(r#"{{"model":"gpt-5.2","stream":false,"input":[{items}],"store":false,"prompt_cache_key":"{key}"}}"#)
}

/// Returns a hundred events: the first and the last event of a response, with text deltas between them.
pub fn events() -> Vec<String> {
    let event = |kind: &str, rest: &str| format!("event: {kind}\ndata: {{\"type\":\"{kind}\",{rest}}}\n\n");
    let delta = |number: usize| {
        let rest = format!(
            r#""content_index":0,"delta":" account","item_id":"msg_01a206a04092","output_index":0,"sequence_number":{number}"#
        );
        event("response.output_text.delta", &rest)
    };
    let mut events = vec![event("response.created", &format!(r#""response":{RESPONSE}"#))];
    events.extend((1..99).map(delta));
    events.push(event("response.completed", &format!(r#""response":{RESPONSE}"#)));
    events
}

/// Returns a gateway with `count` upstreams, all of them at `address`.
pub fn gateway(count: usize, address: &str) -> Result<Arc<Gateway>, BenchError> {
    let mut text = String::new();
    for number in 0..count {
        writeln!(
            text,
            "[[upstream]]\nname = \"account-{number}\"\nbase_url = \"http://{address}/v1\"\napi_key = \"env:KEY\"\n"
        )?;
    }
    let key = |_: &str| Some("sk-proj-0123456789abcdef0123456789abcdef0123456789abcdef".to_owned());
    let config = Config::from_toml(&text, "counts.toml", &key, &Overrides::default());
    let config = config.map_err(|errors| errors.to_string())?;
    Ok(Gateway::new(&config)?)
}

/// Returns the parsed fields `lines` as a header map.
fn headers(lines: &[httparse::Header<'_>]) -> Result<HeaderMap, BenchError> {
    let mut headers = HeaderMap::with_capacity(lines.len());
    for line in lines {
        headers.append(
            HeaderName::from_bytes(line.name.as_bytes())?,
            HeaderValue::from_bytes(line.value)?,
        );
    }
    Ok(headers)
}

/// Returns the parsed head of the recorded request.
pub fn codex_parts() -> Result<Parts, BenchError> {
    let mut lines = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut lines);
    parsed.parse(CODEX_HEAD.as_bytes())?;
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err("the recorded head is cut short".into());
    };
    let mut request = Request::builder().method(method).uri(target).body(())?;
    *request.headers_mut() = headers(parsed.headers)?;
    Ok(request.into_parts().0)
}

/// Returns the parsed fields of [`RESPONSE_HEAD`].
pub fn response_headers() -> Result<HeaderMap, BenchError> {
    let head = format!("{RESPONSE_HEAD}\r\n");
    let mut lines = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Response::new(&mut lines);
    parsed.parse(head.as_bytes())?;
    headers(parsed.headers)
}

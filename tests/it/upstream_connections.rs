//! Connections towards upstreams: when one is used again, what is sent again, and how bodies travel on them.

use crate::kit::{
    house,
    wire::{self, Wire},
};

#[tokio::test]
async fn a_chunked_body_stays_one_whatever_its_method_and_size() {
    let (sim, gateway) = house("").await;
    let mut wire = Wire::open(gateway.address).await;
    for (kind, text) in [
        ("application/json", "{}"),
        ("text/plain", "some text"),
        ("text/plain", ""),
        ("application/json", ""),
    ] {
        for method in ["POST", "DELETE", "GET", "HEAD"] {
            let mut body = wire::chunk(text).repeat(usize::from(!text.is_empty()));
            body.push_str("0\r\n\r\n");
            wire.send(format!(
                "{method} /v1/files HTTP/1.1\r\nhost: it\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n\r\n{body}"
            ))
            .await;
            wire.answer_to(method).await;
            let seen = sim.requests().pop().expect("a request");
            let what = format!("{method} {kind} {text:?}: {:?}", seen.headers);
            assert_eq!(
                (seen.method.as_str(), &seen.body[..]),
                (method, text.as_bytes()),
                "{what}"
            );
            assert_eq!(seen.headers.get("transfer-encoding").expect(&what), "chunked");
            assert!(!seen.headers.contains_key("content-length"), "{what}");
        }
    }
}

//! Recognizes requests that ask for another protocol.

use http::{HeaderMap, Method, Version, header::UPGRADE, request::Parts};

/// Whether the client asks to switch to the WebSocket protocol (RFC 6455 section 4.1). Some proxies drop the option `upgrade`
/// of `Connection` and keep `Upgrade`, so the option is not required. A request of HTTP/1.0 cannot switch protocols (RFC
/// 9110 section 7.8).
#[inline]
pub(super) fn wants_websocket(parts: &Parts) -> bool {
    parts.method == Method::GET && parts.version != Version::HTTP_10 && names_websocket(&parts.headers)
}

fn names_websocket(headers: &HeaderMap) -> bool {
    headers.get_all(UPGRADE).iter().any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.split(',').any(|name| is_websocket(name.trim())))
    })
}

/// Whether a protocol is `websocket`. A version may follow its name.
fn is_websocket(protocol: &str) -> bool {
    let name = protocol.split_once('/').map_or(protocol, |(name, _)| name);
    name.eq_ignore_ascii_case("websocket")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::headers::tests::headers;

    #[test]
    fn a_websocket_is_asked_for_by_any_upgrade_field() {
        for (sent, expected) in [
            (&[][..], false),
            (&[("upgrade", "websocket")], true),
            (&[("upgrade", "h2c, WebSocket")], true),
            (&[("upgrade", "h2c"), ("upgrade", "websocket")], true),
            (&[("upgrade", "websockets")], false),
            (&[("upgrade", "WebSocket/13")], true),
            (&[("upgrade", "h2c,,\twebsocket")], true),
            (&[("connection", "websocket")], false),
        ] {
            assert_eq!(names_websocket(&headers(sent)), expected, "{sent:?}");
        }
    }
}

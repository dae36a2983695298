//! The head of a request as it was received, and the request id that is assigned to it.

use http::{HeaderMap, HeaderValue, request::Parts};

use crate::proxy::{headers::X_REQUEST_ID, text::deep_copy};
use crate::wire::{Framing, Peer};

/// A request's head as it was received, before anything in it is checked.
pub(in crate::proxy) struct ReceivedHead {
    pub parts: Parts,
    /// How the body is delimited.
    pub framing: Framing,
    /// The client at the other end of the connection.
    pub peer: Peer,
    /// The request's id. The field `x-request-id` in `parts` has the same value.
    pub request_id: HeaderValue,
}

impl ReceivedHead {
    /// Assigns a request id to a head.
    pub fn new(mut parts: Parts, framing: Framing, peer: Peer) -> Self {
        let request_id = assign_request_id(&mut parts.headers);
        Self {
            parts,
            framing,
            peer,
            request_id,
        }
    }
}

/// Takes the client's request id if it is usable, else makes one, and puts it into `headers` as the only one: the id in
/// the log is the id that the upstream receives.
fn assign_request_id(headers: &mut HeaderMap) -> HeaderValue {
    let id = match headers.get(X_REQUEST_ID) {
        Some(id) if is_usable(id) => deep_copy(id),
        _ => new_request_id(),
    };
    headers.insert(X_REQUEST_ID, id.clone());
    id
}

/// Whether a client's request id may be used: 1 to 128 visible ASCII characters.
fn is_usable(id: &HeaderValue) -> bool {
    const LONGEST: usize = 128;
    (1..=LONGEST).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// A random request id.
pub(in crate::proxy) fn new_request_id() -> HeaderValue {
    request_id_of(fastrand::u128(..))
}

/// `req_` and 32 hexadecimal digits.
fn request_id_of(number: u128) -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = *b"req_00000000000000000000000000000000";
    for (place, shift) in text.iter_mut().skip("req_".len()).zip((0..128).step_by(4).rev()) {
        *place = DIGITS[(number >> shift) as usize & 0xf];
    }
    HeaderValue::from_bytes(&text).expect("letters, digits and an underscore are valid in a header value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::headers::tests::headers;

    #[test]
    fn a_usable_request_id_is_kept() {
        let longest = "x".repeat(128);
        for id in ["abc-1", &longest] {
            let mut map = headers(&[("x-request-id", id)]);
            assert_eq!(assign_request_id(&mut map), id);
            assert_eq!(map[X_REQUEST_ID], id);
        }
    }

    #[test]
    fn an_unusable_or_missing_request_id_is_replaced() {
        let too_long = "x".repeat(129);
        for sent in [
            &[][..],
            &[("x-request-id", "")],
            &[("x-request-id", "a b")],
            &[("x-request-id", "\u{e9}")],
            &[("x-request-id", &*too_long)],
        ] {
            let mut map = headers(sent);
            let made = assign_request_id(&mut map);
            let text = made.to_str().expect("an ASCII id");
            assert!(text.len() == 36 && text.starts_with("req_"), "{text}");
            assert_eq!(map[X_REQUEST_ID], made);
        }
    }

    #[test]
    fn the_first_of_two_request_ids_replaces_both() {
        let mut map = headers(&[("x-request-id", "a"), ("x-request-id", "b")]);
        assert_eq!(assign_request_id(&mut map), "a");
        assert_eq!(map.get_all(X_REQUEST_ID).iter().collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_new_request_id_contains_its_number() {
        for number in [0, 1, 0xabc, u128::MAX, u128::MAX / 7] {
            assert_eq!(request_id_of(number), format!("req_{number:032x}").as_str());
        }
    }
}

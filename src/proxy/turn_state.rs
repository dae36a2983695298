//! Turn state: what an upstream gives a client to hand back during one turn, and only to the upstream that gave it.
//!
//! The client's copy carries its issuer's identity in front. Sealing is not secrecy: a client that forges an issuer only
//! sends its own text to an upstream that it may call anyway.

use http::HeaderValue;

use crate::ids::UpstreamId;

const MARK: &str = "steadfast-";

/// A turn state as a client returned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TurnState {
    /// Who issued it.
    pub issuer: UpstreamId,
    /// What it issued, byte for byte.
    pub value: HeaderValue,
}

/// Puts the issuer in front of `value`.
pub(super) fn seal(issuer: UpstreamId, value: &HeaderValue) -> Option<HeaderValue> {
    let mut sealed = format!("{MARK}{:016x}-", issuer.as_u64()).into_bytes();
    sealed.extend_from_slice(value.as_bytes());
    HeaderValue::from_maybe_shared(bytes::Bytes::from(sealed)).ok()
}

/// Takes apart what [`seal`] made. Anything else has no known issuer, and so may be sent to nobody.
pub(super) fn unseal(sealed: &HeaderValue) -> Option<TurnState> {
    let rest = sealed.as_bytes().strip_prefix(MARK.as_bytes())?;
    let (issuer, value) = rest.split_at_checked(16)?;
    let issuer = u64::from_str_radix(std::str::from_utf8(issuer).ok()?, 16).ok()?;
    let value = HeaderValue::from_bytes(value.strip_prefix(b"-")?).ok()?;
    Some(TurnState {
        issuer: UpstreamId::from_u64(issuer),
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_opens_to_what_was_sealed() {
        let issuer = UpstreamId::from_name("a");
        for value in ["", "TSH-1", "a-b--c", "steadfast-0000000000000000-x"] {
            let value = HeaderValue::from_str(value).expect("a value");
            let sealed = seal(issuer, &value).expect("fits");
            assert_eq!(unseal(&sealed), Some(TurnState { issuer, value }));
        }
    }

    #[test]
    fn what_was_never_sealed_does_not_open() {
        for text in [
            "",
            "TSH-1",
            "steadfast-",
            "steadfast-12-x",
            "steadfast-zzzzzzzzzzzzzzzz-x",
            "steadfast-0123456789abcdefx",
        ] {
            assert_eq!(unseal(&HeaderValue::from_str(text).expect("a value")), None, "{text}");
        }
    }
}

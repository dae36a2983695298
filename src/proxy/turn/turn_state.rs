//! Turn state: what an upstream gives a client to hand back during one turn, and only to the upstream that gave it.
//!
//! The client's copy carries its issuer's identity in front, and a keyed hash over the group that it was given to: what one
//! group was given is of no use to another. The key comes from the issuer's credential, so that every replica and every
//! restart knows it and no caller does; with a new credential turn states lapse, and a turn goes on without.

use hmac::{Hmac, Mac as _};
use http::HeaderValue;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::ids::{Namespace, UpstreamId};

const MARK: &str = "steadfast-";
/// Bytes of the keyed hash, of which each is two digits.
const TAG: usize = 16;

/// What an upstream's turn states are sealed with.
type Seal = Hmac<Sha256>;

/// A turn state as a client returned it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct TurnState {
    /// Who issued it.
    pub issuer: UpstreamId,
    /// What it issued, byte for byte.
    pub value: HeaderValue,
}

/// Puts the issuer, and whom it was given to, in front of `value`.
pub(in crate::proxy) fn seal(
    issuer: UpstreamId,
    seal: &Seal,
    namespace: Namespace,
    value: &HeaderValue,
) -> Option<HeaderValue> {
    let tag = tag(seal, namespace, value.as_bytes());
    let mut sealed = format!("{MARK}{:016x}-{:032x}-", issuer.as_u64(), u128::from_be_bytes(tag)).into_bytes();
    sealed.extend_from_slice(value.as_bytes());
    HeaderValue::from_maybe_shared(bytes::Bytes::from(sealed)).ok()
}

/// Takes apart what [`seal`] made for the same group. Anything else was given by nobody, and so may be sent to nobody.
pub(in crate::proxy) fn unseal<'a>(
    sealed: &HeaderValue,
    namespace: Namespace,
    seal_of: impl FnOnce(UpstreamId) -> Option<&'a Seal>,
) -> Option<TurnState> {
    let rest = sealed.as_bytes().strip_prefix(MARK.as_bytes())?;
    let (issuer, rest) = rest.split_at_checked(16)?;
    let (shown, value) = rest.strip_prefix(b"-")?.split_at_checked(2 * TAG)?;
    let value = value.strip_prefix(b"-")?;
    let issuer = UpstreamId::from_u64(u64::from_str_radix(std::str::from_utf8(issuer).ok()?, 16).ok()?);
    let shown = u128::from_str_radix(std::str::from_utf8(shown).ok()?, 16).ok()?;
    let expected = tag(seal_of(issuer)?, namespace, value);
    if !bool::from(shown.to_be_bytes().ct_eq(&expected)) {
        return None;
    }
    let value = HeaderValue::from_bytes(value).ok()?;
    Some(TurnState { issuer, value })
}

fn tag(seal: &Seal, namespace: Namespace, value: &[u8]) -> [u8; TAG] {
    let mut seal = seal.clone();
    seal.update(&namespace.as_u64().to_le_bytes());
    seal.update(value);
    let whole = seal.finalize().into_bytes();
    std::array::from_fn(|at| whole.get(at).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use hmac::KeyInit as _;

    use super::*;

    fn key(text: &str) -> Seal {
        Seal::new_from_slice(text.as_bytes()).expect("any length")
    }

    #[test]
    fn a_seal_opens_to_what_was_sealed_and_to_nobody_else() {
        let issuer = UpstreamId::from_name("a");
        let (ours, theirs) = (Namespace::of_group("ours"), Namespace::of_group("theirs"));
        let (good, other) = (key("sk-upstream"), key("sk-another"));
        for value in ["", "TSH-1", "a-b--c", "steadfast-0000000000000000-x"] {
            let value = HeaderValue::from_str(value).expect("a value");
            let sealed = seal(issuer, &good, ours, &value).expect("fits");
            let opened = unseal(&sealed, ours, |id| (id == issuer).then_some(&good));
            assert_eq!(opened, Some(TurnState { issuer, value }));
            assert_eq!(unseal(&sealed, theirs, |_| Some(&good)), None);
            assert_eq!(unseal(&sealed, ours, |_| Some(&other)), None);
            assert_eq!(unseal(&sealed, ours, |_| None), None);
        }
    }

    #[test]
    fn what_was_never_sealed_does_not_open() {
        let good = key("sk-upstream");
        for text in [
            "",
            "TSH-1",
            "steadfast-",
            "steadfast-12-x",
            "steadfast-zzzzzzzzzzzzzzzz-x",
            "steadfast-0123456789abcdef-x",
            "steadfast-0123456789abcdef-00000000000000000000000000000000-x",
            "steadfast-0123456789abcdef-0000000000000000000000000000000é-x",
        ] {
            let sealed = HeaderValue::from_bytes(text.as_bytes()).expect("a value");
            assert_eq!(
                unseal(&sealed, Namespace::of_group(""), |_| Some(&good)),
                None,
                "{text}"
            );
        }
    }
}

//! Turn state: a value that an upstream issues to a client. The client returns it during the same turn, and only the
//! upstream that issued it may receive it.
//!
//! The client's copy is *sealed*: it begins with the identity of the issuer and a keyed hash over the value and the
//! caller's group, so that no other group can use it. The key of the hash is made from the issuer's credential, so
//! every replica has it after every restart, and no caller has it. When the credential changes, turn states become
//! invalid, and their turns continue without them.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use subtle::ConstantTimeEq as _;

use crate::ids::{Namespace, UpstreamId};

/// The prefix of a sealed turn state.
const MARK: &str = "steadfast-";
/// The length of the issuer in hexadecimal digits.
const ISSUER_DIGITS: usize = 16;
/// The length of the keyed hash in bytes; each is two hexadecimal digits.
const TAG_BYTES: usize = 16;

/// The key that seals an upstream's turn states.
type SealKey = Hmac<Sha256>;

/// A turn state as a client has returned it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) struct TurnState<'a> {
    /// The upstream that issued it.
    pub issuer: UpstreamId,
    /// The value that the upstream issued, byte for byte.
    pub value: &'a [u8],
}

/// Seals `value` for the group `namespace`. The function adds only ASCII text to the value.
pub(in crate::proxy) fn seal(issuer: UpstreamId, key: &SealKey, namespace: Namespace, value: &[u8]) -> Vec<u8> {
    let tag = tag(key, namespace, value);
    let mut sealed = format!("{MARK}{:016x}-{:032x}-", issuer.as_u64(), u128::from_be_bytes(tag)).into_bytes();
    sealed.extend_from_slice(value);
    sealed
}

/// Opens a value that [`seal`] has made for the same group. Returns `None` for every other value: no upstream of this
/// configuration has issued it, so no upstream may receive it.
pub(in crate::proxy) fn unseal<'a, 'k>(
    sealed: &'a [u8],
    namespace: Namespace,
    key_of: impl FnOnce(UpstreamId) -> Option<&'k SealKey>,
) -> Option<TurnState<'a>> {
    let rest = sealed.strip_prefix(MARK.as_bytes())?;
    let (issuer, rest) = rest.split_at_checked(ISSUER_DIGITS)?;
    let (shown, value) = rest.strip_prefix(b"-")?.split_at_checked(2 * TAG_BYTES)?;
    let value = value.strip_prefix(b"-")?;
    let issuer = UpstreamId::from_u64(u64::from_str_radix(std::str::from_utf8(issuer).ok()?, 16).ok()?);
    let shown = u128::from_str_radix(std::str::from_utf8(shown).ok()?, 16).ok()?;
    let expected = tag(key_of(issuer)?, namespace, value);
    bool::from(shown.to_be_bytes().ct_eq(&expected)).then_some(TurnState { issuer, value })
}

/// The first bytes of the keyed hash over the group and the value.
fn tag(key: &SealKey, namespace: Namespace, value: &[u8]) -> [u8; TAG_BYTES] {
    let mut hash = key.clone();
    hash.update(&namespace.as_u64().to_le_bytes());
    hash.update(value);
    let digest = hash.finalize().into_bytes();
    *digest.first_chunk().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use hmac::KeyInit as _;

    use super::*;

    fn key(text: &str) -> SealKey {
        SealKey::new_from_slice(text.as_bytes()).expect("a key may have any length")
    }

    #[test]
    fn a_sealed_value_is_opened_for_its_group_and_with_its_key_only() {
        let issuer = UpstreamId::from_name("a");
        let (ours, theirs) = (Namespace::of_group("ours"), Namespace::of_group("theirs"));
        let (good, other) = (key("sk-upstream"), key("sk-another"));
        for value in ["", "TSH-1", "a-b--c", "steadfast-0000000000000000-x"] {
            let value = value.as_bytes();
            let sealed = seal(issuer, &good, ours, value);
            let opened = unseal(&sealed, ours, |id| (id == issuer).then_some(&good));
            assert_eq!(opened, Some(TurnState { issuer, value }));
            assert_eq!(unseal(&sealed, theirs, |_| Some(&good)), None);
            assert_eq!(unseal(&sealed, ours, |_| Some(&other)), None);
            assert_eq!(unseal(&sealed, ours, |_| None), None);
        }
    }

    #[test]
    fn a_value_that_was_not_sealed_is_not_opened() {
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
            assert_eq!(
                unseal(text.as_bytes(), Namespace::of_group(""), |_| Some(&good)),
                None,
                "{text}"
            );
        }
    }
}

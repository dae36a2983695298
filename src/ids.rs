//! Identities as newtypes: whatever is hashed, pinned or compared has one of these types.
//!
//! All of them are XXH3-64 hashes (<https://github.com/Cyan4973/xxHash>) with fixed seeds, so every replica and
//! every restart derives the same identity from the same text. XXH3 is not collision resistant against an adversary;
//! that is enough here because a collision mostly decides *which* upstream serves a request, not *whether* it may; and where state
//! is kept apart by group, the table to collide with holds only what upstreams have issued, which no caller chooses.

use twox_hash::XxHash3_64;

/// Fixed seeds keep identities of different kinds apart: a response id never collides with a session key of the same text.
mod seed {
    pub const UPSTREAM: u64 = 0x5554_5053_5452_4541;
    pub const MODEL: u64 = 0x4d4f_4445_4c4e_414d;
    pub const NAMESPACE: u64 = 0x4e41_4d45_5350_4143;
    pub const TEXT: u64 = 0x5345_5353_494f_4e4b;
    pub const CONTENT: u64 = 0x434f_4e54_454e_5453;
    pub const OWNED: u64 = 0x4f57_4e45_4453_5441;
    pub const ORGANIZATION: u64 = 0x4f52_4741_4e49_5a41;
    pub const ENCRYPTED: u64 = 0x454e_4352_5950_5445;
}

/// An upstream's stable identity: the hash of its configured name.
///
/// It survives reloads, reordering of the file and changes of URL or credential, which is why pins hold it and not an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(u64);

impl UpstreamId {
    /// The identity of the upstream called `name`.
    pub fn from_name(name: &str) -> Self {
        Self(XxHash3_64::oneshot_with_seed(seed::UPSTREAM, name.as_bytes()))
    }

    /// The identity as a number, for hashing and sealing.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The identity that [`UpstreamId::as_u64`] gave.
    pub const fn from_u64(value: u64) -> Self {
        Self(value)
    }
}

/// A model's identity: the hash of its name as the request wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ModelKey(u64);

impl ModelKey {
    /// The identity of the model called `name`.
    pub fn from_name(name: &str) -> Self {
        Self(XxHash3_64::oneshot_with_seed(seed::MODEL, name.as_bytes()))
    }
}

/// Who an upstream's account belongs to: the upstreams of one organization share prompt cache and response state.
///
/// The lowest bit tells whether it was named, so that no name is the same as an upstream that stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrganizationId(u64);

impl OrganizationId {
    /// The organization that the configuration calls `name`.
    pub fn from_name(name: &str) -> Self {
        Self(XxHash3_64::oneshot_with_seed(seed::ORGANIZATION, name.as_bytes()) | 1)
    }

    /// That of an upstream that names none: its own.
    pub const fn of_upstream(upstream: UpstreamId) -> Self {
        Self(upstream.0 & !1)
    }
}

/// An upstream's share of the sessions relative to the others of its pool: 1 to 1,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight(u32);

impl Weight {
    /// The weight of an upstream that names none.
    pub const ONE: Self = Self(1);
    /// The largest weight.
    pub const MAX: u32 = 1_000_000;

    /// A weight, or `None` outside 1 to [`Weight::MAX`].
    pub const fn new(value: u32) -> Option<Self> {
        if value == 0 || value > Self::MAX {
            None
        } else {
            Some(Self(value))
        }
    }

    /// The weight as a number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Whose sessions these are: two tenants with the same session key are strangers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Namespace(u64);

impl Namespace {
    /// The namespace of the group called `name`; the open sidecar uses the empty name.
    pub fn of_group(name: &str) -> Self {
        Self(XxHash3_64::oneshot_with_seed(seed::NAMESPACE, name.as_bytes()))
    }

    /// The namespace as a number, for sealing.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// What a session is hashed by. The text itself is not kept, so it cannot be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey(u64);

impl SessionKey {
    /// The key that a client named in so many words; the same text from any source is the same key.
    pub fn from_text(namespace: Namespace, text: &str) -> Self {
        Self(XxHash3_64::oneshot_with_seed(seed::TEXT ^ namespace.0, text.as_bytes()))
    }

    /// The key of a conversation that names none: the text that its requests share.
    pub fn from_content(namespace: Namespace, instructions: &[u8], input: &[u8]) -> Self {
        let first = XxHash3_64::oneshot_with_seed(seed::CONTENT ^ namespace.0, instructions);
        Self(XxHash3_64::oneshot_with_seed(first, input))
    }

    /// The key as a number, for hashing.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// An `encrypted_content` that an upstream has issued, by the hash of its beginning. It is the same for every tenant:
/// [`OwnedKey::from_encrypted_content`] keeps them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EncryptedContent(u64);

impl EncryptedContent {
    /// How many bytes of it are the identity. OpenAI's are Fernet tokens (<https://github.com/fernet/spec>) in base64, of which
    /// the first 34 bytes hold the time and a random vector.
    pub const PREFIX: usize = 192;

    /// The identity of the content that begins with `text`; what lies behind [`Self::PREFIX`] bytes does not matter.
    pub fn from_text(text: &[u8]) -> Self {
        let prefix = text.get(..Self::PREFIX).unwrap_or(text);
        Self(XxHash3_64::oneshot_with_seed(seed::ENCRYPTED, prefix))
    }
}

/// Upstream state that a client names later (a response id, encrypted content), by hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnedKey(u64);

impl OwnedKey {
    /// The key of the response called `id`.
    pub fn from_response_id(namespace: Namespace, id: &str) -> Self {
        Self(XxHash3_64::oneshot_with_seed(seed::OWNED ^ namespace.0, id.as_bytes()))
    }

    /// The key of an item's encrypted content.
    pub fn from_encrypted_content(namespace: Namespace, content: EncryptedContent) -> Self {
        let seed = seed::ENCRYPTED ^ namespace.0;
        Self(XxHash3_64::oneshot_with_seed(seed, &content.0.to_le_bytes()))
    }

    /// The key as a number, for hashing.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These values are a contract: changing one moves every session of every deployment.
    #[test]
    fn identities_do_not_change_between_releases() {
        let group = Namespace::of_group("");
        assert_eq!(UpstreamId::from_name("account-a").as_u64(), 4730489446058739647);
        assert_eq!(SessionKey::from_text(group, "session-1").as_u64(), 13914632425468604125);
        assert_eq!(
            OwnedKey::from_response_id(group, "resp_1").as_u64(),
            2059813803124841673
        );
        let content = EncryptedContent::from_text(b"gAAAAAB");
        assert_eq!(
            OwnedKey::from_encrypted_content(group, content).as_u64(),
            3181265772247188507
        );
    }

    #[test]
    fn namespaces_and_kinds_are_apart() {
        let (a, b) = (Namespace::of_group("a"), Namespace::of_group("b"));
        assert_ne!(SessionKey::from_text(a, "k"), SessionKey::from_text(b, "k"));
        assert_ne!(
            SessionKey::from_text(a, "k").as_u64(),
            OwnedKey::from_response_id(a, "k").as_u64()
        );
        assert_ne!(
            SessionKey::from_content(a, b"ab", b"c"),
            SessionKey::from_content(a, b"a", b"bc")
        );
    }

    #[test]
    fn an_upstream_that_stands_alone_is_in_no_organization_with_a_name() {
        for n in 0..100 {
            let name = format!("account-{n}");
            let alone = OrganizationId::of_upstream(UpstreamId::from_name(&name));
            for other in 0..100 {
                let other = format!("account-{other}");
                assert_ne!(alone, OrganizationId::from_name(&other));
                let other_alone = OrganizationId::of_upstream(UpstreamId::from_name(&other));
                assert_eq!(alone == other_alone, name == other);
            }
        }
    }

    #[test]
    fn encrypted_content_is_known_by_its_beginning() {
        let of =
            |length: usize, last: &str| EncryptedContent::from_text(format!("{}{last}", "a".repeat(length)).as_bytes());
        assert_eq!(of(EncryptedContent::PREFIX, "b"), of(EncryptedContent::PREFIX, "c"));
        assert_ne!(
            of(EncryptedContent::PREFIX - 1, "b"),
            of(EncryptedContent::PREFIX - 1, "c")
        );
        assert_ne!(of(3, ""), of(4, ""));
        let (a, b) = (Namespace::of_group("a"), Namespace::of_group("b"));
        let key = |namespace| OwnedKey::from_encrypted_content(namespace, of(3, ""));
        assert_ne!(key(a), key(b));
        assert_ne!(key(a), OwnedKey::from_response_id(a, "aaa"));
    }

    #[test]
    fn weights_are_bounded() {
        assert_eq!(Weight::new(0), None);
        assert_eq!(Weight::new(Weight::MAX + 1), None);
        assert_eq!(Weight::new(7).map(Weight::get), Some(7));
    }
}

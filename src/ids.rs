//! Newtypes for the identities that are hashed, pinned or compared.
//!
//! Each identity is an XXH3-64 hash (<https://github.com/Cyan4973/xxHash>) with a fixed seed, so that every replica and
//! every restart derives the same identity from the same text. XXH3 does not resist an adversary who looks for
//! collisions. It is sufficient here for two reasons. A collision of session keys changes only *which* upstream serves
//! a request, not *whether* the request is allowed. The table of owned state decides whether a request is allowed, but
//! it contains only texts that upstreams have issued and that callers cannot choose.

use std::num::NonZeroU64;

use twox_hash::XxHash3_64;

/// One seed for each kind of identity, so that a response id and a session key with the same text have different hashes.
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
/// It stays the same when the configuration is reloaded, when its upstreams are reordered, and when the upstream's URL or
/// credential changes. For that reason pins hold this identity and not an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(NonZeroU64);

impl UpstreamId {
    /// The identity of the upstream called `name`.
    pub fn from_name(name: &str) -> Self {
        Self::from_u64(XxHash3_64::oneshot_with_seed(seed::UPSTREAM, name.as_bytes()))
    }

    /// The identity as a number, for hashing and sealing. It is never zero, so that an `Option` of it is not larger.
    pub const fn as_u64(self) -> u64 {
        self.0.get()
    }

    /// The identity that [`UpstreamId::as_u64`] gave. Zero, which it never gives, stands for the largest number.
    pub const fn from_u64(value: u64) -> Self {
        match NonZeroU64::new(value) {
            Some(value) => Self(value),
            None => Self(NonZeroU64::MAX),
        }
    }
}

/// A model's identity: the hash of its name as the request wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModelKey(NonZeroU64);

impl ModelKey {
    /// The identity of the model called `name`.
    pub fn from_name(name: &str) -> Self {
        let hash = XxHash3_64::oneshot_with_seed(seed::MODEL, name.as_bytes());
        Self(NonZeroU64::new(hash).unwrap_or(NonZeroU64::MAX))
    }

    /// The identity as a number, for hashing.
    pub const fn as_u64(self) -> u64 {
        self.0.get()
    }
}

/// The organization that owns an upstream's account. The upstreams of one organization share their prompt cache and their
/// response state.
///
/// The lowest bit is 1 for an organization that the configuration names and 0 for the own organization of an upstream that
/// names none, so that the two never collide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OrganizationId(u64);

impl OrganizationId {
    /// The organization that the configuration calls `name`.
    pub fn from_name(name: &str) -> Self {
        Self(XxHash3_64::oneshot_with_seed(seed::ORGANIZATION, name.as_bytes()) | 1)
    }

    /// The own organization of an upstream whose configuration names none.
    pub const fn of_upstream(upstream: UpstreamId) -> Self {
        Self(upstream.as_u64() & !1)
    }
}

/// An upstream's share of the sessions relative to the others of its pool: 1 to 1,000,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Weight(u32);

impl Weight {
    /// The weight of an upstream whose configuration names none.
    pub const ONE: Self = Self(1);
    /// The largest weight.
    pub const MAX: u32 = 1_000_000;

    /// The weight `value`, or `None` if it is not between 1 and [`Weight::MAX`].
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

/// The namespace of a group's session keys and owned state. The same text in two groups gives two different identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Namespace(u64);

impl Namespace {
    /// The namespace of the group called `name`. Without client keys all requests are in the group with the empty name.
    pub fn of_group(name: &str) -> Self {
        Self(XxHash3_64::oneshot_with_seed(seed::NAMESPACE, name.as_bytes()))
    }

    /// The namespace as a number, for sealing.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// A session's identity, which rendezvous hashing and pins use. The text itself is not kept, so it cannot be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey(u64);

impl SessionKey {
    /// The key of a session that the client names. The same text gives the same key, wherever the request has it.
    pub fn from_text(namespace: Namespace, text: &str) -> Self {
        Self(XxHash3_64::oneshot_with_seed(seed::TEXT ^ namespace.0, text.as_bytes()))
    }

    /// The key of a conversation whose requests name none.
    pub fn from_content(namespace: Namespace, content: ContentDigest) -> Self {
        let seed = seed::CONTENT ^ namespace.0;
        Self(XxHash3_64::oneshot_with_seed(seed, &content.0.to_le_bytes()))
    }

    /// The key as a number, for hashing.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

/// The identity of the beginning that all requests of a conversation share: the instructions, the messages before the
/// first one of the user, and that message. It does not depend on the group; [`SessionKey::from_content`] makes a key of
/// it that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentDigest(u64);

impl ContentDigest {
    /// The digest whose hash is `hash`.
    pub const fn from_hash(hash: u64) -> Self {
        Self(hash)
    }
}

/// The identity of an object that an upstream has made (a response, a conversation, a file and so on): the hash of its id.
/// It does not depend on the group; [`OwnedKey::from_object`] makes a key of it that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectId(u64);

impl ObjectId {
    /// The identity of the object with this id, which may have any length.
    pub fn from_text(id: &[u8]) -> Self {
        Self(XxHash3_64::oneshot_with_seed(seed::OWNED, id))
    }
}

/// The identity of an `encrypted_content` that an upstream has issued: the hash of its first bytes. It does not depend on
/// the group; [`OwnedKey::from_encrypted_content`] makes a key of it that does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EncryptedContent(u64);

impl EncryptedContent {
    /// The number of bytes that are hashed. OpenAI's encrypted contents are Fernet tokens (<https://github.com/fernet/spec>) in
    /// base64: their first 34 bytes contain the time and a random vector, so that these bytes suffice.
    pub const PREFIX: usize = 192;

    /// The identity of the content that begins with `text`. Bytes after the first [`Self::PREFIX`] are ignored.
    pub fn from_text(text: &[u8]) -> Self {
        let prefix = text.get(..Self::PREFIX).unwrap_or(text);
        Self(XxHash3_64::oneshot_with_seed(seed::ENCRYPTED, prefix))
    }
}

/// The identity of state that an upstream owns and that a client names in a later request: an object or an encrypted
/// content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OwnedKey(u64);

impl OwnedKey {
    /// The key of an object.
    pub fn from_object(namespace: Namespace, object: ObjectId) -> Self {
        let seed = seed::OWNED ^ namespace.0;
        Self(XxHash3_64::oneshot_with_seed(seed, &object.0.to_le_bytes()))
    }

    /// The key of the beginning of a conversation, whose cache an upstream has.
    pub fn from_content(namespace: Namespace, content: ContentDigest) -> Self {
        let seed = seed::CONTENT ^ namespace.0;
        Self(XxHash3_64::oneshot_with_seed(seed, &content.0.to_le_bytes()))
    }

    /// The key of an encrypted content.
    pub fn from_encrypted_content(namespace: Namespace, content: EncryptedContent) -> Self {
        let seed = seed::ENCRYPTED ^ namespace.0;
        Self(XxHash3_64::oneshot_with_seed(seed, &content.0.to_le_bytes()))
    }

    /// The key of a set of distinct objects and contents, in any order; `None` if the set is empty. A single one has its
    /// own key.
    pub fn of_set(keys: impl IntoIterator<Item = Self>) -> Option<Self> {
        keys.into_iter().reduce(|set, key| Self(set.0 ^ key.0))
    }

    /// The key as a number, for hashing.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// These values must never change: a change would move every session of every deployment to another upstream.
    #[test]
    fn identities_do_not_change_between_releases() {
        let group = Namespace::of_group("");
        assert_eq!(UpstreamId::from_name("account-a").as_u64(), 4730489446058739647);
        assert_eq!(SessionKey::from_text(group, "session-1").as_u64(), 13914632425468604125);
        let object = ObjectId::from_text(b"resp_1");
        assert_eq!(OwnedKey::from_object(group, object).as_u64(), 11071520276751778469);
        let content = ContentDigest::from_hash(1);
        assert_eq!(SessionKey::from_content(group, content).as_u64(), 17096057775518892400);
        let content = EncryptedContent::from_text(b"gAAAAAB");
        assert_eq!(
            OwnedKey::from_encrypted_content(group, content).as_u64(),
            3181265772247188507
        );
    }

    #[test]
    fn the_same_text_has_another_key_in_another_namespace_or_of_another_kind() {
        let (a, b) = (Namespace::of_group("a"), Namespace::of_group("b"));
        assert_ne!(SessionKey::from_text(a, "k"), SessionKey::from_text(b, "k"));
        assert_ne!(
            SessionKey::from_text(a, "k").as_u64(),
            OwnedKey::from_object(a, ObjectId::from_text(b"k")).as_u64()
        );
        let content = ContentDigest::from_hash(1);
        assert_ne!(
            SessionKey::from_content(a, content),
            SessionKey::from_content(b, content)
        );
    }

    #[test]
    fn the_own_organization_of_an_upstream_is_never_a_named_one() {
        for n in 0..100 {
            let name = format!("account-{n}");
            let own = OrganizationId::of_upstream(UpstreamId::from_name(&name));
            for other in 0..100 {
                let other = format!("account-{other}");
                assert_ne!(own, OrganizationId::from_name(&other));
                let other_own = OrganizationId::of_upstream(UpstreamId::from_name(&other));
                assert_eq!(own == other_own, name == other);
            }
        }
    }

    #[test]
    fn encrypted_content_is_identified_by_its_first_bytes() {
        let content =
            |length: usize, last: &str| EncryptedContent::from_text(format!("{}{last}", "a".repeat(length)).as_bytes());
        assert_eq!(
            content(EncryptedContent::PREFIX, "b"),
            content(EncryptedContent::PREFIX, "c")
        );
        assert_ne!(
            content(EncryptedContent::PREFIX - 1, "b"),
            content(EncryptedContent::PREFIX - 1, "c")
        );
        assert_ne!(content(3, ""), content(4, ""));
        let (a, b) = (Namespace::of_group("a"), Namespace::of_group("b"));
        let key = |namespace| OwnedKey::from_encrypted_content(namespace, content(3, ""));
        assert_ne!(key(a), key(b));
        assert_ne!(key(a), OwnedKey::from_object(a, ObjectId::from_text(b"aaa")));
    }

    #[test]
    fn a_set_of_objects_has_a_key_that_does_not_depend_on_their_order() {
        let group = Namespace::of_group("");
        let [a, b, c] = ["a", "b", "c"].map(|id| OwnedKey::from_object(group, ObjectId::from_text(id.as_bytes())));
        assert_eq!(OwnedKey::of_set([]), None);
        assert_eq!(OwnedKey::of_set([a]), Some(a));
        assert_eq!(OwnedKey::of_set([a, b, c]), OwnedKey::of_set([c, a, b]));
        assert_ne!(OwnedKey::of_set([a, b]), OwnedKey::of_set([a, c]));
    }

    #[test]
    fn weights_are_bounded() {
        assert_eq!(Weight::new(0), None);
        assert_eq!(Weight::new(Weight::MAX + 1), None);
        assert_eq!(Weight::new(7).map(Weight::get), Some(7));
    }
}

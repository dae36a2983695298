//! The owners of the objects and encrypted items that a request names.
//!
//! The owner of a request is the first known owner among: the object in the path, the objects in that object, the objects
//! in the body by their [kind](ReferenceKind), and the encrypted items, the newest first. An answer with a 2xx status proves
//! that the upstream has everything that the request names, so it records the owner of everything without one.

use super::facts::{HeaderLookup, NamedState, TurnFacts};
use crate::{
    endpoint::Endpoint,
    fault::{Fault, ObjectReference},
    ids::{Namespace, OwnedKey, UpstreamId},
    policy::SessionSource,
    scan::{NamedObject, ReferenceKind},
    state::{Gateway, Snapshot},
};

/// The upstream that holds the state that a request refers to and cannot do without.
#[inline]
pub(super) fn owner(gateway: &Gateway, namespace: Namespace, named: &NamedState<'_>) -> Option<UpstreamId> {
    let owners = &gateway.runtime.owners;
    let owner_of = |key| owners.get(key, gateway.clock.now());
    let owner_of_object = |id| owner_of(OwnedKey::from_object(namespace, id));
    let in_body = || {
        let owned = named
            .in_body
            .iter()
            .filter_map(|object| Some((object.kind, owner_of_object(object.id)?)));
        owned.min_by_key(|(kind, _)| *kind).map(|(_, owner)| owner)
    };
    let in_path = named.in_path.iter().map_while(|id| *id).find_map(owner_of_object);
    in_path.or_else(in_body).or_else(|| {
        let newest_first = named.encrypted.iter().rev();
        newest_first
            .map(|item| OwnedKey::from_encrypted_content(namespace, *item))
            .find_map(owner_of)
    })
}

/// Checks that the caller's group made every object that the request names. The check is only for a group that shares its
/// accounts with other groups, because such an account would also serve the objects of the other groups. An object in the
/// object of the path needs no check: an upstream looks for it only there.
///
/// # Errors
/// [`Fault::ObjectNotFound`] if the group is not known to have made an object.
#[inline]
pub(super) fn check_named_objects<'a>(
    gateway: &Gateway,
    facts: &TurnFacts<'a, impl HeaderLookup<'a>>,
) -> Result<(), Fault> {
    if !facts.group.shares_accounts {
        return Ok(());
    }
    let (named, now) = (&facts.named_state, gateway.clock.now());
    let is_unknown = |id| {
        let key = OwnedKey::from_object(facts.group.namespace, id);
        gateway.runtime.owners.get(key, now).is_none()
    };
    let not_found = |reference| Err(Fault::ObjectNotFound { reference });
    if named.in_path[0].is_some_and(is_unknown) {
        return not_found(match facts.endpoint {
            Endpoint::Response => ObjectReference::ResponseInPath,
            _ => ObjectReference::ObjectInPath,
        });
    }
    match named.in_body.iter().find(|object| is_unknown(object.id)) {
        Some(object) => not_found(reference(object)),
        None => Ok(()),
    }
}

fn reference(object: &NamedObject) -> ObjectReference {
    match object.kind {
        ReferenceKind::PreviousResponse => ObjectReference::PreviousResponse,
        ReferenceKind::Conversation => ObjectReference::Conversation,
        ReferenceKind::Container => ObjectReference::Container,
        ReferenceKind::VectorStore => ObjectReference::VectorStore,
        ReferenceKind::File => ObjectReference::File,
        ReferenceKind::Item => ObjectReference::Item,
        ReferenceKind::ComparedResponse => ObjectReference::ComparedResponse,
    }
}

/// The objects and encrypted items of a request whose owner is not known.
pub(super) struct UnownedState {
    /// Their distinct keys: at least one. The order is that of the search for an owner.
    keys: Vec<OwnedKey>,
    /// Whether the object in the path is one of them.
    pub is_in_path: bool,
    /// Whether an upstream that has them may be searched for. If an owner of a part of the state is known, the request
    /// cannot go elsewhere.
    pub is_searchable: bool,
}

impl UnownedState {
    /// The state of the request whose owner is not known; `None` if there is none, or if `affinity.sources` does not
    /// contain "owner". `owner` is the owner of the request.
    #[inline]
    pub fn find<'a>(
        gateway: &Gateway,
        snapshot: &Snapshot,
        facts: &TurnFacts<'a, impl HeaderLookup<'a>>,
        owner: Option<UpstreamId>,
    ) -> Option<Box<Self>> {
        let NamedState {
            in_path: [in_path, ..],
            in_body,
            encrypted,
            ..
        } = facts.named_state;
        if in_path.is_none() && in_body.is_empty() && encrypted.is_empty() {
            return None;
        }
        if !snapshot.sources.contains(&SessionSource::Owner) {
            return None;
        }
        let group = facts.group;
        let (owners, now) = (&gateway.runtime.owners, gateway.clock.now());
        let of_object = |id| OwnedKey::from_object(group.namespace, id);
        let is_unowned = |key: &OwnedKey| owners.peek(*key, now).is_none();
        // A group that shares its accounts names only objects with an owner.
        let in_path = in_path
            .map(of_object)
            .filter(|key| !group.shares_accounts && is_unowned(key));
        // A response that is only compared with may be missing.
        let is_needed = |object: &&NamedObject| object.kind != ReferenceKind::ComparedResponse;
        let in_body = in_body.iter().filter(is_needed).map(|object| of_object(object.id));
        let in_body = in_body.filter(|key| !group.shares_accounts && is_unowned(key));
        let items = encrypted.iter().rev();
        let items = items.map(|item| OwnedKey::from_encrypted_content(group.namespace, *item));
        let mut keys: Vec<OwnedKey> = Vec::new();
        for key in in_path.into_iter().chain(in_body).chain(items.filter(is_unowned)) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        (!keys.is_empty()).then(|| {
            let mut unowned = Self {
                keys,
                is_in_path: in_path.is_some(),
                is_searchable: false,
            };
            unowned.is_searchable = owner.is_none() && !group.shares_accounts && !unowned.is_absent(gateway);
            Box::new(unowned)
        })
    }

    /// The key that stands for the state where an upstream is chosen by rendezvous.
    pub fn key(&self) -> OwnedKey {
        *self.keys.first().expect("there is at least one key")
    }

    /// Records that `upstream` has the state.
    #[cold]
    pub fn record_owner(&self, gateway: &Gateway, upstream: UpstreamId) {
        let now = gateway.clock.now();
        for key in &self.keys {
            gateway.runtime.owners.confirm(*key, None, upstream, now);
        }
    }

    /// Records that no upstream has the state. `first` is the upstream that was asked first.
    #[cold]
    pub fn record_absence(&self, gateway: &Gateway, first: UpstreamId) {
        let absent = &gateway.runtime.absent;
        absent.confirm(self.set(), None, first, gateway.clock.now());
    }

    /// Whether a search has shown lately that no upstream has the state. If several objects were searched for together, it
    /// has shown that only of them together.
    #[cold]
    fn is_absent(&self, gateway: &Gateway) -> bool {
        let now = gateway.clock.now();
        let is_absent = |key: OwnedKey| gateway.runtime.absent.peek(key, now).is_some();
        self.keys.iter().copied().any(is_absent) || is_absent(self.set())
    }

    fn set(&self) -> OwnedKey {
        OwnedKey::of_set(self.keys.iter().copied()).expect("there is at least one key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{EncryptedContent, ObjectId},
        proxy::{testing, turn::kit},
    };

    fn object(id: &str) -> ObjectId {
        ObjectId::from_text(id.as_bytes())
    }

    fn named(kind: ReferenceKind, id: &str) -> NamedObject {
        NamedObject { kind, id: object(id) }
    }

    /// The number of keys without an owner, and whether they are searched for.
    fn unowned(gateway: &Gateway, named_state: NamedState<'_>) -> Option<(usize, bool)> {
        let snapshot = gateway.snapshot();
        let mut facts = kit::facts(&snapshot);
        facts.named_state = named_state;
        let owner = owner(gateway, facts.group.namespace, &facts.named_state);
        let found = UnownedState::find(gateway, &snapshot, &facts, owner)?;
        Some((found.keys.len(), found.is_searchable))
    }

    #[tokio::test]
    async fn the_first_known_owner_counts_and_the_path_comes_before_the_body() {
        let gateway = testing::gateway("");
        let namespace = Namespace::of_group("");
        let [a, b, c] = ["a", "b", "c"].map(UpstreamId::from_name);
        let own = |id, upstream| {
            let key = OwnedKey::from_object(namespace, object(id));
            gateway.runtime.owners.confirm(key, None, upstream, gateway.clock.now());
        };
        own("file-a", a);
        own("vs_b", b);
        own("conv_c", c);
        let in_body = [
            named(ReferenceKind::File, "file-a"),
            named(ReferenceKind::VectorStore, "vs_b"),
            named(ReferenceKind::Conversation, "unknown"),
        ];
        for (in_path, in_body, expected) in [
            ([None, None, None], &in_body[..], Some(b)),
            ([None, None, None], &in_body[..1], Some(a)),
            ([None, None, None], &in_body[2..], None),
            ([Some("conv_c"), None, None], &in_body[..], Some(c)),
            ([Some("unknown"), None, None], &in_body[..], Some(b)),
            ([Some("unknown"), Some("file-a"), None], &in_body[1..], Some(a)),
            ([Some("unknown"), Some("unknown"), Some("conv_c")], &[], Some(c)),
        ] {
            let state = NamedState {
                in_path: in_path.map(|id| id.map(object)),
                in_body,
                ..NamedState::default()
            };
            assert_eq!(owner(&gateway, namespace, &state), expected, "{in_path:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_records_the_owner_of_everything_without_one() {
        let gateway = testing::gateway("");
        let item = [EncryptedContent::from_text(b"gAAAAAB")];
        let in_body = [
            named(ReferenceKind::File, "file-1"),
            named(ReferenceKind::File, "file-1"),
            named(ReferenceKind::ComparedResponse, "resp_1"),
        ];
        let state = NamedState {
            in_path: [Some(object("vs_1")), Some(object("other")), None],
            in_body: &in_body,
            encrypted: &item,
            ..NamedState::default()
        };
        assert_eq!(unowned(&gateway, NamedState::default()), None);
        assert_eq!(unowned(&gateway, state), Some((3, true)));
        let snapshot = gateway.snapshot();
        let mut facts = kit::facts(&snapshot);
        facts.named_state = state;
        let found = UnownedState::find(&gateway, &snapshot, &facts, None).expect("three keys");
        found.record_owner(&gateway, UpstreamId::from_name("b"));
        assert_eq!(unowned(&gateway, state), None);
        let more = [named(ReferenceKind::File, "file-2")];
        let state = NamedState {
            in_body: &more,
            ..state
        };
        assert_eq!(unowned(&gateway, state), Some((1, false)), "a part has an owner");
    }

    #[tokio::test]
    async fn a_failed_search_for_several_objects_says_nothing_about_one_of_them() {
        let gateway = testing::gateway("");
        let both = ["file-1", "file-2"].map(|id| named(ReferenceKind::File, id));
        let with_other = [both[0], named(ReferenceKind::File, "file-3")];
        let state = |in_body| NamedState {
            in_body,
            ..NamedState::default()
        };
        let record_absence = |in_body| {
            let snapshot = gateway.snapshot();
            let mut facts = kit::facts(&snapshot);
            facts.named_state = state(in_body);
            let found = UnownedState::find(&gateway, &snapshot, &facts, None).expect("keys");
            found.record_absence(&gateway, UpstreamId::from_name("a"));
        };
        record_absence(&both);
        assert_eq!(unowned(&gateway, state(&both)), Some((2, false)));
        assert_eq!(unowned(&gateway, state(&both[..1])), Some((1, true)));
        assert_eq!(unowned(&gateway, state(&with_other)), Some((2, true)));
        record_absence(&both[..1]);
        assert_eq!(unowned(&gateway, state(&both[..1])), Some((1, false)));
        assert_eq!(unowned(&gateway, state(&with_other)), Some((2, false)));
        assert_eq!(unowned(&gateway, state(&with_other[1..])), Some((1, true)));
    }
}

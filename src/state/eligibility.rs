//! Which upstreams may serve a request: by the configuration, and by what is known about their models.

use std::mem;

use twox_hash::XxHash3_64;

use super::model_knowledge::ModelStanding;
use crate::policy::{Eligible, Member, MemberIndex, Rendezvous};

/// The upstreams that may serve a request.
#[derive(Debug)]
pub enum Eligibility {
    /// Every upstream.
    All,
    /// The upstreams of some eligibility classes.
    Classes(ClassSet),
    /// Some of the upstreams that may serve the request by the configuration: those that may have its model.
    Members(Box<EligibleMembers>),
}

/// A set of eligibility classes of one snapshot. It is as small as a pointer and a tag, and most sets need no memory.
#[derive(Debug)]
pub enum ClassSet {
    /// One bit for each class of a snapshot that has at most 64 classes.
    Few(u64),
    /// One flag for each class. The outer box makes the variant as small as the other one.
    Many(Box<Box<[bool]>>),
}

impl ClassSet {
    /// The set of the classes whose flags are true; `None` if there is no such class.
    fn new(flags: impl ExactSizeIterator<Item = bool>) -> Option<Self> {
        if flags.len() <= 64 {
            let bits = flags
                .enumerate()
                .fold(0, |bits, (class, flag)| bits | u64::from(flag) << class);
            return (bits != 0).then_some(Self::Few(bits));
        }
        let flags: Box<[bool]> = flags.collect();
        flags.contains(&true).then(|| Self::Many(Box::new(flags)))
    }

    #[inline]
    fn contains(&self, class: u16) -> bool {
        match self {
            Self::Few(bits) => class < 64 && bits >> class & 1 == 1,
            Self::Many(flags) => {
                let flag = flags.get(usize::from(class));
                *flag.expect("the set has a flag for each class of its snapshot")
            }
        }
    }

    fn fingerprint(&self) -> u64 {
        match self {
            Self::Few(bits) => XxHash3_64::oneshot(&bits.to_le_bytes()),
            Self::Many(flags) => hash(flags, 0),
        }
    }
}

/// A hash of these flags.
fn hash(flags: &[bool], seed: u64) -> u64 {
    let bytes: Vec<u8> = flags.iter().copied().map(u8::from).collect();
    XxHash3_64::oneshot_with_seed(seed, &bytes)
}

/// The upstreams that may have the model of a request.
#[derive(Debug)]
pub struct EligibleMembers {
    /// The upstreams that may serve the request by the configuration.
    configured: Eligibility,
    /// For each member of the pool, whether it may serve the request.
    members: Box<[bool]>,
    /// Whether one of these members is known to have the model.
    is_named: bool,
}

/// What is known about a member that may serve a request by the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MemberStanding {
    /// What the configuration or the list of the upstream says about the model.
    pub listed: ModelStanding,
    /// Whether the upstream has said that it does not have the model.
    pub has_refused: bool,
}

impl Eligibility {
    /// The upstreams of the classes whose flags are true; `None` if there is no such class.
    pub(super) fn of_classes(flags: impl ExactSizeIterator<Item = bool>) -> Option<Self> {
        ClassSet::new(flags).map(Self::Classes)
    }

    /// Whether the member at `index` of `pool` may serve the request.
    #[inline]
    pub fn allows(&self, pool: &Rendezvous, index: MemberIndex) -> bool {
        let Member { class, .. } = pool.member(index);
        self.allows_class(*class) && self.allows_member(index)
    }

    /// A number that is the same for the same upstreams of one snapshot, and usually different for different upstreams.
    pub fn fingerprint(&self) -> u64 {
        match self {
            Self::All => 0,
            Self::Classes(classes) => classes.fingerprint(),
            Self::Members(eligible) => hash(&eligible.members, 1),
        }
    }

    /// Whether one of the upstreams is known to have the model of the request. False if nothing is known about the model.
    pub fn is_model_known(&self) -> bool {
        matches!(self, Self::Members(eligible) if eligible.is_named)
    }

    /// The upstreams that may serve the request by the configuration.
    pub(super) fn into_configured(mut self) -> Self {
        match &mut self {
            Self::All | Self::Classes(_) => self,
            Self::Members(eligible) => mem::replace(&mut eligible.configured, Self::All),
        }
    }

    /// The members of `pool` among these that may have the model of the request. `standing` says what is known about a member.
    ///
    /// If some members are known to have the model, those that are known not to have it are left out. Members that have
    /// refused the model are left out too, and their lists do not count.
    pub(super) fn of_model(self, pool: &Rendezvous, standing: impl Fn(MemberIndex) -> MemberStanding) -> Self {
        let may_ask = |index: &MemberIndex| self.allows(pool, *index) && !standing(*index).has_refused;
        let is_named = |index| standing(index).listed == ModelStanding::Named;
        let is_some_named = pool.indexes().filter(may_ask).any(is_named);
        let allows = |index| {
            let is_excluded = is_some_named && standing(index).listed == ModelStanding::NotNamed;
            may_ask(&index) && !is_excluded
        };
        let is_unchanged = pool.indexes().all(|index| allows(index) == self.allows(pool, index));
        if is_unchanged {
            return self;
        }
        let members = pool.indexes().map(allows).collect();
        Self::Members(Box::new(EligibleMembers {
            members,
            is_named: is_some_named,
            configured: self,
        }))
    }

    /// Whether no member of `pool` may serve the request.
    pub(super) fn is_empty(&self, pool: &Rendezvous) -> bool {
        !pool.indexes().any(|index| self.allows(pool, index))
    }
}

impl Eligible for &Eligibility {
    #[inline]
    fn allows_class(&self, class: u16) -> bool {
        match self {
            Eligibility::All | Eligibility::Members(_) => true,
            Eligibility::Classes(classes) => classes.contains(class),
        }
    }

    #[inline]
    fn allows_member(&self, index: MemberIndex) -> bool {
        match self {
            Eligibility::All | Eligibility::Classes(_) => true,
            Eligibility::Members(eligible) => {
                let allows = eligible.members.get(index.as_usize());
                *allows.expect("eligibility has a flag for each member of its snapshot")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn eligibility_is_no_larger_than_two_pointers() {
        assert!(size_of::<Eligibility>() <= 16);
    }

    proptest! {
        #[test]
        fn a_class_set_has_the_classes_whose_flags_are_true(
            flags in prop_oneof![
                prop::collection::vec(any::<bool>(), 0..6),
                prop::collection::vec(any::<bool>(), 62..68),
                prop::collection::vec(Just(false), 62..68),
            ],
            other in prop::collection::vec(any::<bool>(), 0..6),
        ) {
            let set = |flags: &[bool]| ClassSet::new(flags.iter().copied());
            match set(&flags) {
                None => prop_assert!(!flags.contains(&true)),
                Some(set) => {
                    let found: Vec<bool> = (0..).take(flags.len()).map(|class| set.contains(class)).collect();
                    prop_assert!(flags.contains(&true) && found == flags);
                }
            }
            if let (Some(one), Some(two)) = (set(&flags), set(&other)) {
                let is_same = flags.len() == other.len() && flags == other;
                prop_assert!(!is_same || one.fingerprint() == two.fingerprint());
            }
        }
    }
}

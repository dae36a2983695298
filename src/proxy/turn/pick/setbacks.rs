//! Remembers which upstreams have failed or limited a turn.

use crate::policy::MemberIndex;

/// The upstreams that have failed or limited a turn.
#[derive(Default)]
pub(super) struct Setbacks {
    /// The upstreams that have failed the turn. They are excluded from the rest of the turn.
    failed: Vec<MemberIndex>,
    /// The upstreams that have answered with a limit that the turn can wait out.
    limited: Vec<MemberIndex>,
    /// The upstreams that have answered that they do not have the model.
    refusing_model: Vec<MemberIndex>,
    /// Whether the turn may go only to the upstreams in `limited`, because it may not be tried at another upstream.
    is_confined: bool,
    /// Whether the turn may go to upstreams that are known to lead back to this gateway, because there is no other one.
    pub(super) admits_loops: bool,
}

impl Setbacks {
    /// Records that the upstream at `index` has failed the turn.
    pub fn add_failed(&mut self, index: MemberIndex) {
        self.failed.push(index);
    }

    /// Records that the upstream at `index` has answered with a limit that the turn can wait out.
    pub fn add_limited(&mut self, index: MemberIndex) {
        if !self.limited.contains(&index) {
            self.limited.push(index);
        }
    }

    /// Records that the upstream at `index` has answered that it does not have the model. Returns all such upstreams.
    pub fn add_refusing_model(&mut self, index: MemberIndex) -> &[MemberIndex] {
        self.refusing_model.push(index);
        &self.refusing_model
    }

    /// Whether the upstream at `index` has limited the turn.
    pub fn have_limited(&self, index: MemberIndex) -> bool {
        self.limited.contains(&index)
    }

    /// Confines the turn to the upstreams whose limits it can wait out. Returns whether there is one.
    pub fn confine(&mut self) -> bool {
        self.is_confined = true;
        !self.limited.is_empty()
    }

    /// Whether the turn may not go to the upstream at `index`.
    pub fn exclude(&self, index: MemberIndex) -> bool {
        self.failed.contains(&index) || (self.is_confined && !self.limited.contains(&index))
    }
}

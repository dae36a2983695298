//! What groups of callers have used.

use std::sync::atomic::AtomicU64;

use http::StatusCode;

use super::{StatusClass, Tokens};
use crate::{
    scan::Usage,
    state::striped::{Striped, count},
};

/// What one group has used.
pub struct GroupMetrics {
    pub(super) name: String,
    pub(super) counts: Striped<GroupCounts>,
}

/// One thread's counts for one group.
#[derive(Default)]
pub(super) struct GroupCounts {
    pub requests: [AtomicU64; StatusClass::ALL.len()],
    pub tokens: Tokens,
}

impl GroupMetrics {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            counts: Striped::new(),
        }
    }

    /// Counts a request that was answered, by whomever.
    pub fn count(&self, status: StatusCode) {
        count(&self.counts.mine().requests[StatusClass::of(status) as usize]);
    }

    /// Counts the tokens of a request.
    pub fn count_usage(&self, usage: Usage) {
        self.counts.mine().tokens.add(usage);
    }
}

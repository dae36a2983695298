//! The memory for request bodies that is shared fairly by all callers.
//!
//! All bodies that are kept in memory together hold at most as many bytes as the limit. While memory is free, a body takes
//! what it needs from two counters: one of the process, and one of its caller, the [account](account::BodyAccount). When
//! the memory is full, bodies wait for it in a [queue](pool), and callers that hold more than their share give way first.
//!
//! | file | what it does |
//! | --- | --- |
//! | `account` | the bytes that the bodies of one caller hold |
//! | `arrivals` | the bodies that are arriving, so that one of them can be told to give way |
//! | `reclaim` | decides which of them give way; pure |
//! | `pool` | the counters, and the bodies that wait for memory |

pub(in crate::wire) mod account;
pub(in crate::wire) mod arrivals;
pub(in crate::wire) mod pool;
pub(in crate::wire) mod reclaim;

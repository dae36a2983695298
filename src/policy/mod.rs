//! Pure decisions: event in, decision out. No clock, no I/O, no log.
//!
//! A request passes through them in this order: [`session`] reads from its clues what it belongs to, [`pins`] says
//! where that was last served, [`rendezvous`] where it lives, and [`balance`] where to put what belongs nowhere.
//!
//! Of those that it may go to, [`select`](mod@select) says which it goes to now, or which it waits for: at most as long as its
//! [`patience`] lasts. What comes of it is judged by [`verdict`] and remembered by [`health`]; [`budget`] says whether
//! there is another try. What a caller may use at all is counted by [`limiter`].

pub mod availability;
pub mod balance;
pub mod budget;
mod hash;
pub mod health;
pub mod limiter;
pub mod patience;
pub mod pins;
pub mod rendezvous;
pub mod select;
pub mod session;
mod session_source;
#[cfg(test)]
mod simulation;
pub mod tokens;
pub mod verdict;

pub use availability::Availability;
pub use balance::less_loaded_of_two;
pub use budget::RetryBudget;
pub use health::{Attempt, Health};
pub use patience::Patience;
pub use pins::{AffinityTable, Owners, Pins};
pub use rendezvous::{Member, Ranked, Rendezvous};
pub use select::{Decision, WaitLimits, select};
pub use session::{Affinity, Candidate, Candidates, Clues, ConversationStart, Route, candidates};
pub use session_source::{SessionSource, UnknownSessionSource};
pub use verdict::{ErrorFacts, Scope, Verdict};

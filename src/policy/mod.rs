//! Pure decisions: event in, decision out. No clock, no I/O, no log.
//!
//! A request passes through them in this order: [`session`] reads from its clues what it belongs to, [`pins`] says
//! where that was last served, [`rendezvous`] where it lives, and [`balance`] where to put what belongs nowhere.

pub mod balance;
mod hash;
pub mod pins;
pub mod rendezvous;
pub mod session;
mod source;

pub use balance::less_loaded_of_two;
pub use pins::{AffinityTable, Owners, Pins};
pub use rendezvous::{Member, Ranked, Rendezvous};
pub use session::{Affinity, Candidate, Candidates, Clues, Content, Route, candidates};
pub use source::{Source, UnknownSource};

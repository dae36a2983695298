//! Pure decisions: event in, decision out. No clock, no I/O, no log.

mod hash;
pub mod rendezvous;
mod source;

pub use rendezvous::{Member, Ranked, Rendezvous};
pub use source::{Source, UnknownSource};

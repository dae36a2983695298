//! Pure decisions: event in, decision out. No clock, no I/O, no log.

mod source;

pub use source::{Source, UnknownSource};

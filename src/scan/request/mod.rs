//! Reading of request bodies: the facts of a request that decide its route.
//!
//! [`inspect`] decompresses a body and enforces its maximum size. [`scanner`] reads the [`facts`] with the JSON scanner
//! and a [`visitor`] for the routing fields, and [`multipart`] reads those of a form.

pub(super) mod facts;
pub(super) mod inspect;
pub(super) mod multipart;
pub(super) mod scanner;
mod visitor;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

//! Reading of request bodies: the facts of a request that decide its route.
//!
//! [`inspect`] decompresses a body and enforces its maximum size. [`scanner`] reads the [`facts`] with the JSON scanner
//! and a [`visitor`], which has a part for each kind of fact: configured texts ([`paths`]), the beginning of the conversation
//! ([`conversation`]) and names of objects ([`references`]). [`multipart`] reads those of a form. The [`rules`] say what is
//! looked for.

pub(super) mod conversation;
pub(super) mod facts;
pub(super) mod inspect;
pub(super) mod multipart;
mod paths;
mod references;
pub(super) mod rules;
pub(super) mod scanner;
mod slots;
mod visitor;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

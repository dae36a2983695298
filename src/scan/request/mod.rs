//! Reading of request bodies: the facts of a request that decide its route.
//!
//! [`inspect`] decompresses a body and enforces its maximum size. [`scanner`] reads the [`facts`] with the JSON scanner
//! and a [`visitor`], which has a part for each kind of fact: configured texts ([`paths`]), the beginning of the conversation
//! ([`conversation`]), names of objects ([`references`]) and values of another type than the API defines ([`field_types`]).
//! [`multipart`] reads the facts of a form. The [`rules`] say what is looked for.

pub(super) mod conversation;
pub(super) mod facts;
mod field_types;
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

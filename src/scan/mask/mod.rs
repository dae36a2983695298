//! Masking of credentials in bodies, while the bodies are forwarded.
//!
//! A [`CredentialMasker`](masker::CredentialMasker) knows the credentials of an upstream. It is compiled once. Each body that
//! comes from the upstream has a [`MaskedBody`](masked_body::MaskedBody), which holds back the bytes at the end of a
//! piece with which a credential may begin. [`spelling`] recognises the ways in which JSON may write a credential.
//!
//! The cost of a piece is one vectorized search for the credentials and for the beginning of the escapes that can hide one
//! ([`search`]). Only where it finds something, bytes are compared one by one.

pub(super) mod masked_body;
pub(super) mod masker;
mod search;
mod spelling;

#[cfg(test)]
mod tests;

//! A resumable JSON scanner: it validates an object that arrives in pieces and reports the fields that a visitor asks for.
//!
//! The documentation of [`crate::scan`] explains the idea and names its sources. The layers, from the chunks of the body to
//! the fields of the visitor:
//!
//! - [`scanner`] cuts the stream into blocks of 64 bytes. The blocks lie at the same offsets wherever the chunks were cut,
//!   so the other layers do not see the borders of chunks.
//! - [`lexer`] turns a block into masks with one bit for each byte that matters to the structure, and checks the inside of
//!   strings. [`simd`] makes the masks from the bytes, 32 bytes at a time with AVX2.
//! - [`grammar`] visits only the bits that are set. It keeps a stack of one bit per level, and reads numbers and literals
//!   with [`scalar`].
//! - [`dispatch`] assembles keys and strings that lie across chunks ([`capture`], [`unescape`]) and passes them to the
//!   visitor.
//! - [`deep_keys`] finds the blocks in which certain keys may begin, such as `encrypted_content` and `file_id`, so that the
//!   dispatcher need not report every member at every depth.
//! - [`media`] recognises base64 data among the long strings.
//! - A [`visitor`] receives the keys and values down to the depth that it asks for.

pub(super) mod capture;
mod deep_keys;
mod dispatch;
pub(super) mod error;
mod grammar;
pub(super) mod lexer;
pub(super) mod media;
mod scalar;
pub(super) mod scanner;
pub(super) mod simd;
pub(super) mod unescape;
pub(super) mod visitor;

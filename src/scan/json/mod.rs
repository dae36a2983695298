//! A resumable JSON scanner: it validates an object that arrives in pieces and reports the fields that a visitor asks for.
//!
//! A request for a language model is mostly long strings: the instructions, the conversation and the tools. A parser
//! would spend most of its time on text that routing does not need. The scanner works in two layers instead, as simdjson
//! does (Langdale and Lemire, *Parsing Gigabytes of JSON per Second*, 2019, <https://arxiv.org/abs/1902.08318>):
//!
//! ```text
//! chunks ──► scanner ──64-byte blocks──► lexer ──bit masks──► grammar ──► dispatcher ──keys, values──► visitor
//! ```
//!
//! - [`scanner`] cuts the stream into blocks of 64 bytes. The blocks lie at the same offsets wherever the chunks were cut,
//!   so the other layers do not see the borders of chunks.
//! - [`lexer`] turns a block into masks with one bit for each byte that matters to the structure. It uses arithmetic on
//!   64-bit words, which [`simd`] makes from the bytes, 32 bytes at a time with AVX2. The lexer also checks everything that
//!   can be wrong inside a string: UTF-8 (Keiser and Lemire, *Validating UTF-8 In Less Than One Instruction Per Byte*,
//!   2020, <https://arxiv.org/abs/2010.03090>), escapes, surrogate pairs and control characters.
//! - [`grammar`] visits only the bits that are set. It keeps a stack of one bit per level, and reads numbers and literals
//!   with [`scalar`].
//! - [`dispatch`] assembles keys and strings that lie across chunks ([`capture`], [`unescape`]) and passes them to the
//!   visitor.
//! - A [`visitor`] receives the keys and values down to the depth that it asks for.
//!
//! Together they accept exactly what `serde_json::Value` accepts, including which numbers are out of range, with these
//! differences: the root must be an object, the maximum nesting depth is 128 (127 in serde_json), and a visitor may refuse
//! a key or value.

pub(super) mod capture;
mod dispatch;
mod encrypted;
pub(super) mod error;
mod grammar;
pub(super) mod lexer;
mod scalar;
pub(super) mod scanner;
mod simd;
pub(super) mod unescape;
pub(super) mod visitor;

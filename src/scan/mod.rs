//! Readers of the bodies that pass through the proxy. They extract the few facts that routing needs and keep no copy of the
//! body.
//!
//! The module does no I/O, reads no clock and writes no logs: bytes go in, facts come out. Every reader accepts its input in
//! pieces, and no result depends on where the pieces were cut.
//!
//! | part | its job |
//! | --- | --- |
//! | `request/` | request bodies: [`BodyInspector`] decompresses a body and returns its [`RequestFacts`] |
//! | `request/multipart/` | forms (`multipart/form-data`): [`MultipartScanner`] finds the fields that routing reads, and counts the files |
//! | `response/` | response bodies and event streams: [`ResponseReader`] finds the objects that are named, the usage, encrypted items and how the response ended |
//! | `response/limits.rs` | when a rate limit is reset, in every dialect that upstreams use; a new dialect is added there |
//! | `mask/` | [`MaskedBody`] overwrites the credentials of an upstream in its responses |
//! | `json/` | the JSON scanner below both |
//! | `encoding.rs` | content codings, see [`Encoding`] |
//! | `decoder.rs` | [`StreamDecoder`] decompresses a response body that is passed on without its coding |
//!
//! # How a request body is read
//!
//! A request for a language model is mostly long strings: the instructions, the conversation and the tools. A parser would
//! spend most of its time on text that routing does not need. The JSON scanner works in two layers instead, as simdjson does
//! (Langdale and Lemire, *Parsing Gigabytes of JSON per Second*, 2019, <https://arxiv.org/abs/1902.08318>):
//!
//! ```text
//! chunks ──► scanner ──64-byte blocks──► lexer ──bit masks──► grammar ──► dispatcher ──keys, values──► visitor
//! ```
//!
//! - The scanner cuts the stream into blocks of 64 bytes. The blocks lie at the same offsets wherever the chunks were cut, so
//!   the other layers do not see the borders of chunks.
//! - The lexer turns a block into masks with one bit for each byte that matters to the structure. It uses arithmetic on
//!   64-bit words, which vector instructions make from the bytes. It also checks everything that can be wrong inside a
//!   string: UTF-8 (Keiser and Lemire, *Validating UTF-8 In Less Than One Instruction Per Byte*, 2020,
//!   <https://arxiv.org/abs/2010.03090>), escapes and control characters.
//! - The grammar visits only the bits that are set, and keeps a stack of one bit per level.
//! - The dispatcher assembles keys and strings that lie across chunks and passes them to a visitor, which knows the fields.
//!
//! A body is accepted only if all JSON parsers read it alike. The scanner accepts what `serde_json::Value` accepts, including
//! which numbers are out of range, with these differences: the root must be an object, and arrays and objects may be nested
//! up to 128 levels (127 in serde_json). In a request body, no field that routing reads may be present twice, differ from its
//! name in case only, or be longer than 4 KiB, and `model` must be a string or `null`. [`JsonErrorKind`] lists the errors.

mod decoder;
mod encoding;
mod field;
mod json;
mod mask;
mod request;
mod response;

#[doc(hidden)]
pub mod testing;

pub use decoder::StreamDecoder;
pub use encoding::{Encoding, EncodingKind};
pub use field::RoutingField;
pub use json::error::{JsonError, JsonErrorKind};
pub use mask::{masked_body::MaskedBody, masker::CredentialMasker};
pub use request::{
    facts::{MistypedFields, NamedObject, ReferenceKind, RequestFacts, TypedField},
    inspect::{BodyInspector, InspectError, InspectionStep, PieceInspection},
    multipart::{
        boundary::{Boundary, FormType},
        error::{MultipartError, MultipartErrorKind},
        scanner::{FormExtent, MultipartScanner},
    },
    rules::{ReferenceSearch, RequestScanRules},
    scanner::RequestScanner,
};
pub use response::{
    errors::{ErrorNotice, error_notice, event_notice},
    opening::{Opening, StreamFailure},
    reader::ResponseReader,
    terminal::Terminal,
    usage::Usage,
};

//! Readers of what streams by: they learn the few facts that routing needs, and keep nothing else.
//!
//! Nothing in this room does I/O, reads a clock or logs: bytes in, facts out. Every reader takes its input in whatever
//! pieces it comes, and no answer depends on where the pieces were cut.
//!
//! # How a request body is read
//!
//! A request for a language model is mostly long strings: the instructions, the conversation, the tools. A parser would
//! spend its time on text that nobody asked for. The scanner spends it in two layers instead, as simdjson does
//! (Langdale and Lemire, *Parsing Gigabytes of JSON per Second*, 2019, <https://arxiv.org/abs/1902.08318>):
//!
//! ```text
//! chunks ──► scanner ──64-byte blocks──► lexer ──bit masks──► grammar ──keys, values──► a reader's fields
//! ```
//!
//! - `scanner` cuts the stream into blocks of 64 bytes that lie at the same offsets however the chunks fall; from there on
//!   chunk borders do not exist.
//! - `lexer` turns a block into a mask with one bit a byte that matters to the structure, by arithmetic on 64-bit words
//!   that `lanes` makes from the bytes, 32 at a time with AVX2. It checks all that can be wrong inside strings: UTF-8
//!   (Keiser and Lemire, *Validating UTF-8 In Less Than One Instruction Per Byte*, 2020,
//!   <https://arxiv.org/abs/2010.03090>), escapes, surrogate pairs, control characters.
//! - `grammar` visits the set bits only, with a stack of one bit a level, and reads numbers and literals.
//! - a `Reader` hears of keys and values down to the depth that it asks for.
//!
//! Together they accept exactly what `serde_json::Value` accepts, to the last digit of a number out of range, save that the
//! root must be an object, the nesting may be 128 deep (serde_json: 127), no field that routing reads may stand twice or be
//! longer than 4 KiB, and `model` must be a string or `null`.

mod encoding;
mod json;
mod request;
mod response;

pub use encoding::{Encoding, EncodingKind};
pub use json::error::{Field, Problem, Refusal};
pub use request::{
    inspect::{BodyInspector, InspectError},
    scanner::{Content, RequestFacts, RequestScanner},
};
pub use response::{
    limits::{ErrorNotice, error_notice, event_notice},
    reader::{FirstEvent, ResponseReader, Terminal},
    usage::Usage,
};

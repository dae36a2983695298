//! Readers of the bodies that pass through the proxy. They extract the few facts that routing needs and keep nothing else.
//!
//! The module does no I/O, reads no clock and writes no logs: bytes go in, facts come out. Every reader accepts its input in
//! pieces, and no result depends on where the pieces were cut.
//!
//! - [`request`] reads request bodies: [`BodyInspector`] decompresses a body and returns its [`RequestFacts`].
//! - [`response`] reads response bodies, JSON and event streams: [`ResponseReader`] finds the response's id, its usage, its
//!   encrypted items and how it ended. [`error_notice`] and [`event_notice`] read what an error says about rate limits.
//! - [`json`] is the JSON scanner below both. [`encoding`] knows the content codings.
//!
//! A request body is accepted only if all JSON parsers read it alike. The JSON scanner accepts what `serde_json::Value`
//! accepts, with these additions: the root must be an object, and arrays and objects may be nested up to 128 levels. No
//! field that routing reads may be present twice, differ from its name in case only, or be longer than 4 KiB. `model` must
//! be a string or `null`.

mod encoding;
mod field;
mod json;
mod request;
mod response;

#[doc(hidden)]
pub mod testing;

pub use encoding::{Encoding, EncodingKind};
pub use field::RoutingField;
pub use json::error::{JsonError, JsonErrorKind};
pub use request::{
    facts::{ConversationPrefix, RequestFacts},
    inspect::{BodyInspector, InspectError},
    scanner::RequestScanner,
};
pub use response::{
    errors::{ErrorNotice, error_notice, event_notice},
    first_event::FirstEvent,
    reader::ResponseReader,
    terminal::Terminal,
    usage::Usage,
};

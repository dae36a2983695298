//! Reads the facts of a form: a body of the type `multipart/form-data` (RFC 7578), as clients send it to the endpoints for
//! audio, images, videos and files.
//!
//! | file | its job |
//! | --- | --- |
//! | `boundary` | the boundary between the parts, from the `Content-Type` of the request |
//! | `scanner` | divides the body into parts, and keeps the texts of the few fields that routing reads |
//! | `part_content` | what is done with the content of one part |
//! | `part_head` | the name and the type of one part |
//! | `parameters` | the parameters of a header field, such as `name="model"` |
//! | `fields` | which names are those of fields that routing reads |
//! | `media` | images, recordings and other files, by their types and names |
//! | `error` | what is wrong with a body, and where |
//!
//! A form is accepted only if all parsers read it alike. Parsers differ in what they do with bare line feeds, with text
//! outside the parts, with escapes in names, with the same name twice, and so on. Such a form is refused.

pub(in crate::scan) mod boundary;
pub(in crate::scan) mod error;
mod fields;
mod media;
mod parameters;
mod part_content;
mod part_head;
pub(in crate::scan) mod scanner;

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

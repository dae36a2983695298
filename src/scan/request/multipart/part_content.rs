//! The content of one part of a form.

use super::{
    error::{MultipartError, MultipartErrorKind as Kind},
    fields::FieldUses,
};
use crate::media::MediaKind;

/// The content of a part that is being read.
pub(super) struct PartContent {
    /// The offset of its first byte.
    pub start: u64,
    pub role: PartRole,
}

/// What is done with the content of a part.
pub(super) enum PartRole {
    /// The text is kept, because routing reads it.
    Wanted {
        name: Box<str>,
        uses: FieldUses,
        text: Vec<u8>,
    },
    /// The file is counted.
    File(MediaKind),
    /// The content is not read.
    Ignored,
}

impl PartRole {
    /// Keeps the next bytes of a text that routing reads. The text begins at the offset `start`.
    pub fn keep(&mut self, bytes: &[u8], start: u64) -> Result<(), MultipartError> {
        let Self::Wanted { name, text, .. } = self else {
            return Ok(());
        };
        if text.len() + bytes.len() > Kind::MAX_TEXT {
            return Err(MultipartError::new(Kind::FieldTooLong(name.clone()), start));
        }
        text.extend_from_slice(bytes);
        Ok(())
    }
}

/// The text of a field that routing reads. It begins at the offset `start`.
pub(super) fn checked_text(text: Vec<u8>, name: &str, start: u64) -> Result<String, MultipartError> {
    if let Some(index) = text.iter().position(u8::is_ascii_control) {
        let kind = Kind::FieldControlCharacter(name.into());
        return Err(MultipartError::new(kind, start + index as u64));
    }
    String::from_utf8(text).map_err(|error| {
        let index = error.utf8_error().valid_up_to() as u64;
        MultipartError::new(Kind::FieldNotUtf8(name.into()), start + index)
    })
}

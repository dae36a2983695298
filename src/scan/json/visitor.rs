//! The interface between the scanner and a reader of fields.

use super::{capture::StreamSlice, error::JsonError};
use crate::{ids::EncryptedContent, media::MediaKind};

/// Receives the members of the outermost containers of a JSON text, in the order in which they stand.
///
/// The members of the root object have depth 1. Offsets are in bytes from the beginning of the stream.
pub(in crate::scan) trait FieldVisitor {
    /// The name of a field that the visitor reads.
    type Field: Copy;
    /// The length in bytes, as written, of the longest key that the visitor knows. Longer keys are not reported.
    const MAX_KEY: usize;
    /// Whether the visitor reads numbers besides strings.
    const READS_NUMBERS: bool = false;

    /// Whether the visitor also wants the members at every depth in the blocks in which a name of an object may begin;
    /// see [`deep_keys`](super::deep_keys). Blocks beside these may be reported too, so the visitor must not depend on it.
    const READS_REFERENCES: bool = false;
    /// Whether the visitor wants the long base64 data; see [`FieldVisitor::visit_media`].
    const READS_MEDIA: bool = false;
    /// The result of [`FieldVisitor::visit_value`] for a string that the visitor wants to read in pieces, of any length.
    const STREAMED: usize = usize::MAX;

    /// The depth of the deepest members that the visitor wants now; at least 1.
    fn max_depth(&self) -> u32;

    /// The depth of the members whose `encrypted_content` the visitor wants now, or 0 if it wants none.
    fn encrypted_depth(&self) -> u32;

    /// Visits an `encrypted_content` at [`FieldVisitor::encrypted_depth`]. Its key is not passed to
    /// [`FieldVisitor::visit_key`].
    fn visit_encrypted(&mut self, content: EncryptedContent);

    /// Visits a key whose opening quote is at offset `at`. Returns the field that the key names, if the visitor reads it.
    fn visit_key(&mut self, depth: u32, name: &[u8], at: u64) -> Result<Option<Self::Field>, JsonError>;

    /// Visits a key that is written with escapes, like [`FieldVisitor::visit_key`]. `name` is the unescaped name. It is empty if
    /// the name has a lone surrogate.
    fn visit_escaped_key(&mut self, depth: u32, name: &[u8], at: u64) -> Result<Option<Self::Field>, JsonError> {
        self.visit_key(depth, name, at)
    }

    /// The field of a value that begins with the byte `first`. `named` is the field that its key names.
    #[inline(always)]
    fn field_of_value(&self, named: Option<Self::Field>, _depth: u32, _first: u8) -> Option<Self::Field> {
        named
    }

    /// Visits the beginning of a value at offset `at`, of which `first` is the first byte. Returns the maximum length
    /// of the value's text in bytes if the visitor wants the text. The result applies to strings, and to numbers if
    /// [`FieldVisitor::READS_NUMBERS`] is set.
    fn visit_value(
        &mut self,
        field: Option<Self::Field>,
        depth: u32,
        first: u8,
        at: u64,
    ) -> Result<Option<usize>, JsonError>;

    /// Visits a wanted string whose opening quote is at offset `at`. `raw` is the text before unescaping, or `None` if it
    /// is longer than the maximum.
    fn visit_string(&mut self, field: Self::Field, raw: Option<&[u8]>, at: u64) -> Result<(), JsonError>;

    /// Visits a piece, as written, of a string that is read in pieces. More pieces follow.
    fn visit_piece(&mut self, _piece: &[u8]) {}

    /// Visits the last piece of a string that is read in pieces.
    fn visit_last_piece(&mut self, _field: Self::Field, _piece: &[u8]) {}

    /// Visits base64 data of the given length in bytes.
    fn visit_media(&mut self, _kind: MediaKind, _bytes: u64) {}

    /// Visits a wanted number as written. Negative numbers are not reported.
    fn visit_number(&mut self, _field: Self::Field, _raw: &[u8]) {}

    /// Visits the end of a value of any type. `at` is the offset of the byte after the value.
    fn visit_value_end(&mut self, _depth: u32, _slice: &StreamSlice<'_>, _at: u64) {}

    /// Called before `slice` becomes invalid. The visitor copies the parts of it that it still needs.
    fn suspend(&mut self, _slice: &StreamSlice<'_>) {}
}

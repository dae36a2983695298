//! The interface between the scanner and a reader of fields.

use super::{capture::StreamSlice, error::JsonError};
use crate::ids::EncryptedContent;

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

    /// The depth of the deepest members that the visitor wants now; at least 1.
    fn max_depth(&self) -> u32;

    /// The depth of the members whose `encrypted_content` the visitor wants now, or 0 if it wants none.
    fn encrypted_depth(&self) -> u32;

    /// Visits an `encrypted_content` at [`FieldVisitor::encrypted_depth`]. Its key is not passed to
    /// [`FieldVisitor::visit_key`].
    fn visit_encrypted(&mut self, content: EncryptedContent);

    /// Visits a key whose opening quote is at offset `at`. Returns the field that the key names, if the visitor reads it.
    fn visit_key(&mut self, depth: u32, name: &[u8], at: u64) -> Result<Option<Self::Field>, JsonError>;

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

    /// Visits a wanted number as written. Negative numbers are not reported.
    fn visit_number(&mut self, _field: Self::Field, _raw: &[u8]) {}

    /// Visits the end of a value of any type. `at` is the offset of the byte after the value.
    fn visit_value_end(&mut self, _depth: u32, _slice: &StreamSlice<'_>, _at: u64) {}

    /// Called before `slice` becomes invalid. The visitor copies the parts of it that it still needs.
    fn suspend(&mut self, _slice: &StreamSlice<'_>) {}
}

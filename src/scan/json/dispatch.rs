//! Passes the fields that the grammar finds to a visitor.
//!
//! The grammar knows where keys and values begin and end. The dispatcher captures their text, also where it lies across
//! two chunks, and calls the [`FieldVisitor`] with whole keys and strings.

use memchr::memchr;

use super::{
    capture::{Capture, StreamSlice},
    deep_keys,
    error::JsonError,
    lexer::BlockTokens,
    media::LongStrings,
    unescape::unescape,
    visitor::FieldVisitor,
};
use crate::ids::EncryptedContent;

/// Calls `V` with the keys and values that it wants.
pub(super) struct FieldDispatcher<V: FieldVisitor> {
    /// The visitor.
    pub visitor: V,
    /// The field that the last key names, until its value has been read.
    field: Option<V::Field>,
    /// The key, wanted string or wanted number that is being read.
    capture: Option<Capture>,
    /// Whether `capture` is a number.
    is_number: bool,
    /// The stream offset of the next piece of the string that is read in pieces.
    piece_from: Option<u64>,
    /// The long strings, if the visitor reads media.
    long_strings: LongStrings,
    /// How far an `encrypted_content` member has been read.
    encrypted: EncryptedState,
    /// Whether one of the deep keys may begin in the current block.
    block_may_have_deep_key: bool,
}

/// How far an `encrypted_content` member has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EncryptedState {
    /// No such member is being read.
    None,
    /// Its key was the last key.
    Key,
    /// Its text is being captured.
    Text,
}

impl<V: FieldVisitor> FieldDispatcher<V> {
    pub fn new(visitor: V) -> Self {
        Self {
            visitor,
            field: None,
            capture: None,
            is_number: false,
            piece_from: None,
            long_strings: LongStrings::default(),
            encrypted: EncryptedState::None,
            block_may_have_deep_key: true,
        }
    }

    /// Reads the long strings that end in the block at index `start` of `slice`.
    #[inline(always)]
    pub fn read_long_strings(&mut self, slice: &StreamSlice<'_>, start: usize, block: &BlockTokens) {
        if V::READS_MEDIA && block.begins | block.closes != 0 {
            let at = slice.base + start as u64;
            let media = self.long_strings.read_block(slice, at, block.begins, block.closes);
            if let Some((kind, bytes)) = media {
                self.visitor.visit_media(kind, bytes);
            }
        }
    }

    /// Begins the block at index `start` of `slice`. `next` holds the tokens of the following block if they are known.
    #[inline(always)]
    pub fn begin_block(
        &mut self,
        slice: &StreamSlice<'_>,
        start: usize,
        block: &BlockTokens,
        next: Option<&BlockTokens>,
    ) {
        // The value of a deep key may lie in a later block.
        let has_open_key = self.encrypted == EncryptedState::Key || V::READS_REFERENCES && self.field.is_some();
        self.block_may_have_deep_key = has_open_key
            || match V::READS_REFERENCES {
                true => deep_keys::may_begin_reference(slice, start, block, next),
                // The flag has no effect while the visitor reads no encrypted content. It is set anyway, because the
                // visitor may start to read it before the block ends.
                false => {
                    self.visitor.encrypted_depth() == 0 || deep_keys::may_begin_encrypted(slice, start, block, next)
                }
            };
    }

    /// Whether members at `depth` are reported to the visitor.
    #[inline(always)]
    pub fn wants(&self, depth: u32) -> bool {
        let reaches = V::READS_REFERENCES || depth <= self.visitor.encrypted_depth();
        depth <= self.visitor.max_depth() || self.block_may_have_deep_key && reaches
    }

    /// A key begins with its opening quote at `at`.
    #[inline(always)]
    pub fn begin_key(&mut self, at: u64) {
        self.capture = Some(Capture::new(at + 1, V::MAX_KEY));
    }

    /// The key ended with its closing quote at `at`.
    pub fn end_key(&mut self, depth: u32, slice: &StreamSlice<'_>, at: u64) -> Result<(), JsonError> {
        self.field = None;
        if let Some(capture) = self.capture.take().filter(|capture| !capture.overflows(at)) {
            let quote = capture.start() - 1;
            let raw = capture.finish(slice, at);
            if depth == self.visitor.encrypted_depth() && deep_keys::is_encrypted_content(&raw) {
                self.encrypted = EncryptedState::Key;
                return Ok(());
            }
            self.field = match memchr(b'\\', &raw) {
                None => self.visitor.visit_key(depth, &raw, quote)?,
                Some(_) => self.visitor.visit_escaped_key(depth, &unescape_key(&raw), quote)?,
            };
        }
        Ok(())
    }

    /// A value begins at `at` with the byte `first`.
    #[inline(always)]
    pub fn begin_value(&mut self, depth: u32, first: u8, at: u64) -> Result<(), JsonError> {
        self.field = self.visitor.field_of_value(self.field, depth, first);
        let mut limit = self.visitor.visit_value(self.field, depth, first, at)?;
        if self.encrypted == EncryptedState::Key {
            self.encrypted = if first == b'"' {
                EncryptedState::Text
            } else {
                EncryptedState::None
            };
            limit = Some(deep_keys::MAX_ENCRYPTED_WRITTEN);
        }
        if V::READS_REFERENCES && limit == Some(V::STREAMED) {
            self.piece_from = Some(at + 1);
            self.capture = None;
            return Ok(());
        }
        self.is_number = V::READS_NUMBERS && first.is_ascii_digit();
        self.capture = limit
            .filter(|_| first == b'"' || self.is_number)
            .map(|limit| Capture::new(at + u64::from(first == b'"'), limit));
        if self.capture.is_none() {
            self.field = None;
        }
        Ok(())
    }

    /// A value ended before `at`. If it is a string, its closing quote is at `at - 1`.
    pub fn end_value(&mut self, depth: u32, slice: &StreamSlice<'_>, at: u64) -> Result<(), JsonError> {
        if self.encrypted == EncryptedState::Text {
            self.encrypted = EncryptedState::None;
            if let Some(capture) = self.capture.take() {
                let identity = encrypted_identity(&capture.finish(slice, at - 1));
                self.visitor.visit_encrypted(identity);
            }
        } else if V::READS_REFERENCES
            && let (Some(from), Some(field)) = (self.piece_from.take(), self.field)
        {
            self.field = None;
            self.visitor.visit_last_piece(field, slice.between(from, at - 1));
        } else if let (Some(field), Some(capture)) = (self.field.take(), self.capture.take()) {
            if V::READS_NUMBERS && self.is_number {
                if !capture.overflows(at) {
                    self.visitor.visit_number(field, &capture.finish(slice, at));
                }
                self.visitor.visit_value_end(depth, slice, at);
                return Ok(());
            }
            let quote = capture.start() - 1;
            let raw = (!capture.overflows(at - 1)).then(|| capture.finish(slice, at - 1));
            self.visitor.visit_string(field, raw.as_deref(), quote)?;
        }
        self.visitor.visit_value_end(depth, slice, at);
        Ok(())
    }

    /// Copies the parts of `slice` that are still needed, before `slice` becomes invalid.
    pub fn suspend(&mut self, slice: &StreamSlice<'_>) {
        if let Some(capture) = &mut self.capture {
            capture.suspend(slice);
        }
        if let Some(from) = self.piece_from {
            let end = slice.base + slice.bytes.len() as u64;
            self.visitor.visit_piece(slice.between(from, end));
            self.piece_from = Some(from.max(end));
        }
        if V::READS_MEDIA {
            self.long_strings.suspend(slice);
        }
        self.visitor.suspend(slice);
    }
}

/// The identity of an encrypted content. `raw` is the beginning of its text before unescaping.
fn encrypted_identity(mut raw: &[u8]) -> EncryptedContent {
    let prefix = raw.get(..EncryptedContent::PREFIX).unwrap_or(raw);
    if memchr(b'\\', prefix).is_none() {
        return EncryptedContent::from_text(prefix);
    }
    loop {
        match unescape(raw) {
            Ok(text) => return EncryptedContent::from_text(text.as_bytes()),
            // The limit of the capture has cut a character in two. The text before that character counts.
            Err(at) => raw = raw.get(..at).expect("the index of an error lies inside the text"),
        }
    }
}

/// Unescapes a key. A key with a lone surrogate becomes the empty name, which no visitor knows.
fn unescape_key(raw: &[u8]) -> Vec<u8> {
    unescape(raw).unwrap_or_default().into_owned().into_bytes()
}

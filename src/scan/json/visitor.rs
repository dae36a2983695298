//! Whoever wants facts from a JSON text, and how it gets its keys and strings whole.

use std::borrow::Cow;

use memchr::memchr;

use super::{
    capture::{Capture, Run, unescape},
    encrypted,
    error::Refusal,
};
use crate::ids::EncryptedContent;

/// Hears of the members of the outermost containers. The root's members have depth 1.
pub(in crate::scan) trait Reader {
    /// What a value is for.
    type Slot: Copy;
    /// How long a key that matters can be, as written.
    const LONGEST_KEY: usize;
    /// Whether it wants numbers too.
    const NUMBERS: bool = false;

    /// The depth of the deepest members that it wants to hear of now; at least 1.
    fn depth(&self) -> u32;

    /// At which depth the members are of which `encrypted_content` is wanted now; 0 where it is not.
    fn encrypted_depth(&self) -> u32;

    /// An `encrypted_content` at that depth. It is no key to the reader.
    fn encrypted(&mut self, content: EncryptedContent);

    /// A key whose opening quote is at stream offset `at`. Gives what its value is for.
    fn key(&mut self, depth: u32, name: &[u8], at: u64) -> Result<Option<Self::Slot>, Refusal>;

    /// A value begins at `at` with the byte `first`. Gives how long its text may be, where that is wanted; it is asked for
    /// strings only, and for numbers where those are wanted.
    fn value(&mut self, slot: Option<Self::Slot>, depth: u32, first: u8, at: u64) -> Result<Option<usize>, Refusal>;

    /// The wanted text of a string, still escaped, or `None` where it is too long. Its opening quote is at `at`.
    fn text(&mut self, slot: Self::Slot, raw: Option<&[u8]>, at: u64) -> Result<(), Refusal>;

    /// A wanted number that begins with a digit, as it is written.
    fn number(&mut self, _slot: Self::Slot, _raw: &[u8]) {}

    /// A value, of whatever kind, ended before `at`.
    fn value_end(&mut self, _depth: u32, _run: &Run<'_>, _at: u64) {}

    /// `run` is about to go: what is to be kept of it must be kept now.
    fn suspend(&mut self, _run: &Run<'_>) {}
}

/// Stands between the grammar and a [`Reader`]: turns where strings begin and end into their text.
pub(in crate::scan) struct Ear<R: Reader> {
    pub reader: R,
    /// What the value after the last key is for.
    slot: Option<R::Slot>,
    /// The key, or the wanted string, that is being read.
    text: Option<Capture>,
    /// It is a number.
    is_number: bool,
    encrypted: Encrypted,
    /// Whether the key of encrypted content may begin in the present block.
    is_awake: bool,
}

/// Where an `encrypted_content` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Encrypted {
    /// Not here.
    No,
    /// Its key was the last one.
    Key,
    /// It is the text that is being read.
    Text,
}

impl<R: Reader> Ear<R> {
    pub fn new(reader: R) -> Self {
        Self {
            reader,
            slot: None,
            text: None,
            is_number: false,
            encrypted: Encrypted::No,
            is_awake: true,
        }
    }

    /// Makes ready for the next block, in which the key of encrypted content begins where `may_begin` says so.
    #[inline(always)]
    pub fn stir(&mut self, may_begin: impl FnOnce() -> bool) {
        // Where none is wanted yet that costs nothing, and it may be wanted before the block ends.
        self.is_awake = self.reader.encrypted_depth() == 0 || self.encrypted == Encrypted::Key || may_begin();
    }

    /// Whether members at `depth` are to be told.
    #[inline(always)]
    pub fn hears(&self, depth: u32) -> bool {
        depth <= self.reader.depth() || self.is_awake && depth <= self.reader.encrypted_depth()
    }

    /// A key begins with its quote at `at`.
    #[inline(always)]
    pub fn key(&mut self, at: u64) {
        self.text = Some(Capture::new(at + 1, R::LONGEST_KEY));
    }

    /// The key ended with its quote at `at`.
    pub fn key_end(&mut self, depth: u32, run: &Run<'_>, at: u64) -> Result<(), Refusal> {
        self.slot = None;
        if let Some(text) = self.text.take().filter(|text| !text.overflows(at)) {
            let quote = text.start() - 1;
            let raw = text.finish(run, at);
            if depth == self.reader.encrypted_depth() && encrypted::is_key(&raw) {
                self.encrypted = Encrypted::Key;
                return Ok(());
            }
            self.slot = self.reader.key(depth, &plain_name(raw), quote)?;
        }
        Ok(())
    }

    /// A value begins at `at`. Gives whether its end matters if it is a string.
    #[inline(always)]
    pub fn value(&mut self, depth: u32, first: u8, at: u64) -> Result<(), Refusal> {
        let mut limit = self.reader.value(self.slot, depth, first, at)?;
        if self.encrypted == Encrypted::Key {
            self.encrypted = if first == b'"' { Encrypted::Text } else { Encrypted::No };
            limit = Some(encrypted::LONGEST);
        }
        self.is_number = R::NUMBERS && first.is_ascii_digit();
        self.text = limit
            .filter(|_| first == b'"' || self.is_number)
            .map(|limit| Capture::new(at + u64::from(first == b'"'), limit));
        if self.text.is_none() {
            self.slot = None;
        }
        Ok(())
    }

    /// A value ended before `at`; a string's closing quote is the byte before.
    pub fn value_end(&mut self, depth: u32, run: &Run<'_>, at: u64) -> Result<(), Refusal> {
        if self.encrypted == Encrypted::Text {
            self.encrypted = Encrypted::No;
            if let Some(text) = self.text.take() {
                self.reader.encrypted(identity(&text.finish(run, at - 1)));
            }
        } else if let (Some(slot), Some(text)) = (self.slot.take(), self.text.take()) {
            if R::NUMBERS && self.is_number {
                if !text.overflows(at) {
                    self.reader.number(slot, &text.finish(run, at));
                }
                self.reader.value_end(depth, run, at);
                return Ok(());
            }
            let quote = text.start() - 1;
            let raw = (!text.overflows(at - 1)).then(|| text.finish(run, at - 1));
            self.reader.text(slot, raw.as_deref(), quote)?;
        }
        self.reader.value_end(depth, run, at);
        Ok(())
    }

    /// `run` is about to go.
    pub fn suspend(&mut self, run: &Run<'_>) {
        if let Some(text) = &mut self.text {
            text.suspend(run);
        }
        self.reader.suspend(run);
    }
}

/// The identity of the encrypted content that `raw`, still escaped, is the beginning of.
fn identity(mut raw: &[u8]) -> EncryptedContent {
    let prefix = raw.get(..EncryptedContent::PREFIX).unwrap_or(raw);
    if memchr(b'\\', prefix).is_none() {
        return EncryptedContent::from_text(prefix);
    }
    loop {
        match unescape(raw) {
            Ok(text) => return EncryptedContent::from_text(text.as_bytes()),
            // Cut in the middle of a character.
            Err(at) => raw = raw.get(..at).unwrap_or_default(),
        }
    }
}

/// The name that a key stands for; empty, and so nobody's, where it stands for none.
fn plain_name(raw: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    match memchr(b'\\', &raw) {
        None => raw,
        Some(_) => Cow::Owned(unescape(&raw).unwrap_or_default().into_owned().into_bytes()),
    }
}

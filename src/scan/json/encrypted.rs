//! Finds the key `encrypted_content` with the masks of the lexer.
//!
//! Items with this key stand anywhere in a conversation. In a body of many small items, reporting every member of every
//! item would cost more than everything else. So the dispatcher reports members at that depth only in blocks in which the
//! key may begin. [`may_begin`] detects these blocks by the distance between an opening and a closing quote, with three
//! operations for 64 bytes.
//!
//! Only a key that is written without escapes counts. JSON writers do not escape these characters. A key with escapes
//! is treated as another key.

use super::{capture::StreamSlice, lexer::BlockTokens};
use crate::ids::EncryptedContent;

/// The key with its quotes.
const QUOTED_KEY: &[u8; 19] = b"\"encrypted_content\"";
/// The distance from the opening quote of the key to its closing quote, in bytes.
const QUOTE_DISTANCE: u32 = QUOTED_KEY.len() as u32 - 1;
/// The positions of opening quotes for which the closing quote lies in the next block.
const OVERLAP: u64 = u64::MAX << (64 - QUOTE_DISTANCE);

/// The maximum length in bytes of the part of the text that the identity needs, if every character is an escape of six
/// bytes.
pub(super) const MAX_WRITTEN: usize = EncryptedContent::PREFIX * 6;

/// Whether `name`, as written, is the key.
pub(super) fn is_key(name: &[u8]) -> bool {
    name == b"encrypted_content"
}

/// Whether the key begins, or may begin, in the block at index `start` of `slice`. `next` holds the tokens of the
/// following block if they are known. A key that the end of `slice` cuts may begin, because the bytes after `slice` are
/// not known.
#[inline(always)]
pub(super) fn may_begin(
    slice: &StreamSlice<'_>,
    start: usize,
    block: &BlockTokens,
    next: Option<&BlockTokens>,
) -> bool {
    let (closes_in_next, unknown) = match next {
        Some(next) => (next.closes << (64 - QUOTE_DISTANCE), 0),
        None => (0, OVERLAP),
    };
    let strings = block.begins & (block.closes >> QUOTE_DISTANCE | closes_in_next | unknown);
    strings != 0 && any_is_key(slice, start, strings)
}

/// Whether the key, or its beginning at the end of `slice`, stands at one of the positions `strings` of the block at index
/// `start`.
fn any_is_key(slice: &StreamSlice<'_>, start: usize, mut strings: u64) -> bool {
    while strings != 0 {
        let rest = slice.bytes.get(start + strings.trailing_zeros() as usize..);
        let rest = rest.expect("the block lies in the slice");
        if rest.starts_with(QUOTED_KEY) || rest.len() < QUOTED_KEY.len() && QUOTED_KEY.starts_with(rest) {
            return true;
        }
        strings &= strings - 1;
    }
    false
}

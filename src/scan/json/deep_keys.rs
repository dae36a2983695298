//! Finds the blocks in which certain keys may begin, with the masks of the lexer.
//!
//! Names of objects and encrypted contents stand anywhere in a conversation. In a body of many small items, reporting every
//! member of every item would cost more than everything else. So the dispatcher reports members at such depths only in blocks
//! in which one of the keys may begin. The functions detect these blocks by the distance between an opening and a closing
//! quote, with two or three operations for each distance and block.
//!
//! Only keys that are written without escapes are found. JSON writers do not escape these characters.

use super::{capture::StreamSlice, lexer::BlockTokens};
use crate::ids::EncryptedContent;

/// The key of encrypted contents with its quotes.
const ENCRYPTED: &[u8; 19] = b"\"encrypted_content\"";
/// The distance from the opening quote of that key to its closing quote, in bytes.
const ENCRYPTED_DISTANCE: u32 = ENCRYPTED.len() as u32 - 1;
/// The positions of opening quotes for which the closing quote lies in the next block.
const OVERLAP: u64 = u64::MAX << (64 - ENCRYPTED_DISTANCE);

/// The maximum length in bytes of the part of the text that the identity needs, if every character is an escape of six
/// bytes.
pub(super) const MAX_ENCRYPTED_WRITTEN: usize = EncryptedContent::PREFIX * 6;

/// Whether `name`, as written, is the key of encrypted contents.
pub(super) fn is_encrypted_content(name: &[u8]) -> bool {
    name == b"encrypted_content"
}

/// Whether the key of encrypted contents begins, or may begin, in the block at index `start` of `slice`. `next` holds the
/// tokens of the following block if they are known. A key that the end of `slice` cuts may begin, because the bytes after
/// `slice` are not known.
#[inline(always)]
pub(super) fn may_begin_encrypted(
    slice: &StreamSlice<'_>,
    start: usize,
    block: &BlockTokens,
    next: Option<&BlockTokens>,
) -> bool {
    let (closes_in_next, unknown) = match next {
        Some(next) => (next.closes << (64 - ENCRYPTED_DISTANCE), 0),
        None => (0, OVERLAP),
    };
    let strings = block.begins & (block.closes >> ENCRYPTED_DISTANCE | closes_in_next | unknown);
    strings != 0
        && any_is(slice, start, strings, |rest| match rest.len() < ENCRYPTED.len() {
            true => ENCRYPTED.starts_with(rest),
            false => rest.starts_with(ENCRYPTED),
        })
}

/// Whether a name of an object, or what marks it, begins or may begin in a block; see [`may_begin_encrypted`]. The strings
/// are those whose first eight bytes [`begins_reference`] knows.
#[inline(always)]
pub(super) fn may_begin_reference(
    slice: &StreamSlice<'_>,
    start: usize,
    block: &BlockTokens,
    next: Option<&BlockTokens>,
) -> bool {
    let closes_in_next = next.map_or(u64::MAX, |next| next.closes);
    let closes = u128::from(closes_in_next) << 64 | u128::from(block.closes);
    // The distances of `id`, `file_id`, `file_ids`, `container`, `container_id`, `item_reference`, `vector_store_id`,
    // `vector_store_ids` and `encrypted_content`.
    let after = |distance: u32| (closes >> distance) as u64;
    let ends = after(3) | after(8) | after(9) | after(10) | after(13) | after(15) | after(16) | after(17) | after(18);
    let strings = block.begins & ends;
    strings != 0 && any_is(slice, start, strings, begins_reference)
}

/// Whether `text`, which begins with a quote, begins like one of the strings. It may be another string; then the dispatcher
/// reports a block more than necessary.
#[inline(always)]
fn begins_reference(text: &[u8]) -> bool {
    // Most strings begin with another letter. One bit for each of `c`, `e`, `f`, `i` and `v`, by the low bits of the byte.
    const FIRST_LETTERS: u32 = 1 << 3 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 22;
    if let Some(first) = text.get(1)
        && FIRST_LETTERS >> (first & 31) & 1 == 0
    {
        return false;
    }
    let Some(word) = text.get(1..9) else {
        return true;
    };
    let word = u64::from_le_bytes(word.try_into().expect("the range has eight bytes"));
    const fn word_of(text: &[u8; 8]) -> u64 {
        u64::from_le_bytes(*text)
    }
    const ID: u64 = word_of(b"id\"\0\0\0\0\0");
    const FILE_ID: u64 = word_of(b"file_id\"");
    const FILE_IDS: u64 = word_of(b"file_ids");
    const CONTAINER: u64 = word_of(b"containe");
    const ITEM_REFERENCE: u64 = word_of(b"item_ref");
    const VECTOR_STORE: u64 = word_of(b"vector_s");
    const ENCRYPTED_CONTENT: u64 = word_of(b"encrypte");
    word & 0xff_ffff == ID
        || matches!(
            word,
            FILE_ID | FILE_IDS | CONTAINER | ITEM_REFERENCE | VECTOR_STORE | ENCRYPTED_CONTENT
        )
}

/// Whether `test` is true for the text at one of the positions `strings` of the block at index `start`.
#[inline(always)]
fn any_is(slice: &StreamSlice<'_>, start: usize, mut strings: u64, test: impl Fn(&[u8]) -> bool) -> bool {
    while strings != 0 {
        let rest = slice.bytes.get(start + strings.trailing_zeros() as usize..);
        if test(rest.expect("the block lies in the slice")) {
            return true;
        }
        strings &= strings - 1;
    }
    false
}

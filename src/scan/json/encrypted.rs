//! Where `encrypted_content` begins, told from the lexer's masks.
//!
//! Items that carry it stand anywhere in a conversation, and hearing of every member of every item costs more than all else
//! in a body of many small items. So a reader sleeps through them: blocks in which the key may begin are told by where
//! strings begin and end, three operations for 64 bytes, and it is woken for those only.
//!
//! The key counts where it is spelled plainly, as every JSON writer does; spelled with escapes it is another key.

use super::{capture::Run, lexer::Tokens};
use crate::ids::EncryptedContent;

/// The key, with its quotes.
const QUOTED: &[u8; 19] = b"\"encrypted_content\"";
/// From the opening quote to the closing one.
const SPAN: u32 = QUOTED.len() as u32 - 1;
/// Where the opening quote has its closing one in the next block.
const OVERLAP: u64 = u64::MAX << (64 - SPAN);

/// As many bytes as written as hold the text that is the identity, were each of them an escape.
pub(super) const LONGEST: usize = EncryptedContent::PREFIX * 6;

/// Whether `name`, as written, is the key.
pub(super) fn is_key(name: &[u8]) -> bool {
    name == b"encrypted_content"
}

/// Whether the key begins in the block of `run` that begins at index `start`, or may: what lies behind `run` is not known.
/// `next` is the block after it, where it is at hand.
#[inline(always)]
pub(super) fn may_begin(run: &Run<'_>, start: usize, block: &Tokens, next: Option<&Tokens>) -> bool {
    let (ends_later, unknown) = match next {
        Some(next) => (next.closes << (64 - SPAN), 0),
        None => (0, OVERLAP),
    };
    let strings = block.begins & (block.closes >> SPAN | ends_later | unknown);
    strings != 0 && any_is_key(run, start, strings)
}

fn any_is_key(run: &Run<'_>, start: usize, mut strings: u64) -> bool {
    while strings != 0 {
        let rest = run.bytes.get(start + strings.trailing_zeros() as usize..);
        let rest = rest.unwrap_or_default();
        if rest.starts_with(QUOTED) || rest.len() < QUOTED.len() && QUOTED.starts_with(rest) {
            return true;
        }
        strings &= strings - 1;
    }
    false
}

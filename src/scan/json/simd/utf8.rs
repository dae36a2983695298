//! UTF-8 validation of single blocks with the standard library. It is slow, and is used only to find where an error is.

use super::masks::Block;

/// Finds the first sequence of `block` that is not UTF-8 after `before`, the four bytes that precede the block; the last one
/// is the most significant. Returns the index at which the sequence begins, which is negative if it begins before the block.
///
/// A leading byte at the end of the block is checked with the next block, even if it is invalid by itself, because the
/// vector implementation looks at pairs of bytes.
pub(in crate::scan) fn find_invalid_utf8(block: &Block, before: u32) -> Option<isize> {
    let before = before.to_le_bytes();
    let open = (1..=3)
        .find(|back| before[4 - back] >= 0xc0)
        .filter(|back| *back < sequence_length(before[4 - back]))
        .unwrap_or(0);
    let mut bytes = [0; 67];
    bytes[..open].copy_from_slice(&before[4 - open..]);
    bytes[open..open + 64].copy_from_slice(block);
    let error = std::str::from_utf8(&bytes[..open + 64]).err()?;
    error.error_len()?;
    let begin = error.valid_up_to() as isize - open as isize;
    (begin < 63 || block[63] < 0xc0).then_some(begin)
}

/// The length in bytes of the UTF-8 sequence that the byte `lead` begins.
fn sequence_length(lead: u8) -> usize {
    match lead {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}

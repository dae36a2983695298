//! A search for several texts at once.

use memchr::memmem::Finder;

#[cfg(target_arch = "x86_64")]
use crate::scan::json::simd::Avx2;
use crate::scan::json::simd::{Block, Simd};

/// The number of positions that are compared at a time.
const BLOCK: usize = size_of::<Block>();

/// A search for several texts at once. Most often none of them is found, which costs a few instructions for each 64 bytes
/// with AVX2. memmem finds the exact positions of a text that may be there.
pub(super) struct TextSearch {
    texts: Box<[SearchedText]>,
    #[cfg(target_arch = "x86_64")]
    avx2: Option<Avx2>,
}

/// A text, and the bytes of it that are compared first.
struct SearchedText {
    finder: Finder<'static>,
    first: u8,
    second: u8,
    last: u8,
}

impl TextSearch {
    /// A search for `texts`, each of at least two bytes.
    pub fn new(texts: &[&[u8]]) -> Self {
        Self {
            texts: texts.iter().map(|text| SearchedText::new(text)).collect(),
            #[cfg(target_arch = "x86_64")]
            avx2: Avx2::detect(),
        }
    }

    /// All positions at which one of the texts begins and is whole, in order.
    #[inline]
    pub fn positions(&self, bytes: &[u8]) -> Vec<usize> {
        let mut positions = Vec::new();
        for text in &self.texts {
            if self.may_contain(bytes, text) {
                text.add_positions(bytes, &mut positions);
            }
        }
        if positions.len() > 1 {
            positions.sort_unstable();
        }
        positions
    }

    #[inline]
    fn may_contain(&self, bytes: &[u8], text: &SearchedText) -> bool {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = self.avx2 {
            // SAFETY: an `Avx2` proves AVX2.
            return unsafe { may_contain_avx2(avx2, bytes, text) };
        }
        let _ = (bytes, text);
        true
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn may_contain_avx2(avx2: Avx2, bytes: &[u8], text: &SearchedText) -> bool {
    may_contain_with(avx2, bytes, text)
}

/// Whether the first two bytes and the last byte of `text` are at the same distances in `bytes`. Also true if `bytes` are
/// too short for blocks.
#[inline(always)]
fn may_contain_with<S: Simd>(simd: S, bytes: &[u8], text: &SearchedText) -> bool {
    let length = text.finder.needle().len();
    let Some(starts) = (bytes.len() + 1).checked_sub(length) else {
        return false;
    };
    if starts < BLOCK {
        return true;
    }
    let (firsts, lasts) = (&bytes[..starts], &bytes[length - 1..]);
    let blocks = firsts.as_chunks().0.iter().zip(lasts.as_chunks().0);
    for (number, (first, last)) in blocks.enumerate() {
        let (first, last) = (simd.load(first), simd.load(last));
        if simd.any_equal_both(first, text.first, last, text.last) && begins_in(simd, bytes, number * BLOCK, text) {
            return true;
        }
    }
    // The last block overlaps the one before it.
    !starts.is_multiple_of(BLOCK) && begins_in(simd, bytes, starts - BLOCK, text)
}

/// Whether `text` may begin at one of the positions of the block at `at`.
#[inline(always)]
fn begins_in<S: Simd>(simd: S, bytes: &[u8], at: usize, text: &SearchedText) -> bool {
    let last = at + text.finder.needle().len() - 1;
    let ends =
        simd.equal(simd.load(block(bytes, at)), text.first) & simd.equal(simd.load(block(bytes, last)), text.last);
    ends != 0 && ends & simd.equal(simd.load(block(bytes, at + 1)), text.second) != 0
}

#[inline(always)]
fn block(bytes: &[u8], at: usize) -> &Block {
    bytes[at..]
        .first_chunk()
        .expect("the whole text fits behind each position of a block")
}

impl SearchedText {
    fn new(text: &[u8]) -> Self {
        Self {
            finder: Finder::new(text).into_owned(),
            first: text[0],
            second: text[1],
            last: text[text.len() - 1],
        }
    }

    #[cold]
    fn add_positions(&self, bytes: &[u8], positions: &mut Vec<usize>) {
        let mut from = 0;
        while let Some(found) = self.finder.find(&bytes[from..]) {
            positions.push(from + found);
            from += found + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scan::json::simd::Portable;

    #[test]
    fn all_positions_of_all_texts_are_found() {
        let search = TextSearch::new(&[b"abab", b"ab", b"\\u00"]);
        for before in [0, 1, 40, 63, 64, 65, 200] {
            for after in [0, 1, 40, 200] {
                let body = format!("{}ababab{}", "-".repeat(before), "-".repeat(after));
                let expected: Vec<usize> = [0, 0, 2, 2, 4].map(|at| before + at).into();
                assert_eq!(search.positions(body.as_bytes()), expected, "{before} {after}");
            }
        }
        assert!(search.positions(b"").is_empty());
    }

    proptest! {
        #[test]
        fn no_text_is_overlooked(body in "[ab]{0,300}", text in "[ab]{2,90}", at in 0..300_usize) {
            let mut body = body;
            body.insert_str(at.min(body.len()), &text);
            let text = SearchedText::new(text.as_bytes());
            prop_assert!(may_contain_with(Portable, body.as_bytes(), &text));
            let search = TextSearch { texts: [text].into(), ..TextSearch::new(&[]) };
            let needle = search.texts[0].finder.needle();
            let expected: Vec<usize> =
                (0..body.len()).filter(|at| body.as_bytes()[*at..].starts_with(needle)).collect();
            prop_assert_eq!(search.positions(body.as_bytes()), expected);
        }
    }
}

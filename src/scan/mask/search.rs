//! A search for several texts at once.

use memchr::memmem::Finder;

#[cfg(target_arch = "x86_64")]
use crate::scan::json::simd::Avx2;
use crate::scan::json::simd::{Block, Simd};

/// The number of positions that are compared at a time.
const BLOCK: usize = size_of::<Block>();

/// A search for several texts at once. Most often none of them is found, which costs a few instructions for each 64 bytes
/// with AVX2: two neighbouring bytes of each text are compared, those that are rare in other text. memmem finds the exact
/// positions of a text that may be there.
pub(super) struct TextSearch {
    finders: Box<[Finder<'static>]>,
    /// The rare bytes of all texts, two texts at a time. The last text may be there twice.
    rare: Box<[[RareBytes; 2]]>,
    #[cfg(target_arch = "x86_64")]
    avx2: Option<Avx2>,
}

/// Two bytes that follow each other in a text.
type RareBytes = [u8; 2];

impl TextSearch {
    /// A search for `texts`, each of at least two bytes.
    pub fn new<'t>(texts: impl IntoIterator<Item = &'t [u8]>) -> Self {
        let texts: Vec<&[u8]> = texts.into_iter().collect();
        let rare: Vec<RareBytes> = texts.iter().map(|text| rarest_bytes(text)).collect();
        let pairs = rare.chunks(2).map(|pair| [pair[0], pair[pair.len() - 1]]);
        Self {
            finders: texts.iter().map(|text| Finder::new(text).into_owned()).collect(),
            rare: pairs.collect(),
            #[cfg(target_arch = "x86_64")]
            avx2: Avx2::detect(),
        }
    }

    /// Whether one of the texts may be in `bytes`. It is not if the result is `false`.
    #[inline]
    pub fn may_find(&self, bytes: &[u8]) -> bool {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = self.avx2 {
            // SAFETY: an `Avx2` proves AVX2.
            return unsafe { may_find_avx2(avx2, bytes, &self.rare) };
        }
        self.finders.iter().any(|finder| finder.find(bytes).is_some())
    }

    /// All positions at which one of the texts begins and is whole, in order, each once.
    pub fn positions(&self, bytes: &[u8]) -> Vec<usize> {
        let mut positions = Vec::new();
        if !self.may_find(bytes) {
            return positions;
        }
        for finder in &self.finders {
            let mut from = 0;
            while let Some(found) = finder.find(&bytes[from..]) {
                positions.push(from + found);
                from += found + 1;
            }
        }
        positions.sort_unstable();
        positions.dedup();
        positions
    }
}

/// The two neighbouring bytes of `text` that are rarest in generated text and JSON.
fn rarest_bytes(text: &[u8]) -> RareBytes {
    /// Greater for bytes that are more frequent.
    fn frequency(byte: u8) -> u32 {
        match byte {
            b' ' | b'e' | b't' | b'a' | b'"' => 12,
            b'o' | b'i' | b'n' | b's' | b'r' | b'd' | b':' => 8,
            b'\\' => 8,
            b'0'..=b'9' => 6,
            b'a'..=b'z' | b',' | b'_' => 5,
            b'.' | b'-' | b'/' | b'{' | b'}' => 2,
            _ => 1,
        }
    }
    let pairs = text.windows(2).map(|pair| [pair[0], pair[1]]);
    let rarest = pairs.min_by_key(|[first, second]| frequency(*first) * frequency(*second));
    rarest.expect("a searched text has at least two bytes")
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn may_find_avx2(avx2: Avx2, bytes: &[u8], rare: &[[RareBytes; 2]]) -> bool {
    may_find_with(avx2, bytes, rare)
}

/// Whether two of the `rare` bytes follow each other in `bytes`. Also true if `bytes` are too short for a block.
#[inline(always)]
fn may_find_with<S: Simd>(simd: S, bytes: &[u8], rare: &[[RareBytes; 2]]) -> bool {
    let Some(last) = bytes.len().checked_sub(BLOCK + 1) else {
        return bytes.len() > 1;
    };
    let (firsts, seconds) = (&bytes[..bytes.len() - 1], &bytes[1..]);
    for pair in rare {
        for (first, second) in firsts.as_chunks().0.iter().zip(seconds.as_chunks().0) {
            if is_at(simd, first, second, pair) {
                return true;
            }
        }
        // The last block overlaps the one before it.
        if is_at(simd, block(firsts, last), block(seconds, last), pair) {
            return true;
        }
    }
    false
}

/// Whether the two bytes of `one` or of the `other` are at the same place in `first` and `second`.
#[inline(always)]
fn is_at<S: Simd>(simd: S, first: &Block, second: &Block, [one, other]: &[RareBytes; 2]) -> bool {
    let (first, second) = (simd.load(first), simd.load(second));
    simd.any_equal_both(first, one[0], second, one[1]) | simd.any_equal_both(first, other[0], second, other[1])
}

#[inline(always)]
fn block(bytes: &[u8], at: usize) -> &Block {
    bytes[at..].first_chunk().expect("a block begins here")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scan::json::simd::Portable;

    #[test]
    fn all_positions_of_all_texts_are_found() {
        let search = TextSearch::new([&b"abab"[..], b"ab", b"\\u00"]);
        for before in [0, 1, 40, 63, 64, 65, 200] {
            for after in [0, 1, 40, 200] {
                let body = format!("{}ababab{}", "-".repeat(before), "-".repeat(after));
                let expected: Vec<usize> = [0, 2, 4].map(|at| before + at).into();
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
            let search = TextSearch::new([text.as_bytes(), b"--"]);
            prop_assert!(search.may_find(body.as_bytes()));
            prop_assert!(may_find_with(Portable, body.as_bytes(), &search.rare));
            let expected: Vec<usize> =
                (0..body.len()).filter(|at| body[*at..].starts_with(&text)).collect();
            prop_assert_eq!(search.positions(body.as_bytes()), expected);
        }
    }

    #[test]
    fn the_rarest_bytes_are_compared() {
        for (text, expected) in [
            ("\\u00", "u0"),
            ("ab", "ab"),
            ("sk-proj-stateZQeees", "ZQ"),
            ("sk-upstream-canary", "k-"),
        ] {
            assert_eq!(rarest_bytes(text.as_bytes()), expected.as_bytes(), "{text}");
        }
        let search = TextSearch::new([&b"sk-proj-stateZQeees"[..], br"\u00"]);
        let event = format!(
            "data: {{\"type\":\"x\",\"delta\":\"sk-proj-state \\n{}\"}}\n\n",
            "word ".repeat(20)
        );
        assert!(!search.may_find(event.as_bytes()));
        assert!(!search.may_find(b"") && !search.may_find(b"s"));
    }
}

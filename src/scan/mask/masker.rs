//! The credentials of an upstream, compiled for the search in its responses.

use std::{borrow::Cow, ops::Range};

use percent_encoding::percent_decode;

use super::{
    search::TextSearch,
    spelling::{Comparison, backslashes_at_end, compare, max_length},
};

/// The beginning of each escape that can stand for a byte of a credential.
const ASCII_ESCAPE: &[u8] = br"\u00";
/// The escape of a slash. It is searched for only if a credential contains a slash.
const SLASH_ESCAPE: &[u8] = br"\/";

/// The credentials of an upstream, compiled for the search in its responses.
///
/// It finds a credential as it is, with any of its bytes written as an escape of JSON, and in JSON that is quoted in a
/// string. Text that only resembles a credential is not found.
pub struct CredentialMasker {
    texts: Box<[Box<[u8]>]>,
    search: TextSearch,
    /// Whether a byte can be a part of a credential in any spelling.
    is_spelled_with: Box<[bool; 256]>,
    /// The length of the shortest credential.
    shortest: usize,
    /// The maximum length of a credential with escapes.
    longest: usize,
}

impl CredentialMasker {
    /// A masker of `texts`; `None` if there are none. Texts of fewer than two bytes are left out.
    pub fn new(texts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Option<Self> {
        let texts = texts.into_iter().flat_map(|text| variants(text.as_ref()));
        let mut texts: Vec<Box<[u8]>> = texts.map(Vec::into_boxed_slice).collect();
        texts.sort_unstable();
        texts.dedup();
        let shortest = texts.iter().map(|text| text.len()).min()?;
        let mut searched: Vec<&[u8]> = texts.iter().map(|text| &**text).collect();
        searched.push(ASCII_ESCAPE);
        if texts.iter().any(|text| text.contains(&b'/')) {
            searched.push(SLASH_ESCAPE);
        }
        let mut is_spelled_with = Box::new([false; 256]);
        let in_escapes = br"\/u0123456789abcdefABCDEF";
        for byte in texts.iter().flatten().chain(in_escapes) {
            is_spelled_with[usize::from(*byte)] = true;
        }
        Some(Self {
            search: TextSearch::new(&searched),
            is_spelled_with,
            shortest,
            longest: texts.iter().map(|text| max_length(text)).max()?,
            texts: texts.into(),
        })
    }

    /// Whether `text`, such as the value of a header, contains a credential. It may be percent-encoded there.
    pub fn finds(&self, text: &[u8]) -> bool {
        if text.len() < self.shortest {
            return false;
        }
        let is_found = |text: &[u8]| !self.find_all(text).is_empty();
        is_found(text)
            || match percent_decode(text).into() {
                Cow::Owned(decoded) => is_found(&decoded),
                Cow::Borrowed(_) => false,
            }
    }

    /// Overwrites each credential in a whole `text` with asterisks.
    pub fn mask_whole(&self, text: &mut [u8]) {
        for range in self.find_all(text) {
            text[range].fill(b'*');
        }
    }

    /// Where credentials are in `bytes`. The ranges may overlap. Each begins with the backslashes before the credential, so
    /// that no escape is cut in two when the range is overwritten.
    pub(super) fn find_all(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let mut ranges = Vec::new();
        if bytes.len() < self.shortest {
            return ranges;
        }
        // All positions before this one have been compared.
        let mut compared = 0;
        for found in self.search.positions(bytes) {
            let first = match bytes[found] {
                // A credential with this escape in it may begin before it.
                b'\\' => {
                    let first = self.run_start(bytes, compared, found);
                    compared = found + 1;
                    first
                }
                _ => found,
            };
            for start in first..=found {
                self.compare_at(bytes, start, &mut ranges);
            }
        }
        ranges
    }

    /// The position from which `bytes` can be the beginning of a credential that is not whole yet. It is the length of
    /// `bytes` if there is none.
    pub(super) fn partial_from(&self, bytes: &[u8]) -> usize {
        let end = bytes.len();
        let is_partial = |start: usize| {
            let rest = &bytes[start..];
            let mut compared = self.texts.iter().map(|text| compare(rest, text));
            compared.any(|comparison| comparison == Comparison::Partial)
        };
        match (self.run_start(bytes, 0, end)..end).find(|start| is_partial(*start)) {
            Some(start) => start - backslashes_at_end(&bytes[..start]),
            None => end,
        }
    }

    /// The beginning of the bytes before `end` that can be a part of a credential: not before `least`, and not further
    /// away than a credential is long.
    fn run_start(&self, bytes: &[u8], least: usize, end: usize) -> usize {
        let least = least.max(end.saturating_sub(self.longest));
        let before = &bytes[least..end];
        let is_other = |byte: &u8| !self.is_spelled_with[usize::from(*byte)];
        least + before.iter().rposition(is_other).map_or(0, |other| other + 1)
    }

    fn compare_at(&self, bytes: &[u8], start: usize, ranges: &mut Vec<Range<usize>>) {
        for text in &self.texts {
            if let Comparison::Equal(length) = compare(&bytes[start..], text) {
                ranges.push(start - backslashes_at_end(&bytes[..start])..start + length);
            }
        }
    }
}

/// The texts to search for a credential: as it is, percent-encoded, and as a JSON string writes it. Most often they are
/// the same. Escapes of characters that need none are not among them, because each comparison allows them.
fn variants(text: &[u8]) -> Vec<Vec<u8>> {
    if text.len() < 2 {
        return Vec::new();
    }
    let mut variants = vec![text.to_vec()];
    let encoded = percent_encoding::percent_encode(text, UNRESERVED).to_string();
    variants.push(encoded.into_bytes());
    let mut quoted = text.to_vec();
    for _ in 0..2 {
        quoted = quoted
            .iter()
            .flat_map(|byte| match byte {
                b'"' | b'\\' => vec![b'\\', *byte],
                byte => vec![*byte],
            })
            .collect();
        variants.push(quoted.clone());
    }
    variants
}

/// The characters that an encoded credential does not contain: all except those of RFC 3986 section 2.3.
const UNRESERVED: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

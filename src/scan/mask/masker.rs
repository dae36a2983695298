//! The credentials of an upstream, compiled for the search in its responses.

use std::{borrow::Cow, collections::BTreeSet, ops::Range};

use percent_encoding::percent_decode;

use super::{
    search::TextSearch,
    spelling::{Comparison, backslashes_at_end, compare, is_unreserved, max_length},
};

/// The beginning of each escape of JSON that can stand for an ASCII character.
const ASCII_ESCAPE: &[u8] = br"\u00";
/// The beginning of each escape of JSON with a code.
const ANY_ESCAPE: &[u8] = br"\u";
/// How often the value of a header is decoded: a URL may be the parameter of another one.
const URL_DEPTH: usize = 3;

/// The credentials of an upstream, compiled for the search in its responses.
///
/// It finds a credential as it is, with any of its bytes written as an escape of JSON or of a URL, and in JSON that is
/// quoted in a string. Text that only resembles a credential is not found.
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
        let mut searched: BTreeSet<Vec<u8>> = texts.iter().flat_map(|text| anchors(text)).collect();
        let is_ascii = texts.iter().all(|text| text.is_ascii());
        searched.insert(if is_ascii { ASCII_ESCAPE } else { ANY_ESCAPE }.to_vec());
        let mut is_spelled_with = Box::new([false; 256]);
        let in_escapes = br"%\/u0123456789abcdefABCDEF";
        for byte in texts.iter().flatten().chain(in_escapes) {
            is_spelled_with[usize::from(*byte)] = true;
        }
        Some(Self {
            search: TextSearch::new(searched.iter().map(|text| &**text)),
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
        let mut text = Cow::Borrowed(text);
        for _ in 0..URL_DEPTH {
            if !self.find_all(&text).is_empty() {
                return true;
            }
            text = match percent_decode(&text).into() {
                Cow::Owned(decoded) => Cow::Owned(decoded),
                Cow::Borrowed(_) => return false,
            };
        }
        !self.find_all(&text).is_empty()
    }

    /// Whether `bytes` contain no credential and do not end with the beginning of one. `false` says nothing.
    #[inline]
    pub(super) fn passes(&self, bytes: &[u8]) -> bool {
        let is_end = |byte: &u8| !self.is_spelled_with[usize::from(*byte)];
        bytes.last().is_none_or(is_end) && !self.search.may_find(bytes)
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
            // A credential with this text in it may begin before it.
            for start in self.run_start(bytes, compared, found)..=found {
                self.compare_at(bytes, start, &mut ranges);
            }
            compared = found + 1;
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

/// The texts to compare for a credential: as it is, and as a JSON string writes it, which may be quoted in another one. Most
/// often they are the same. Other escapes are not among them, because each comparison allows them.
fn variants(text: &[u8]) -> Vec<Vec<u8>> {
    if text.len() < 2 {
        return Vec::new();
    }
    let mut variants = vec![text.to_vec()];
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

/// Texts of which each spelling of `text` contains at least one, unless it contains an escape of JSON with a code.
fn anchors(text: &[u8]) -> Vec<Vec<u8>> {
    let runs = text.split(|byte| !is_unreserved(*byte));
    let longest = runs.max_by_key(|run| run.len()).unwrap_or_default();
    if longest.len() > 1 {
        return vec![longest.to_vec()];
    }
    let mut anchors = vec![text.to_vec(), br"\/".to_vec()];
    for byte in text.iter().filter(|byte| !is_unreserved(**byte)) {
        let encoded = format!("%{:x}", byte >> 4);
        anchors.extend([encoded.to_ascii_uppercase().into_bytes(), encoded.into_bytes()]);
    }
    anchors
}

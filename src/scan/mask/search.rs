//! A search for several texts at once.

use aho_corasick::{AhoCorasick, Input, Span, packed};

/// A search for the first position at which one of several texts begins.
pub(super) enum TextSearch {
    /// A vectorized search, where the processor has it.
    Vectorized(packed::Searcher),
    /// An automaton that reads byte by byte.
    Automaton(AhoCorasick),
}

impl TextSearch {
    /// A search for `texts`. None of them is empty.
    pub fn new(texts: &[&[u8]]) -> Self {
        let mut builder = packed::Config::new().builder();
        match builder.extend(texts).build() {
            Some(searcher) => Self::Vectorized(searcher),
            None => Self::Automaton(AhoCorasick::new(texts).expect("a few short texts fit into an automaton")),
        }
    }

    /// The first position in `bytes`, not before `from`, at which one of the texts begins and is whole.
    #[inline]
    pub fn find(&self, bytes: &[u8], from: usize) -> Option<usize> {
        let found = match self {
            Self::Vectorized(searcher) => {
                let span = Span {
                    start: from,
                    end: bytes.len(),
                };
                searcher.find_in(bytes, span)
            }
            Self::Automaton(automaton) => automaton.find(Input::new(bytes).range(from..)),
        };
        found.map(|found| found.start())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_texts_are_found_as_well() {
        let many: Vec<String> = (0..500).map(|number| format!("credential-{number:03}")).collect();
        let texts: Vec<&[u8]> = many.iter().map(String::as_bytes).collect();
        for texts in [&texts[..3], &texts[..]] {
            let search = TextSearch::new(texts);
            let body = format!("{}credential-002{}", "-".repeat(100), "-".repeat(100));
            assert_eq!(search.find(body.as_bytes(), 0), Some(100));
            assert_eq!(search.find(body.as_bytes(), 100), Some(100));
            assert_eq!(search.find(body.as_bytes(), 101), None);
            assert_eq!(search.find(b"", 0), None);
        }
    }
}

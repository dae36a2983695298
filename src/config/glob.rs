//! Globs over model names: `*` matches any text, the empty one included, and `?` matches one character. No other character is
//! special.
//!
//! After a mismatch, matching continues at the latest `*`, which then matches one more character. Earlier `*` need not
//! be tried again, because the latest `*` can match every text that an earlier one could match. A match therefore takes
//! at most text length × pattern length steps, even for hostile input.

/// A set of models, as globs over their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelGlobs(Vec<Box<str>>);

impl ModelGlobs {
    /// The models that match at least one of `patterns`. Without a pattern, all models.
    pub fn new<P: Into<Box<str>>>(patterns: impl IntoIterator<Item = P>) -> Self {
        Self(patterns.into_iter().map(Into::into).collect())
    }

    /// Whether the set contains `model`.
    pub fn matches(&self, model: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| matches(pattern, model))
    }

    /// Whether the set contains all models because it has no pattern.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// The patterns as written; none if the set contains all models.
    pub fn patterns(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }
}

/// Whether the whole `text` matches `pattern`.
fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // The pattern after the latest `*`, and the text at which it is tried next.
    let mut retry = None;
    loop {
        let (mut rest, mut after) = (pattern.clone(), text.clone());
        match (rest.next(), after.next()) {
            (Some('*'), _) if rest.as_str().is_empty() => return true,
            (Some('*'), _) => {
                retry = Some((rest.clone(), text.clone()));
                pattern = rest;
            }
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => {
                pattern = rest;
                text = after;
            }
            (None, None) => return true,
            _ => {
                let Some((rest, start)) = &mut retry else { return false };
                if start.next().is_none() {
                    return false;
                }
                pattern = rest.clone();
                text = start.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition as a recursive function, which takes exponential time.
    fn matches_by_definition(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skip| matches_by_definition(rest, &text[skip..])),
            Some((wanted, rest)) => text
                .split_first()
                .is_some_and(|(found, text)| (*wanted == '?' || wanted == found) && matches_by_definition(rest, text)),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?é]{0,8}", text in "[abé*]{0,10}") {
            let (p, t): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(matches(&pattern, &text), matches_by_definition(&p, &t), "{} on {}", pattern, text);
        }

        #[test]
        fn a_text_with_a_part_replaced_by_wildcards_matches_itself(text in "[a-z0-9.-]{0,20}", from in 0..20usize, to in 0..20usize) {
            let (from, to) = (from.min(to).min(text.len()), from.max(to).min(text.len()));
            let (head, tail) = (&text[..from], &text[to..]);
            let starred = format!("{head}*{tail}");
            prop_assert!(matches(&starred, &text));
            let questioned = format!("{head}{}{tail}", "?".repeat(to - from));
            prop_assert!(matches(&questioned, &text));
        }
    }

    #[test]
    fn globs_over_names_of_models() {
        let globs = ModelGlobs::new(["gpt-5*", "o?"]);
        for (model, served) in [
            ("gpt-5", true),
            ("gpt-5.1-codex", true),
            ("gpt-4.1", false),
            ("o3", true),
            ("o3-mini", false),
            ("", false),
        ] {
            assert_eq!(globs.matches(model), served, "{model}");
        }
        assert!(ModelGlobs::default().is_all() && ModelGlobs::default().matches("anything"));
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        let pattern = format!("{}b", "*a".repeat(100));
        assert!(!matches(&pattern, &"a".repeat(100_000)));
    }
}

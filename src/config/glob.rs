//! Globs over model names: `*` stands for any text, also none, and `?` for one character. Nothing else is special.
//!
//! The only point to return to after a mismatch is the latest `*`: whatever an earlier one could have swallowed instead, the
//! latest can swallow too. So a match takes at most text × pattern steps, whatever a caller sends.

/// Which models an upstream serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelGlobs(Vec<Box<str>>);

impl ModelGlobs {
    /// The models that match any of `patterns`; without any pattern, all models.
    pub fn new<P: Into<Box<str>>>(patterns: impl IntoIterator<Item = P>) -> Self {
        Self(patterns.into_iter().map(Into::into).collect())
    }

    /// Whether `model` is among them.
    pub fn matches(&self, model: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| matches(pattern, model))
    }

    /// Whether no model is left out.
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// The patterns as written; none where all models are served.
    pub fn patterns(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(AsRef::as_ref)
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // Behind the latest `*`, and where in the text its rest is tried next.
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

    /// The definition, written down.
    fn oracle(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skip| oracle(rest, &text[skip..])),
            Some((wanted, rest)) => text
                .split_first()
                .is_some_and(|(found, text)| (*wanted == '?' || wanted == found) && oracle(rest, text)),
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*?é]{0,8}", text in "[abé*]{0,10}") {
            let (p, t): (Vec<_>, Vec<_>) = (pattern.chars().collect(), text.chars().collect());
            prop_assert_eq!(matches(&pattern, &text), oracle(&p, &t), "{} on {}", pattern, text);
        }

        #[test]
        fn a_pattern_cut_out_of_a_text_matches_it(text in "[a-z0-9.-]{0,20}", from in 0..20usize, to in 0..20usize) {
            let (from, to) = (from.min(to).min(text.len()), from.max(to).min(text.len()));
            let (head, tail) = (&text[..from], &text[to..]);
            let starred = format!("{head}*{tail}");
            prop_assert!(matches(&starred, &text));
            let questioned = format!("{head}{}{tail}", "?".repeat(to - from));
            prop_assert!(matches(&questioned, &text));
        }
    }

    #[test]
    fn names_of_models() {
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
    fn many_stars_do_not_explode() {
        let pattern = format!("{}b", "*a".repeat(100));
        assert!(!matches(&pattern, &"a".repeat(100_000)));
    }
}

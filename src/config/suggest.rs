//! Suggests the name that a user probably meant.

use std::cmp::Reverse;

/// The candidate that the user probably meant by `name`: one that is a few edits away, else one that contains `name` or is
/// contained in it. `None` if there is no such candidate.
pub(super) fn closest<'c>(name: &str, candidates: &[&'c str]) -> Option<&'c str> {
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let typed = name.to_ascii_lowercase().replace('-', "_");
    let edits = |candidate: &str| strsim::damerau_levenshtein(&typed, candidate);
    let near = candidates
        .iter()
        .copied()
        .min_by_key(|c| edits(c))
        .filter(|c| edits(c) <= (c.len() / 3).max(1));
    near.or_else(|| {
        let related = |c: &&str| typed.len() > 2 && (c.contains(&typed) || typed.contains(*c));
        candidates
            .iter()
            .copied()
            .filter(related)
            .max_by_key(|c| Reverse(c.len()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_suggested() {
        let fields = ["name", "base_url", "api_key", "weight", "ca"];
        for (typed, meant) in [
            ("wieght", Some("weight")),
            ("weigth", Some("weight")),
            ("BaseUrl", Some("base_url")),
            ("base-url", Some("base_url")),
            ("url", Some("base_url")),
            ("key", Some("api_key")),
            ("timeout", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(closest(typed, &fields), meant, "{typed}");
        }
        assert_eq!(closest(&"w".repeat(1_000_000), &fields), None);
    }
}

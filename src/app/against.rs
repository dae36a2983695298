//! Counts the sessions that a change of the configuration moves, and the upstreams to which they move.

use std::{collections::BTreeMap, fmt};

use crate::state::{Eligibility, Snapshot};

/// The number of sessions in the sample. A measured share is within 0.4 percentage points of the true one in 99 of 100 samples
/// (the standard deviation of the binomial distribution is at most 0.16 points).
const SAMPLE: u32 = 100_000;

/// The sessions of a sample whose home changes. `Display` prints how many in 100 move in total and between each two upstreams,
/// the largest numbers first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moves {
    /// The number of sessions in the sample.
    sample: u32,
    /// The old home, the new home, and the number of sessions that move between them.
    moves: Vec<(String, String, u32)>,
}

impl Moves {
    /// Compares the homes of the same sessions in both snapshots. The sessions name no model and no group.
    pub fn between(old: &Snapshot, new: &Snapshot) -> Self {
        let home = |snapshot: &Snapshot, key: &str| {
            let first = snapshot
                .route(snapshot.access.anonymous(), key, &Eligibility::All)
                .next();
            first.map_or_else(String::new, |upstream| upstream.name.to_string())
        };
        let mut moves = BTreeMap::new();
        for number in 0..SAMPLE {
            let key = format!("session-{number}");
            let (from, to) = (home(old, &key), home(new, &key));
            if from != to {
                *moves.entry((from, to)).or_insert(0) += 1;
            }
        }
        let mut moves: Vec<_> = moves.into_iter().map(|((from, to), count)| (from, to, count)).collect();
        // The sort is stable: equal numbers stay in the order of the names.
        moves.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
        Self { sample: SAMPLE, moves }
    }

    fn in_100(&self, count: u32) -> String {
        match f64::from(count) * 100.0 / f64::from(self.sample) {
            0.0 => "0".to_owned(),
            share if share < 0.1 => "<0.1".to_owned(),
            share => format!("{share:.1}"),
        }
    }
}

impl fmt::Display for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.moves.iter().map(|(_, _, count)| count).sum();
        write!(f, "{} of 100 sessions would move", self.in_100(all))?;
        let width = |name: fn(&(String, String, u32)) -> &str| self.moves.iter().map(|row| name(row).len()).max();
        // Without moves there are no rows to align.
        let (left, right) = (width(|row| &row.0).unwrap_or(0), width(|row| &row.1).unwrap_or(0));
        for (from, to, count) in &self.moves {
            write!(f, "\n  {from:left$} -> {to:right$}  {:>5}", self.in_100(*count))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_printed_with_one_decimal_and_zero_without() {
        let row = |from: &str, to: &str, count| (from.to_owned(), to.to_owned(), count);
        let moves = Moves {
            sample: 100_000,
            moves: vec![row("account-a", "b", 12_470), row("b", "account-c", 99)],
        };
        assert_eq!(
            moves.to_string(),
            "12.6 of 100 sessions would move\n  account-a -> b           12.5\n  b         -> account-c   <0.1"
        );
        let none = Moves {
            moves: Vec::new(),
            ..moves
        };
        assert_eq!(none.to_string(), "0 of 100 sessions would move");
    }
}

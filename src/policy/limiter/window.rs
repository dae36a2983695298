//! A sliding window over the last minute: the amounts that were used, each with its time.

use std::{collections::VecDeque, time::Duration};

use crate::tick::Tick;

/// The length of the window.
pub(super) const MINUTE: Duration = Duration::from_secs(60);
/// Amounts within this time are joined into one entry.
const JOINED: Duration = Duration::from_millis(250);

/// The amounts of the last minute, the oldest first, in at most 241 entries.
#[derive(Debug, Default)]
pub(super) struct Window {
    entries: VecDeque<WindowEntry>,
    /// The sum of all amounts in the window.
    sum: u64,
}

#[derive(Debug)]
struct WindowEntry {
    /// When the first part of the amount was added. It rises from entry to entry.
    first: Tick,
    /// When the last part of the amount was added.
    last: Tick,
    amount: u64,
}

impl Window {
    /// Returns the time until `amount` more is within `allowed`, or `None` if it is within `allowed` now.
    pub fn time_until_free(&mut self, amount: u64, allowed: u64, now: Tick) -> Option<Duration> {
        self.forget(now);
        let wanted = u128::from(self.sum) + u128::from(amount);
        let mut excess = wanted.saturating_sub(u128::from(allowed));
        if excess == 0 {
            return None;
        }
        for entry in &self.entries {
            excess = excess.saturating_sub(u128::from(entry.amount));
            if excess == 0 {
                return Some(entry.last.after(MINUTE).since(now));
            }
        }
        // `amount` alone exceeds `allowed`, so there is never enough capacity.
        Some(MINUTE)
    }

    /// Adds `amount` at this moment, and returns the moment under which it is remembered.
    pub fn add(&mut self, amount: u64, now: Tick) -> Tick {
        self.forget(now);
        self.sum = self.sum.saturating_add(amount);
        match self.entries.back_mut() {
            // This arm also takes an amount with a time before `first`: another thread read its clock later but came
            // first.
            Some(entry) if now.since(entry.first) < JOINED => {
                entry.amount = entry.amount.saturating_add(amount);
                entry.last = entry.last.max(now);
                entry.first
            }
            _ => {
                self.entries.push_back(WindowEntry {
                    first: now,
                    last: now,
                    amount,
                });
                now
            }
        }
    }

    /// Removes `amount` from the entry that is remembered under `moment`, unless the entry has expired.
    pub fn remove(&mut self, amount: u64, moment: Tick) {
        if let Some(entry) = self.entry_mut(moment) {
            let taken = amount.min(entry.amount);
            entry.amount -= taken;
            self.sum = self.sum.saturating_sub(taken);
        }
    }

    /// Undoes [`Window::remove`].
    pub fn restore(&mut self, amount: u64, moment: Tick) {
        if let Some(entry) = self.entry_mut(moment) {
            entry.amount = entry.amount.saturating_add(amount);
            self.sum = self.sum.saturating_add(amount);
        }
    }

    /// Returns the amount in the window, and the time until all of it has expired.
    pub fn used(&mut self, now: Tick) -> (u64, Duration) {
        self.forget(now);
        let youngest = self.entries.iter().rfind(|entry| entry.amount > 0);
        let reset = youngest.map_or(Duration::ZERO, |entry| entry.last.after(MINUTE).since(now));
        (self.sum, reset)
    }

    /// Returns the entry that is remembered under `moment`, unless it has expired.
    fn entry_mut(&mut self, moment: Tick) -> Option<&mut WindowEntry> {
        let at = self.entries.binary_search_by_key(&moment, |entry| entry.first).ok()?;
        self.entries.get_mut(at)
    }

    /// Drops the entries that are a whole minute old, because they are not in the same minute any more.
    fn forget(&mut self, now: Tick) {
        while let Some(entry) = self.entries.front()
            && now.since(entry.last) >= MINUTE
        {
            self.sum = self.sum.saturating_sub(entry.amount);
            self.entries.pop_front();
        }
        if self.entries.is_empty() {
            // An empty window ends a saturated sum.
            self.sum = 0;
        }
    }
}

/// Writes a duration as OpenAI does in `x-ratelimit-reset-…`: `120ms`, `1s`, `6m0s`. It is rounded up.
pub fn in_units(duration: Duration) -> String {
    let millis = duration.as_nanos().div_ceil(1_000_000);
    let seconds = millis.div_ceil(1000);
    match (millis, seconds) {
        (0, _) => "0s".to_owned(),
        (1..1000, _) => format!("{millis}ms"),
        (_, 1..60) => format!("{seconds}s"),
        _ => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_openai_does() {
        for (millis, written) in [
            (0, "0s"),
            (1, "1ms"),
            (999, "999ms"),
            (1000, "1s"),
            (1001, "2s"),
            (59_001, "1m0s"),
            (360_000, "6m0s"),
        ] {
            assert_eq!(in_units(Duration::from_millis(millis)), written);
        }
    }

    #[test]
    fn a_window_stays_small_and_is_exact_for_separate_amounts() {
        let mut window = Window::default();
        for step in 0..100_000_u64 {
            window.add(1, Tick::ZERO.after(Duration::from_millis(step)));
        }
        assert!(window.entries.len() <= 241, "{}", window.entries.len());
        let now = Tick::ZERO.after(Duration::from_secs(200));
        let mut window = Window::default();
        window.add(1, now);
        let later = now.after(Duration::from_millis(59_500));
        assert_eq!(window.time_until_free(1, 1, later), Some(Duration::from_millis(500)));
        assert_eq!(window.time_until_free(1, 1, now.after(MINUTE)), None);
    }
}

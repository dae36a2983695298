//! The requests that an upstream has lately sent back to this gateway.
//!
//! An upstream may be another gateway that leads back for one model and serves others, so loops are remembered for each
//! class of requests. They are no matter of health: if every upstream leads back, a request is still sent, and its client
//! gets the answer that names the loop.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;

use crate::{policy::RequestClass, tick::Tick};

/// How long a loop is remembered. Then one more request finds out whether it is still there.
const REMEMBERED: Duration = Duration::from_secs(60);
/// The minimum time between two log lines about the same upstream.
const LOG_PERIOD: Duration = Duration::from_secs(60);
/// The maximum number of classes that are remembered. The oldest loop is forgotten first.
const CLASSES_MAX: usize = 16;

/// The loops of one upstream.
#[derive(Default)]
pub(super) struct KnownLoops {
    /// When the last loop will be forgotten, in nanoseconds. Requests read only this while no loop is known.
    until: AtomicU64,
    memory: Mutex<LoopMemory>,
}

#[derive(Default)]
struct LoopMemory {
    /// The classes of requests that came back, and when each is forgotten; the oldest first.
    classes: Vec<(RequestClass, Tick)>,
    logged: Option<Tick>,
}

impl KnownLoops {
    /// Records that a request of this class came back.
    pub fn record(&self, class: RequestClass, now: Tick) {
        let until = now.after(REMEMBERED);
        let mut memory = self.memory.lock();
        memory.classes.retain(|(known, until)| *known != class && now < *until);
        if memory.classes.len() == CLASSES_MAX {
            memory.classes.remove(0);
        }
        memory.classes.push((class, until));
        self.until.store(until.as_nanos(), Relaxed);
    }

    /// Whether a request of this class came back lately.
    #[inline]
    pub fn contain(&self, class: RequestClass, now: Tick) -> bool {
        now.as_nanos() < self.until.load(Relaxed) && self.remember(class, now)
    }

    #[cold]
    fn remember(&self, class: RequestClass, now: Tick) -> bool {
        let memory = self.memory.lock();
        let mut classes = memory.classes.iter();
        classes.any(|(known, until)| *known == class && now < *until)
    }

    /// Forgets all loops, because the configuration or the operator may have ended them.
    pub fn forget(&self) {
        self.memory.lock().classes.clear();
        self.until.store(0, Relaxed);
    }

    /// Whether to log now that the upstream leads back to this gateway.
    pub fn may_log(&self, now: Tick) -> bool {
        let logged = &mut self.memory.lock().logged;
        let is_due = logged.is_none_or(|logged| now.since(logged) >= LOG_PERIOD);
        if is_due {
            *logged = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ModelKey;

    fn of_model(name: &str) -> RequestClass {
        RequestClass::generation(Some(ModelKey::from_name(name)))
    }

    fn at(secs: u64) -> Tick {
        Tick::ZERO.after(Duration::from_secs(secs))
    }

    #[test]
    fn a_loop_concerns_requests_of_its_class_for_a_minute() {
        let loops = KnownLoops::default();
        let (one, other) = (of_model("one"), of_model("other"));
        assert!(!loops.contain(one, at(1)));
        loops.record(one, at(1));
        assert!(loops.contain(one, at(60)) && !loops.contain(other, at(60)));
        loops.record(other, at(30));
        assert!(!loops.contain(one, at(61)) && loops.contain(other, at(89)));
        assert!(!loops.contain(other, at(90)));
        loops.record(one, at(100));
        loops.forget();
        assert!(!loops.contain(one, at(100)));
    }

    #[test]
    fn the_number_of_remembered_classes_is_limited() {
        let loops = KnownLoops::default();
        for number in 0..2 * CLASSES_MAX {
            loops.record(of_model(&number.to_string()), at(1));
        }
        let known = (0..2 * CLASSES_MAX).map(|number| loops.contain(of_model(&number.to_string()), at(2)));
        let expected = (0..2 * CLASSES_MAX).map(|number| number >= CLASSES_MAX);
        assert!(known.eq(expected));
    }
}

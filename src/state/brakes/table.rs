//! The bounded table of sessions and pools that have a failure to remember.

use std::{collections::HashMap, hash::Hash};

use super::{
    key::{BrakeKeys, ClassSession, PoolKey},
    probes::Probes,
};
use crate::{
    policy::{Brake, avoidance::Avoidance, brake::PoolBrake},
    tick::Tick,
};

/// The maximum number of sessions with an entry. Above this number, the entry that has not changed for the longest time
/// is dropped.
pub(super) const MAX_SESSIONS: usize = 4096;
/// The maximum number of pools with an entry.
pub(super) const MAX_POOLS: usize = 256;

/// The sessions and pools that have a failure to remember.
#[derive(Default)]
pub(super) struct BrakeTable {
    sessions: HashMap<ClassSession, SessionTrouble>,
    pools: HashMap<PoolKey, PoolTrouble>,
}

/// The failures of one session.
pub(super) struct SessionTrouble {
    pub brake: Brake,
    pub avoidance: Avoidance,
    /// The time of the last failure.
    pub changed: Tick,
}

/// The failures of one pool.
struct PoolTrouble {
    brake: PoolBrake,
    /// The time of the last failure.
    changed: Tick,
}

impl SessionTrouble {
    fn new(now: Tick) -> Self {
        Self {
            brake: Brake::of_session(),
            avoidance: Avoidance::default(),
            changed: now,
        }
    }
}

impl BrakeTable {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.sessions.len() + self.pools.len()
    }

    /// The entry of a session, if it has one.
    pub fn session_mut(&mut self, key: ClassSession) -> Option<&mut SessionTrouble> {
        self.sessions.get_mut(&key)
    }

    /// The entry of a session that has failed now.
    pub fn session_or_new(&mut self, key: ClassSession, now: Tick) -> &mut SessionTrouble {
        make_room(&mut self.sessions, &key, MAX_SESSIONS, |trouble| trouble.changed);
        let trouble = self.sessions.entry(key);
        let trouble = trouble.or_insert_with(|| SessionTrouble::new(now));
        trouble.changed = now;
        trouble
    }

    /// The brake of a pool, if it has one.
    pub fn pool_mut(&mut self, key: &PoolKey) -> Option<&mut PoolBrake> {
        self.pools.get_mut(key).map(|trouble| &mut trouble.brake)
    }

    /// The brake of a pool that has failed now.
    pub fn pool_or_new(&mut self, key: &PoolKey, now: Tick) -> &mut PoolBrake {
        make_room(&mut self.pools, key, MAX_POOLS, |trouble| trouble.changed);
        let trouble = self.pools.entry(*key).or_insert_with(|| PoolTrouble {
            brake: PoolBrake::default(),
            changed: now,
        });
        trouble.changed = now;
        &mut trouble.brake
    }

    /// Drops the pools that `is_ended` selects. Returns those whose brake had begun.
    pub fn end_pools(&mut self, mut is_ended: impl FnMut(&PoolKey) -> bool) -> Vec<PoolKey> {
        let mut ended = Vec::new();
        self.pools.retain(|key, trouble| {
            let is_kept = !is_ended(key);
            if !is_kept && trouble.brake.is_braking() {
                ended.push(*key);
            }
            is_kept
        });
        ended
    }

    /// Gives back the permissions of a probe.
    pub fn release(&mut self, keys: &BrakeKeys, probes: Probes) {
        if let Some(probe) = probes.session
            && let Some(trouble) = keys.class_session().and_then(|session| self.session_mut(session))
        {
            trouble.brake.release(probe);
        }
        if let Some(probe) = probes.pool
            && let Some(pool) = self.pool_mut(&keys.pool)
        {
            pool.release(probe);
        }
    }

    /// Drops the entries that have nothing to remember. Returns the pools whose brake had begun.
    pub fn drop_forgotten(&mut self, now: Tick) -> Vec<PoolKey> {
        self.sessions
            .retain(|_, trouble| !trouble.brake.is_forgotten(now) || trouble.avoidance.upstreams(now).next().is_some());
        let forgotten: Vec<PoolKey> = self
            .pools
            .iter()
            .filter(|(_, trouble)| trouble.brake.is_forgotten(now))
            .map(|(key, _)| *key)
            .collect();
        self.end_pools(|key| forgotten.contains(key))
    }

    /// Drops all entries. Returns the pools whose brake had begun.
    pub fn clear(&mut self) -> Vec<PoolKey> {
        self.sessions.clear();
        self.end_pools(|_| true)
    }
}

/// Drops the entry of `map` that has not changed for the longest time, if there is no room for `key`.
fn make_room<K: Eq + Hash + Copy, V>(map: &mut HashMap<K, V>, key: &K, capacity: usize, changed: impl Fn(&V) -> Tick) {
    if map.len() < capacity || map.contains_key(key) {
        return;
    }
    let oldest = map.iter().min_by_key(|(_, value)| changed(value)).map(|(key, _)| *key);
    if let Some(oldest) = oldest {
        map.remove(&oldest);
    }
}

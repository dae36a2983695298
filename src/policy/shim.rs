#![allow(missing_docs)]
use crate::{ids::*, policy::Source, tick::Tick};
use std::time::Duration;
pub struct AffinityTable<K>(std::marker::PhantomData<K>);
impl<K> AffinityTable<K> {
    pub fn new(_c: usize, _i: Duration) -> Self {
        Self(std::marker::PhantomData)
    }
    pub fn get(&self, _k: K, _n: Tick) -> Option<UpstreamId> {
        None
    }
    pub fn peek(&self, _k: K, _n: Tick) -> Option<UpstreamId> {
        None
    }
    pub fn confirm(&self, _k: K, _s: Option<UpstreamId>, _u: UpstreamId, _n: Tick) {}
    pub fn len(&self) -> usize {
        0
    }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Home,
    Pin,
    Moved,
    Owner,
    Keyless,
}
impl Route {
    pub const COUNT: usize = 5;
    pub fn label(self) -> &'static str {
        "home"
    }
}
#[derive(Clone, Copy, Debug)]
pub struct Affinity {
    pub key: Option<SessionKey>,
    pub owner: Option<UpstreamId>,
}
pub struct Clues;
pub fn sources(_: &[Source]) {}

//! The state of a simulated account, which all of its requests share.

use std::sync::Arc;

use parking_lot::Mutex;

use super::cache::PromptCache;
use super::config::SimConfig;
use super::issued::IssuedObjects;
use super::objects::OwnedObjects;
use super::recorder::{Recording, RequestRecorder};
use super::script::Script;
use crate::tick::Clock;

/// The state that all requests of an account share.
pub(super) struct Account {
    pub config: SimConfig,
    pub clock: Clock,
    pub cache: Mutex<PromptCache>,
    pub issued: IssuedObjects,
    pub objects: OwnedObjects,
    pub script: Script,
    pub recorder: Arc<RequestRecorder>,
}

impl Account {
    /// Creates an account that has seen no request yet.
    pub(super) fn new(config: SimConfig) -> Self {
        let clock = Clock::start();
        let recording = if config.record {
            Recording::WholeRequests
        } else {
            Recording::CountersOnly
        };
        Self {
            cache: Mutex::new(PromptCache::new(config.cache_marks, config.cache_ttl)),
            issued: IssuedObjects::new(&config.name),
            objects: OwnedObjects::default(),
            script: Script::default(),
            recorder: Arc::new(RequestRecorder::new(clock, recording)),
            clock,
            config,
        }
    }
}

#![allow(missing_docs)]
use crate::{ids::*, policy::Source, tick::Tick};
use std::{collections::HashMap, hash::Hash, time::Duration};
pub struct AffinityTable<K>(parking_lot::Mutex<HashMap<K, UpstreamId>>);
impl<K: Eq + Hash> AffinityTable<K> {
    pub fn new(_c: usize, _i: Duration) -> Self {
        Self(Default::default())
    }
    pub fn get(&self, k: K, _n: Tick) -> Option<UpstreamId> {
        self.0.lock().get(&k).copied()
    }
    pub fn peek(&self, k: K, _n: Tick) -> Option<UpstreamId> {
        self.0.lock().get(&k).copied()
    }
    pub fn confirm(&self, k: K, _s: Option<UpstreamId>, u: UpstreamId, _n: Tick) {
        self.0.lock().insert(k, u);
    }
    pub fn len(&self) -> usize {
        self.0.lock().len()
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
        match self {
            Self::Home => "home",
            Self::Pin => "pin",
            Self::Moved => "moved",
            Self::Owner => "owner",
            Self::Keyless => "keyless",
        }
    }
}
#[derive(Clone, Copy, Debug)]
pub struct Affinity {
    pub key: Option<SessionKey>,
    pub owner: Option<UpstreamId>,
}
pub struct Clues<'a> {
    pub namespace: Namespace,
    pub prompt_cache_key: Option<&'a str>,
    pub session_id: Option<&'a str>,
    pub headers: &'a http::HeaderMap,
    pub owner: Option<UpstreamId>,
    pub content: Option<(&'a [u8], &'a [u8])>,
}
impl Affinity {
    pub fn find(sources: &[Source], clues: &Clues<'_>) -> Self {
        let mut found = Self { key: None, owner: None };
        for source in sources {
            let text = match source {
                Source::PromptCacheKey => clues.prompt_cache_key,
                Source::ClientSessionId => clues.session_id,
                Source::Header(name) => clues.headers.get(name).and_then(|v| v.to_str().ok()),
                Source::Owner => {
                    found.owner = clues.owner;
                    None
                }
                Source::Content => {
                    if found.key.is_none() && found.owner.is_none() {
                        found.key = clues
                            .content
                            .map(|(a, b)| SessionKey::from_content(clues.namespace, a, b));
                    }
                    None
                }
            };
            if found.key.is_none()
                && let Some(text) = text
                && !text.trim().is_empty()
            {
                found.key = Some(SessionKey::from_text(clues.namespace, text));
            }
        }
        found
    }
}

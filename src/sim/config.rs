//! The configuration of a simulated account.

use std::time::Duration;

use crate::secret::Secret;

/// The configuration of a simulated account.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// The name, which is the account's identity: 1 to 64 visible ASCII characters.
    pub name: String,
    /// The time between two events of a stream; zero means no delay. A response in one piece is delayed by the time
    /// that its text would take to stream.
    pub pace: Duration,
    /// The number of pieces of text in an answer, at least 1.
    pub deltas: usize,
    /// The models in the account's list.
    pub models: Vec<String>,
    /// Whether a model that is not in the list is refused with 404 `model_not_found`.
    pub only_models: bool,
    /// The only credential that the account accepts; `None` means any credential, or none.
    pub api_key: Option<Secret>,
    /// Whether the response to a request without `x-codex-turn-state` carries that header.
    pub turn_state: bool,
    /// Whether the account refuses turn states, previous responses and encrypted items that it did not issue. Ids of
    /// other objects that it did not make are refused always.
    pub refuse_foreign: bool,
    /// How long a background response or a batch is in progress.
    pub background: Duration,
    /// Whether the last event of a stream gives the response another id than its first event, as some upstreams do.
    /// The account accepts both ids afterwards.
    pub changes_ids: bool,
    /// How long a prompt stays cached after its last use.
    pub cache_ttl: Duration,
    /// The number of positions in prompts that the cache remembers, at about 50 bytes each. A prompt of 40 KB has about
    /// 150 positions. Zero means no cache.
    pub cache_marks: usize,
    /// Whether requests are recorded for [`Sim::requests`](super::Sim::requests).
    pub record: bool,
}

impl Default for SimConfig {
    fn default() -> Self {
        let models = ["gpt-5.2", "gpt-5.2-codex", "gpt-5-mini", "text-embedding-3-small"];
        Self {
            name: "sim".to_owned(),
            pace: Duration::ZERO,
            deltas: 8,
            models: models.map(str::to_owned).to_vec(),
            only_models: false,
            api_key: None,
            turn_state: true,
            refuse_foreign: true,
            background: Duration::from_millis(200),
            changes_ids: false,
            cache_ttl: Duration::from_secs(3600),
            cache_marks: 100_000,
            record: false,
        }
    }
}

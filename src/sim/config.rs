//! The configuration of a simulated account.

use std::time::Duration;

use crate::secret::Secret;

/// What an account is like.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Its identity: 1 to 64 visible ASCII characters.
    pub name: String,
    /// Time between two events of a stream; zero: as fast as it goes. An answer in one piece takes as long as its
    /// text would take to stream.
    pub pace: Duration,
    /// Pieces of text in an answer, at least 1.
    pub deltas: usize,
    /// The models in its list.
    pub models: Vec<String>,
    /// Whether a model that is not in the list is refused, as 404 `model_not_found`.
    pub only_models: bool,
    /// The only credential that it accepts; `None`: any, or none.
    pub api_key: Option<Secret>,
    /// Whether a request without `x-codex-turn-state` gets one in its response.
    pub turn_state: bool,
    /// Whether it refuses turn states, response ids and encrypted items that it did not issue.
    pub refuse_foreign: bool,
    /// How long a prompt stays cached after its last use.
    pub cache_ttl: Duration,
    /// Places in prompts that the cache remembers, at some 50 bytes each; a 40 KB prompt has about 150. Zero: no cache.
    pub cache_marks: usize,
    /// Whether requests are kept for [`Sim::requests`].
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
            cache_ttl: Duration::from_secs(3600),
            cache_marks: 100_000,
            record: false,
        }
    }
}

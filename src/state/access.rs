//! Who may call, and what: client keys and their groups, compiled for look-ups.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    metrics::{GroupMetrics, Metrics},
    rate_limits::{RateLimitTable, RateLimits},
    upstream::organization,
};
use crate::{
    config::{self, BaseUrl, Config, ModelGlobs},
    fault::KeyProblem,
    ids::{Namespace, UpstreamId},
    policy::limiter::Quota,
};

/// What is longer is no key, and is not worth hashing.
const LONGEST_KEY: usize = 512;

/// The SHA-256 of a client key.
type KeyDigest = [u8; 32];

/// Client keys and groups.
pub struct Access {
    /// `None` where anybody may call.
    keys: Option<HashMap<KeyDigest, Arc<ClientKey>>>,
    /// In the order of the file.
    groups: Box<[Arc<Group>]>,
    /// Whom callers without keys belong to, where anybody may call.
    anybody: Arc<Group>,
}

/// A client key.
pub struct ClientKey {
    /// Its name, for the log.
    pub name: Arc<str>,
    /// Whom it belongs to.
    pub group: Arc<Group>,
    /// What it has used, which outlives this snapshot; none where it is not limited.
    pub rate_limits: Option<Arc<RateLimits>>,
    /// The second of Unix time from which on it is good no more.
    expires: Option<u64>,
    disabled: bool,
}

/// Callers who share sessions, response state and rights.
pub struct Group {
    /// Its name; empty for anybody.
    pub name: Arc<str>,
    /// Keeps its sessions and its state apart from those of others.
    pub namespace: Namespace,
    /// The models that it may use.
    pub models: ModelGlobs,
    /// Whether others may call the accounts that it may call: what those hold is then not all its own.
    pub shares_accounts: bool,
    /// How much each of its keys may use.
    pub quota: Quota,
    /// Its counts; none for anybody.
    pub metrics: Option<Arc<GroupMetrics>>,
    /// Its place in the file; none for anybody.
    pub(super) index: Option<usize>,
    /// The upstreams that it may call; `None` for all.
    upstreams: Option<Box<[UpstreamId]>>,
}

impl Access {
    pub(super) fn compile(config: &Config, rate_limits: &RateLimitTable, metrics: &Metrics) -> Self {
        let accounts = Accounts::of(config);
        let groups: Box<[Arc<Group>]> = config
            .groups
            .iter()
            .enumerate()
            .map(|(index, group)| Arc::new(Group::compile(index, group, &accounts, metrics)))
            .collect();
        let mut keys = config.has_client_keys.then(HashMap::new);
        for configured in &config.keys {
            // The configuration has been checked: there is one.
            let Some(compiled) = groups.iter().find(|group| *group.name == *configured.group) else {
                continue;
            };
            let name: Arc<str> = configured.name.as_str().into();
            let is_limited = !compiled.quota.is_unlimited();
            let key = Arc::new(ClientKey {
                rate_limits: is_limited.then(|| rate_limits.of(&name)),
                name,
                group: compiled.clone(),
                expires: configured.expires,
                disabled: configured.disabled,
            });
            for digest in &configured.digests {
                keys.get_or_insert_with(HashMap::new).insert(*digest, key.clone());
            }
        }
        Self {
            keys,
            groups,
            anybody: Arc::new(Group::anybody()),
        }
    }

    /// Holds from now on: keys may use what their groups say.
    pub(super) fn take_effect(&self) {
        for key in self.keys.iter().flat_map(HashMap::values) {
            if let Some(rate_limits) = &key.rate_limits {
                rate_limits.set_quota(key.group.quota);
            }
        }
    }

    /// Whether anybody may call; otherwise a client key is needed.
    pub fn is_open(&self) -> bool {
        self.keys.is_none()
    }

    /// Whom a caller belongs to where anybody may call.
    pub fn anybody(&self) -> &Arc<Group> {
        &self.anybody
    }

    /// Every group, in the order of the file.
    pub fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }

    /// The group called `name`; without a name, anybody.
    pub fn group(&self, name: Option<&str>) -> Option<&Arc<Group>> {
        match name {
            None => Some(&self.anybody),
            Some(name) => self.groups.iter().find(|group| *group.name == *name),
        }
    }

    /// The key that a caller shows at the second `now` of Unix time.
    ///
    /// How long this takes depends on the hash of what was shown only, and nobody can choose that so as to come nearer to
    /// a key: SHA-256 is preimage resistant, and keys are random.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn find(&self, shown: &[u8], now: u64) -> Result<&Arc<ClientKey>, KeyProblem> {
        if shown.is_empty() || shown.len() > LONGEST_KEY {
            return Err(KeyProblem::Unknown);
        }
        let digest = KeyDigest::from(Sha256::digest(shown));
        let known = self.keys.as_ref().and_then(|keys| keys.get_key_value(&digest));
        let (known, key) = known.ok_or(KeyProblem::Unknown)?;
        if !bool::from(known.ct_eq(&digest)) {
            return Err(KeyProblem::Unknown);
        }
        match key {
            key if key.disabled => Err(KeyProblem::Disabled),
            key if key.expires.is_some_and(|expires| expires <= now) => Err(KeyProblem::Expired),
            key => Ok(key),
        }
    }
}

impl Group {
    fn anybody() -> Self {
        Self {
            name: "".into(),
            namespace: Namespace::of_group(""),
            models: ModelGlobs::default(),
            shares_accounts: false,
            quota: Quota::default(),
            metrics: None,
            index: None,
            upstreams: None,
        }
    }

    fn compile(index: usize, group: &config::Group, accounts: &Accounts<'_>, metrics: &Metrics) -> Self {
        let named = group.upstreams.as_ref();
        Self {
            name: group.name.as_str().into(),
            namespace: Namespace::of_group(&group.name),
            models: group.models.clone(),
            shares_accounts: accounts.are_shared(group),
            quota: Quota::from(group),
            metrics: Some(metrics.group(&group.name)),
            index: Some(index),
            upstreams: named.map(|names| names.iter().map(|name| UpstreamId::from_name(name)).collect()),
        }
    }

    /// Whether it may call `upstream`.
    pub fn may_call(&self, upstream: UpstreamId) -> bool {
        self.upstreams
            .as_ref()
            .is_none_or(|upstreams| upstreams.contains(&upstream))
    }
}

/// What is one account, of which groups: upstreams are of one account where they are of one organization, or are called at
/// one place with one key.
struct Accounts<'a> {
    /// The account of each upstream, by name: the place of one of its upstreams in the file.
    of_upstreams: HashMap<&'a str, usize>,
    /// How many groups may call each account.
    groups: HashMap<usize, usize>,
}

/// However the two are written: a port may be, or may be left out.
fn is_one_place(a: &BaseUrl, b: &BaseUrl) -> bool {
    let host = |url: &BaseUrl| url.host().trim_end_matches('.').to_ascii_lowercase();
    a.port() == b.port() && host(a) == host(b)
}

impl<'a> Accounts<'a> {
    fn of(config: &'a Config) -> Self {
        let is_one = |a: &config::Upstream, b: &config::Upstream| {
            organization(a) == organization(b) || is_one_place(&a.base_url, &b.base_url) && a.api_key == b.api_key
        };
        let mut accounts: Vec<usize> = Vec::with_capacity(config.upstreams.len());
        for (place, upstream) in config.upstreams.iter().enumerate() {
            let same: HashSet<usize> = accounts
                .iter()
                .zip(&config.upstreams)
                .filter_map(|(account, other)| is_one(upstream, other).then_some(*account))
                .collect();
            for account in &mut accounts {
                if same.contains(account) {
                    *account = place;
                }
            }
            accounts.push(place);
        }
        let names = config.upstreams.iter().map(|upstream| upstream.name.as_str());
        let mut found = Self {
            of_upstreams: names.zip(accounts).collect(),
            groups: HashMap::new(),
        };
        for group in &config.groups {
            for account in found.called_by(group) {
                *found.groups.entry(account).or_default() += 1;
            }
        }
        found
    }

    fn called_by(&self, group: &config::Group) -> HashSet<usize> {
        match &group.upstreams {
            Some(names) => names
                .iter()
                .filter_map(|name| self.of_upstreams.get(name.as_str()).copied())
                .collect(),
            None => self.of_upstreams.values().copied().collect(),
        }
    }

    fn are_shared(&self, group: &config::Group) -> bool {
        let is_shared = |account| self.groups.get(account).is_some_and(|groups| *groups > 1);
        self.called_by(group).iter().any(is_shared)
    }
}

impl From<&config::Group> for Quota {
    fn from(group: &config::Group) -> Self {
        Self {
            requests_per_minute: group.requests_per_minute,
            tokens_per_minute: group.tokens_per_minute,
            max_concurrent: group.max_concurrent,
        }
    }
}

//! Client keys and their groups, compiled for look-ups. They decide which callers may send which requests.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{metrics::GroupMetrics, rate_limits::RateLimits, runtime::RuntimeState, upstream::organization};
use crate::{
    config::{self, BaseUrl, Config, ModelGlobs},
    fault::KeyProblem,
    ids::{Namespace, UpstreamId},
    policy::limiter::Quota,
    wire::BodyAccount,
};

/// The maximum length of a client key in bytes. A longer text is refused without being hashed.
const LONGEST_KEY: usize = 512;

/// The SHA-256 of a client key.
type KeyDigest = [u8; 32];

/// The client keys and groups of a snapshot.
pub struct Access {
    /// The client keys by their digests; `None` if callers need no key.
    keys: Option<HashMap<KeyDigest, Arc<ClientKey>>>,
    /// The groups, in the order of the file.
    groups: Box<[Arc<Group>]>,
    /// The group of callers without a key. It is used only if callers need no key.
    anonymous: Arc<Group>,
}

/// A client key.
pub struct ClientKey {
    /// The name, for the log.
    pub name: Arc<str>,
    /// The group that the key belongs to.
    pub group: Arc<Group>,
    /// The usage of the key's limits, which outlives this snapshot; `None` if the key has no limits.
    pub rate_limits: Option<Arc<RateLimits>>,
    /// The memory that the request bodies of the key hold, which outlives this snapshot.
    pub body_account: Arc<BodyAccount>,
    /// The first second of Unix time at which the key is no longer valid.
    expires: Option<u64>,
    /// Whether the operator has disabled the key.
    disabled: bool,
}

/// Callers that share sessions, response state and rights.
pub struct Group {
    /// The name; empty for anonymous callers.
    pub name: Arc<str>,
    /// Keeps the sessions and the state of this group apart from those of other groups.
    pub namespace: Namespace,
    /// The models that the group may use.
    pub models: ModelGlobs,
    /// Whether another group may call an account that this group may call. The account may then hold state of the other
    /// group.
    pub shares_accounts: bool,
    /// The limits of each client key of the group.
    pub quota: Quota,
    /// The metrics of this group's requests; `None` for anonymous callers.
    pub metrics: Option<Arc<GroupMetrics>>,
    /// The position in the file; `None` for anonymous callers.
    pub(super) index: Option<usize>,
    /// The upstreams that the group may call; `None` for all.
    upstreams: Option<Box<[UpstreamId]>>,
}

impl Access {
    pub(super) fn compile(config: &Config, runtime: &RuntimeState) -> Self {
        let accounts = Accounts::new(config);
        let groups: Box<[Arc<Group>]> = config
            .groups
            .iter()
            .enumerate()
            .map(|(index, group)| Arc::new(Group::compile(index, group, &accounts, runtime)))
            .collect();
        let mut keys = config.has_client_keys.then(HashMap::new);
        for configured in &config.keys {
            let group = groups.iter().find(|group| *group.name == *configured.group);
            let group = group.expect("a configuration in which a key names an unknown group is refused");
            let name: Arc<str> = configured.name.as_str().into();
            let is_limited = !group.quota.is_unlimited();
            let key = Arc::new(ClientKey {
                body_account: runtime.body_accounts.of_key(&name),
                rate_limits: is_limited.then(|| runtime.rate_limits.get_or_new(&name)),
                name,
                group: group.clone(),
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
            anonymous: Arc::new(Group::anonymous()),
        }
    }

    /// The quota and the usage of each client key that has a quota.
    pub(super) fn quotas(&self) -> impl Iterator<Item = (&RateLimits, Quota)> {
        let keys = self.keys.iter().flat_map(HashMap::values);
        keys.filter_map(|key| Some((key.rate_limits.as_deref()?, key.group.quota)))
    }

    /// Whether callers need no client key.
    pub fn is_open(&self) -> bool {
        self.keys.is_none()
    }

    /// The group of callers without a client key. It is used only if callers need no key.
    pub fn anonymous(&self) -> &Arc<Group> {
        &self.anonymous
    }

    /// Every group, in the order of the file.
    pub fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }

    /// The group called `name`; without a name, the group of anonymous callers.
    pub fn group(&self, name: Option<&str>) -> Option<&Arc<Group>> {
        match name {
            None => Some(&self.anonymous),
            Some(name) => self.groups.iter().find(|group| *group.name == *name),
        }
    }

    /// Finds the client key in `presented`, which a caller sent at the second `now` of Unix time.
    ///
    /// The time that this takes depends only on the digest of `presented`. An attacker cannot choose texts by their digests
    /// to come closer to a key, because SHA-256 is preimage resistant and keys are random.
    ///
    /// # Errors
    /// If the key is unknown, disabled or expired.
    pub fn find(&self, presented: &[u8], now: u64) -> Result<&Arc<ClientKey>, KeyProblem> {
        if presented.is_empty() || presented.len() > LONGEST_KEY {
            return Err(KeyProblem::Unknown);
        }
        let digest = KeyDigest::from(Sha256::digest(presented));
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
    fn anonymous() -> Self {
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

    fn compile(index: usize, group: &config::Group, accounts: &Accounts<'_>, runtime: &RuntimeState) -> Self {
        let named = group.upstreams.as_ref();
        let name: Arc<str> = group.name.as_str().into();
        Self {
            metrics: Some(runtime.group_metrics_or_new(&name)),
            name,
            namespace: Namespace::of_group(&group.name),
            models: group.models.clone(),
            shares_accounts: accounts.are_shared(group),
            quota: Quota::from(group),
            index: Some(index),
            upstreams: named.map(|names| names.iter().map(|name| UpstreamId::from_name(name)).collect()),
        }
    }

    /// Whether the group may call `upstream`.
    pub fn may_call(&self, upstream: UpstreamId) -> bool {
        self.upstreams
            .as_ref()
            .is_none_or(|upstreams| upstreams.contains(&upstream))
    }
}

/// The accounts behind the upstreams, and how many groups may call each.
///
/// Two upstreams belong to one account if they have the same organization, or the same address and the same API key.
struct Accounts<'a> {
    /// The account of each upstream, by the upstream's name. An account is the position of its last upstream in the file.
    of_upstreams: HashMap<&'a str, usize>,
    /// For each account, the number of groups that may call it.
    groups: HashMap<usize, usize>,
}

/// Whether two URLs have the same host and port, even if only one of them names the default port.
fn is_same_address(a: &BaseUrl, b: &BaseUrl) -> bool {
    let host = |url: &BaseUrl| url.host().trim_end_matches('.').to_ascii_lowercase();
    a.port() == b.port() && host(a) == host(b)
}

impl<'a> Accounts<'a> {
    fn new(config: &'a Config) -> Self {
        let is_same_account = |a: &config::Upstream, b: &config::Upstream| {
            organization(a) == organization(b) || is_same_address(&a.base_url, &b.base_url) && a.api_key == b.api_key
        };
        let mut accounts: Vec<usize> = Vec::with_capacity(config.upstreams.len());
        for (position, upstream) in config.upstreams.iter().enumerate() {
            let same: HashSet<usize> = accounts
                .iter()
                .zip(&config.upstreams)
                .filter_map(|(account, other)| is_same_account(upstream, other).then_some(*account))
                .collect();
            for account in &mut accounts {
                if same.contains(account) {
                    *account = position;
                }
            }
            accounts.push(position);
        }
        let names = config.upstreams.iter().map(|upstream| upstream.name.as_str());
        let mut compiled = Self {
            of_upstreams: names.zip(accounts).collect(),
            groups: HashMap::new(),
        };
        for group in &config.groups {
            for account in compiled.called_by(group) {
                *compiled.groups.entry(account).or_default() += 1;
            }
        }
        compiled
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

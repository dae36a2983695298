//! The configuration, compiled for requests: immutable, with everything prebuilt that each request would build anew.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    access::{Access, Group},
    metrics::Metrics,
    runtime::RuntimeState,
    upstream::{Line, Upstream, organization},
};
use crate::{
    config::{self, ApiKey, Config, ModelGlobs},
    ids::{SessionKey, UpstreamId},
    policy::{Member, Patience, Rendezvous, SessionSource},
    wire,
};

/// Bounds and times that requests are held to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest request body in bytes, as sent and decompressed.
    pub max_body: u64,
    /// Until the upstream's response head.
    pub head: Duration,
    /// Between two pieces of a body, either way.
    pub idle: Duration,
}

/// A compiled configuration.
pub struct Snapshot {
    /// In the order of the file.
    upstreams: Box<[Upstream]>,
    /// Who serves which session.
    pub rendezvous: Rendezvous,
    /// The distinct rights to upstreams; an upstream's eligibility class is its index here.
    classes: Box<[Class]>,
    /// Where session keys are looked for.
    pub sources: Box<[SessionSource]>,
    /// Bounds and times.
    pub limits: Limits,
    /// How long sessions wait for their own upstream.
    pub patience: Patience,
    /// How many upstreams a request is sent to at most.
    pub attempts: u32,
    /// Whether upstreams are told who calls.
    pub forwarded: bool,
    /// Whether responses say which upstream served them, and why.
    pub route_headers: bool,
    /// Who may call, and what.
    pub access: Access,
    /// Whether any upstream is called with the caller's own credential.
    pub has_passthrough: bool,
}

/// An upstream that cannot be set up.
#[derive(Debug)]
pub struct CompileError {
    upstream: String,
    problem: String,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upstream '{}': {}", self.upstream, self.problem)
    }
}

impl std::error::Error for CompileError {}

/// What upstreams have in common that decides whether they may serve a request.
#[derive(PartialEq)]
struct Class {
    models: ModelGlobs,
    /// For each group, in the order of the file, whether it may call them.
    groups: Box<[bool]>,
}

/// Which upstreams may serve a request: one flag for each class.
pub enum Eligibility {
    /// Every upstream.
    All,
    /// Those whose class is flagged.
    Classes(Box<[bool]>),
}

impl Eligibility {
    /// Whether members of `class` may serve the request.
    pub fn allows(&self, class: u16) -> bool {
        match self {
            Self::All => true,
            Self::Classes(classes) => classes.get(usize::from(class)).copied().unwrap_or(false),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::All => false,
            Self::Classes(classes) => !classes.contains(&true),
        }
    }
}

impl Snapshot {
    /// Compiles `config`. What outlives a snapshot comes from `runtime`; upstreams that are reached as in `previous` keep
    /// its connections.
    ///
    /// # Errors
    /// When an upstream's TLS cannot be set up.
    pub fn compile(
        config: &Config,
        runtime: &RuntimeState,
        metrics: &Metrics,
        previous: Option<&Self>,
    ) -> Result<Self, CompileError> {
        let access = Access::compile(config, &runtime.rate_limits, metrics);
        let mut classes: Vec<Class> = Vec::new();
        let mut members = Vec::with_capacity(config.upstreams.len());
        let mut upstreams = Vec::with_capacity(config.upstreams.len());
        for configured in &config.upstreams {
            let failed = |problem| CompileError {
                upstream: configured.name.clone(),
                problem,
            };
            let line = Line::of(configured, &config.timeouts);
            let warm = previous.and_then(|previous| previous.pool_of(configured, &line));
            let pool = warm.map_or_else(|| line.open(), Ok).map_err(failed)?;
            let upstream = Upstream::compile(configured, line, pool, runtime, metrics).map_err(failed)?;
            let class = Class {
                models: upstream.models.clone(),
                groups: access
                    .groups()
                    .iter()
                    .map(|group| group.may_call(upstream.id))
                    .collect(),
            };
            let class = match classes.iter().position(|known| *known == class) {
                Some(known) => known,
                None => {
                    classes.push(class);
                    classes.len() - 1
                }
            };
            let class = u16::try_from(class).map_err(|_| CompileError {
                upstream: configured.name.clone(),
                problem: "there are more than 65,536 different lists of models; share some".to_owned(),
            })?;
            members.push(Member {
                id: upstream.id,
                weight: upstream.weight,
                class,
                organization: organization(configured),
            });
            upstreams.push(upstream);
        }
        Ok(Self {
            rendezvous: Rendezvous::new(&members),
            upstreams: upstreams.into(),
            classes: classes.into(),
            access,
            sources: config.affinity.sources.clone().into(),
            limits: Limits {
                max_body: config.server.max_body,
                head: config.timeouts.head,
                idle: config.timeouts.idle,
            },
            patience: Patience {
                wait: config.affinity.wait,
                reread_rate: config.affinity.reread_rate,
                wait_max: config.affinity.wait_max,
            },
            attempts: config.retry.attempts,
            forwarded: config.server.forwarded,
            route_headers: config.server.route_headers,
            has_passthrough: config
                .upstreams
                .iter()
                .any(|upstream| upstream.api_key == ApiKey::Passthrough),
        })
    }

    /// Holds from now on: what outlives snapshots is set as this one has it.
    pub(super) fn take_effect(&self) {
        for upstream in &self.upstreams {
            upstream.state.set_slots(upstream.max_in_flight);
            upstream.state.reloaded();
        }
        self.access.take_effect();
    }

    /// Every upstream, in the order of the file.
    pub fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    fn pool_of(&self, configured: &config::Upstream, line: &Line) -> Option<Arc<wire::Pool>> {
        let id = UpstreamId::from_name(&configured.name);
        let known = self.upstreams.iter().find(|upstream| upstream.id == id)?;
        (known.line == *line).then(|| known.pool.clone())
    }

    /// The upstream at `index` of [`Snapshot::rendezvous`].
    pub fn upstream(&self, index: usize) -> Option<&Upstream> {
        self.upstreams.get(index)
    }

    /// Who may serve `model` to `group`; `None` where nobody does. A request that names no model may go to anyone who serves
    /// the group.
    pub fn eligibility(&self, group: &Group, model: Option<&str>) -> Option<Eligibility> {
        let is_open = |class: &Class| class.models.is_all() || model.is_none();
        if self.classes.iter().all(|class| is_open(class) && class.serves(group)) {
            return Some(Eligibility::All);
        }
        let serves = |class: &Class| class.serves(group) && model.is_none_or(|model| class.models.matches(model));
        let classes = Eligibility::Classes(self.classes.iter().map(serves).collect());
        if classes.is_empty() { None } else { Some(classes) }
    }

    /// The models that `group` may use, as they are configured; none where nothing is said about them.
    pub fn models_of(&self, group: &Group) -> Vec<String> {
        let allowed = &group.models;
        let serving = || self.classes.iter().filter(|class| class.serves(group));
        let theirs = serving().flat_map(|class| class.models.patterns().filter(|name| allowed.matches(name)));
        let is_served = |name: &&str| serving().any(|class| class.models.matches(name));
        let mut names: Vec<String> = theirs
            .chain(allowed.patterns().filter(is_served))
            .map(str::to_owned)
            .collect();
        if names.is_empty() {
            // Where the two only overlap, what is allowed says more.
            names = allowed.patterns().map(str::to_owned).collect();
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The upstream of this identity.
    pub fn upstream_of(&self, id: UpstreamId) -> Option<&Upstream> {
        self.rendezvous.position(id).and_then(|index| self.upstream(index))
    }

    /// The upstreams for `group`'s session key `text`, best first: the answer of `route`.
    pub fn route<'a>(
        &'a self,
        group: &Group,
        text: &str,
        eligibility: &'a Eligibility,
    ) -> impl Iterator<Item = &'a Upstream> {
        let key = SessionKey::from_text(group.namespace, text);
        self.rendezvous
            .ranked(key, |class| eligibility.allows(class))
            .filter_map(|index| self.upstream(index))
    }
}

impl Class {
    fn serves(&self, group: &Group) -> bool {
        group
            .index
            .is_none_or(|index| self.groups.get(index).copied().unwrap_or(false))
    }
}

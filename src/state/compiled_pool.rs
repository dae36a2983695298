//! The upstreams of a configuration, as they are compiled for a snapshot.

use std::{fmt, sync::Arc};

use super::{
    access::{Access, Group},
    runtime::RuntimeState,
    upstream::{ConnectionSettings, Upstream, organization},
};
use crate::{
    config::{self, Config, ModelGlobs},
    ids::UpstreamId,
    policy::Member,
    wire,
};

/// The problem if a configuration has more classes than a member's class can name.
const TOO_MANY_CLASSES: &str = "there are more than 65,536 different combinations of models and groups; configure the same models and groups for more upstreams";

/// An upstream cannot be set up.
#[derive(Debug)]
pub struct CompileError {
    upstream: String,
    problem: String,
}

impl CompileError {
    fn new(configured: &config::Upstream, problem: impl Into<String>) -> Self {
        Self {
            upstream: configured.name.clone(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "upstream '{}': {}", self.upstream, self.problem)
    }
}

impl std::error::Error for CompileError {}

/// The settings that decide whether an upstream may serve a request. Upstreams with the same settings share a class.
#[derive(PartialEq)]
pub(super) struct EligibilityClass {
    /// The models that the upstreams of this class serve.
    pub models: ModelGlobs,
    /// For each group, in the order of the file, whether it may call the upstreams of this class.
    groups: Box<[bool]>,
}

impl EligibilityClass {
    fn new(upstream: &Upstream, access: &Access) -> Self {
        let groups = access.groups().iter();
        Self {
            models: upstream.models.clone(),
            groups: groups.map(|group| group.may_call(upstream.id)).collect(),
        }
    }

    /// Whether the group may call the upstreams of this class.
    pub fn serves(&self, group: &Group) -> bool {
        group.index.is_none_or(|index| {
            let serves = self.groups.get(index);
            *serves.expect("a class and the groups are compiled from one configuration")
        })
    }
}

/// The pool of upstreams as it is being compiled.
#[derive(Default)]
pub(super) struct CompiledPool {
    /// The upstreams, in the order of the file.
    pub upstreams: Vec<Upstream>,
    /// The members of the rendezvous, in the same order.
    pub members: Vec<Member>,
    /// The distinct rights to upstreams.
    pub classes: Vec<EligibilityClass>,
}

impl CompiledPool {
    /// Compiles the upstreams of `config`, in its order. Those that are among `previous` with the same connection settings
    /// keep their connections.
    ///
    /// # Errors
    /// If an upstream cannot be set up, or if there are too many different rights.
    pub fn compile(
        config: &Config,
        access: &Access,
        runtime: &RuntimeState,
        previous: &[Upstream],
    ) -> Result<Self, CompileError> {
        let mut pool = Self::default();
        for configured in &config.upstreams {
            let settings = ConnectionSettings::new(configured, &config.timeouts);
            let failed = |problem| CompileError::new(configured, problem);
            let warm = connections_of(previous, configured, &settings);
            let connections = warm.map_or_else(|| settings.open_pool(), Ok).map_err(failed)?;
            let upstream = Upstream::compile(configured, settings, connections, runtime).map_err(failed)?;
            let class = pool.class_of(EligibilityClass::new(&upstream, access));
            pool.members.push(Member {
                id: upstream.id,
                weight: upstream.weight,
                class: u16::try_from(class).map_err(|_| CompileError::new(configured, TOO_MANY_CLASSES))?,
                organization: organization(configured),
            });
            pool.upstreams.push(upstream);
        }
        Ok(pool)
    }

    /// Returns the index of `class`, which is added if no upstream before has the same rights.
    fn class_of(&mut self, class: EligibilityClass) -> usize {
        let known = self.classes.iter().position(|known| *known == class);
        known.unwrap_or_else(|| {
            self.classes.push(class);
            self.classes.len() - 1
        })
    }
}

/// The connections of an upstream, if it is among `previous` with the same `settings`.
fn connections_of(
    previous: &[Upstream],
    configured: &config::Upstream,
    settings: &ConnectionSettings,
) -> Option<Arc<wire::Pool>> {
    let id = UpstreamId::from_name(&configured.name);
    let known = previous.iter().find(|known| known.id == id)?;
    (known.connection_settings == *settings).then(|| known.pool.clone())
}

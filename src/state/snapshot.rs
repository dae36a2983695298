//! The configuration, compiled for requests. It is immutable, and contains prepared values that each request would
//! otherwise compute again.

use std::time::Duration;

use http::HeaderValue;

use super::{
    access::{Access, Group},
    compiled_pool::{CompileError, CompiledPool, EligibilityClass},
    eligibility::{Eligibility, MemberStanding},
    model_knowledge::{KnownModel, ModelStanding},
    runtime::RuntimeState,
    upstream::Upstream,
};
use crate::{
    body_path::BodyPaths,
    config::{ApiKey, Config},
    ids::{ModelKey, SessionKey, UpstreamId},
    policy::{MemberIndex, Patience, Rendezvous, SessionSource, tokens::MediaCost},
    tick::Tick,
    wire,
};

/// Bounds and timeouts of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// The maximum body size in bytes, applied to the body as sent and after decompression.
    pub max_body: u64,
    /// The maximum time from sending the request to the upstream's response head.
    pub head: Duration,
    /// The maximum time after the upstream's response head for which a stream is held back until its first output.
    pub decide_within: Duration,
    /// The maximum number of bytes of a stream that are held back until its first output.
    pub decide_bytes: usize,
    /// The maximum time between two pieces of a body, in either direction.
    pub idle: Duration,
}

/// Which web pages may call the public listener.
#[derive(Debug)]
pub struct WebPageRules {
    /// Whether a request must name this machine as its host, if no client key is needed. The operator gives that up
    /// together with the loopback addresses, by `allow_anonymous`.
    pub checks_host: bool,
    /// The origins whose pages may call the listener, such as `https://app.example`, in lower case.
    allowed_origins: Box<[Box<str>]>,
}

impl WebPageRules {
    /// Whether pages of `origin` may call the listener.
    pub fn allows(&self, origin: &[u8]) -> bool {
        let mut allowed = self.allowed_origins.iter();
        allowed.any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(origin))
    }

    /// Whether pages of any origin may call the listener.
    #[inline]
    pub fn allows_some(&self) -> bool {
        !self.allowed_origins.is_empty()
    }
}

/// A compiled configuration. It is data: [`RuntimeState`] applies it to the state that outlives it. Its upstreams, groups
/// and client keys hold their part of that state, so that a request looks nothing up.
pub struct Snapshot {
    /// The upstreams, in the order of the file, which is also the order of the members of `rendezvous`.
    upstreams: Box<[Upstream]>,
    /// Decides which upstream serves which session.
    pub rendezvous: Rendezvous,
    /// The distinct rights to upstreams. The eligibility class of an upstream is an index into this.
    classes: Box<[EligibilityClass]>,
    /// The places in which session keys are looked for, in order.
    pub sources: Box<[SessionSource]>,
    /// The paths in the body among `sources`.
    pub body_paths: BodyPaths,
    /// Bounds and timeouts of each request.
    pub limits: RequestLimits,
    /// The minimum rate of request bodies.
    pub min_body_rate: wire::MinBodyRate,
    /// The rules for the time that a session waits for its own upstream.
    pub patience: Patience,
    /// The estimate of the tokens of images, recordings and files.
    pub media_cost: MediaCost,
    /// The maximum number of upstreams that a request is sent to.
    pub attempts: u32,
    /// Whether a request is sent to another upstream after its head timeout.
    pub retries_timeouts: bool,
    /// The maximum fraction of the upstreams that are ejected for failures at the same time.
    pub max_ejected: f64,
    /// Whether upstreams receive the caller's address in `forwarded` headers.
    pub forwarded: bool,
    /// Whether responses name the upstream that served them, and the route.
    pub route_headers: bool,
    /// The client keys and their groups.
    pub access: Access,
    /// Which web pages may call the public listener.
    pub pages: WebPageRules,
    /// Whether any upstream is called with the caller's own credential.
    pub has_passthrough: bool,
    /// The marker of this gateway on the requests that it sends, by which it recognises them. It outlives the snapshot.
    pub hop: HeaderValue,
}

impl Snapshot {
    /// Compiles `config`. The state that outlives a snapshot comes from `runtime`. Upstreams whose connection settings
    /// are the same in `previous` keep their connections.
    ///
    /// # Errors
    /// If the TLS settings of an upstream cannot be used.
    pub fn compile(config: &Config, runtime: &RuntimeState, previous: Option<&Self>) -> Result<Self, CompileError> {
        let access = Access::compile(config, runtime);
        let pool = CompiledPool::compile(config, &access, runtime, previous.map_or(&[], Self::upstreams))?;
        Ok(Self {
            rendezvous: Rendezvous::new(&pool.members),
            upstreams: pool.upstreams.into(),
            classes: pool.classes.into(),
            access,
            sources: config.affinity.sources.clone().into(),
            body_paths: BodyPaths::new(config.affinity.sources.iter().filter_map(SessionSource::body_path)),
            limits: RequestLimits {
                max_body: config.server.max_body,
                head: config.timeouts.head,
                decide_within: config.retry.decide_within,
                decide_bytes: usize::try_from(config.retry.decide_bytes).expect("the size is at most 16 MiB"),
                idle: config.timeouts.idle,
            },
            min_body_rate: wire::MinBodyRate::new(config.server.min_body_rate, config.server.body_rate_window),
            patience: Patience {
                wait: config.affinity.wait,
                reread_rate: config.affinity.reread_rate,
                wait_max: config.affinity.wait_max,
            },
            media_cost: config.tokens,
            attempts: config.retry.attempts,
            retries_timeouts: config.retry.on_timeout,
            max_ejected: config.health.max_ejected,
            forwarded: config.server.forwarded,
            route_headers: config.server.route_headers,
            pages: WebPageRules {
                checks_host: !config.server.allow_anonymous,
                allowed_origins: config
                    .server
                    .allow_origins
                    .iter()
                    .map(|origin| origin.as_str().into())
                    .collect(),
            },
            has_passthrough: config
                .upstreams
                .iter()
                .any(|upstream| upstream.api_key == ApiKey::Passthrough),
            hop: runtime.hop.clone(),
        })
    }

    /// Every upstream, in the order of the file.
    pub fn upstreams(&self) -> &[Upstream] {
        &self.upstreams
    }

    /// The upstream of the member at `index` of [`Snapshot::rendezvous`].
    ///
    /// # Panics
    /// If `index` comes from the pool of another snapshot that has more upstreams.
    pub fn upstream(&self, index: MemberIndex) -> &Upstream {
        let upstream = self.upstreams.get(index.as_usize());
        upstream.expect("the rendezvous members and the upstreams are compiled in the same order")
    }

    /// The upstream with this identity, if it is configured.
    pub fn upstream_of(&self, id: UpstreamId) -> Option<&Upstream> {
        self.rendezvous.position(id).map(|index| self.upstream(index))
    }

    /// The upstreams that may serve `model` to `group`; `None` if there are none. A request that names no model may go
    /// to every upstream that serves the group.
    #[inline]
    pub fn eligibility(&self, group: &Group, model: Option<&str>) -> Option<Eligibility> {
        let is_open = |class: &EligibilityClass| class.models.is_all() || model.is_none();
        if self.classes.iter().all(|class| is_open(class) && class.serves(group)) {
            return Some(Eligibility::All);
        }
        self.eligible_classes(group, model)
    }

    /// Does the same as [`Snapshot::eligibility`] where not every upstream may serve the request.
    fn eligible_classes(&self, group: &Group, model: Option<&str>) -> Option<Eligibility> {
        let serves =
            |class: &EligibilityClass| class.serves(group) && model.is_none_or(|model| class.models.matches(model));
        Eligibility::of_classes(self.classes.iter().map(serves))
    }

    /// The upstreams among these that may have `model`, by what `runtime` knows: its lists of models and the answers of
    /// accounts. An upstream whose models are configured has those. At least one upstream is left.
    #[inline]
    pub fn narrowed(
        &self,
        eligibility: Eligibility,
        runtime: &RuntimeState,
        model: Option<ModelKey>,
        now: Tick,
    ) -> Eligibility {
        match model.and_then(|model| runtime.models.about(model, now)) {
            None => eligibility,
            Some(known) => self.narrowed_by(eligibility, &known),
        }
    }

    #[cold]
    fn narrowed_by(&self, eligibility: Eligibility, known: &KnownModel) -> Eligibility {
        if known.is_everywhere() {
            return eligibility;
        }
        let pool = &self.rendezvous;
        let narrowed = eligibility.of_model(pool, |index| self.standing(index, known));
        if !narrowed.is_empty(pool) {
            return narrowed;
        }
        // All of them have refused the model: one of them is asked again.
        let without_refusals = |index| MemberStanding {
            has_refused: false,
            ..self.standing(index, known)
        };
        narrowed.into_configured().of_model(pool, without_refusals)
    }

    /// The upstreams among these that may have `model`, after the upstreams in `refusing` have refused it during the same
    /// turn. There may be none.
    pub fn without(
        &self,
        eligibility: Eligibility,
        refusing: &[MemberIndex],
        known: (&RuntimeState, ModelKey, Tick),
    ) -> Eligibility {
        let (runtime, model, now) = known;
        let known = runtime.models.about(model, now);
        eligibility.into_configured().of_model(&self.rendezvous, |index| {
            let known = known.as_ref().map(|known| self.standing(index, known));
            let standing = known.unwrap_or(MemberStanding {
                listed: self.configured_standing(index).unwrap_or(ModelStanding::Unknown),
                has_refused: false,
            });
            MemberStanding {
                has_refused: standing.has_refused || refusing.contains(&index),
                ..standing
            }
        })
    }

    /// What is known about an upstream that may serve the model by its configuration.
    fn standing(&self, index: MemberIndex, known: &KnownModel) -> MemberStanding {
        let id = self.rendezvous.member(index).id;
        MemberStanding {
            listed: self.configured_standing(index).unwrap_or_else(|| known.listed(id)),
            has_refused: known.has_refused(id),
        }
    }

    /// What the configuration of an upstream says about a model that it may serve; `None` if it says nothing about models.
    fn configured_standing(&self, index: MemberIndex) -> Option<ModelStanding> {
        (!self.upstream(index).models.is_all()).then_some(ModelStanding::Named)
    }

    /// The model patterns that `group` may use, as they are configured; empty if neither the group nor its upstreams restrict
    /// models.
    pub fn models_of(&self, group: &Group) -> Vec<String> {
        let allowed = &group.models;
        let serving = || self.classes.iter().filter(|class| class.serves(group));
        let served = serving().flat_map(|class| class.models.patterns().filter(|name| allowed.matches(name)));
        let is_served = |name: &&str| serving().any(|class| class.models.matches(name));
        let mut names: Vec<String> = served
            .chain(allowed.patterns().filter(is_served))
            .map(str::to_owned)
            .collect();
        if names.is_empty() {
            // The patterns of the group and of its upstreams overlap, but neither contains the other.
            names = allowed.patterns().map(str::to_owned).collect();
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The upstreams for the session key `text` of `group`, best first. `steadfast route` prints them.
    pub fn route<'a>(
        &'a self,
        group: &Group,
        text: &str,
        eligibility: &'a Eligibility,
    ) -> impl Iterator<Item = &'a Upstream> {
        let key = SessionKey::from_text(group.namespace, text);
        self.rendezvous
            .ranked(key, eligibility)
            .map(|index| self.upstream(index))
    }
}

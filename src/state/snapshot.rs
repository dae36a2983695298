//! The configuration, compiled for requests: immutable, with everything prebuilt that each request would build anew.

use std::{fmt, sync::Arc, time::Duration};

use http::{
    HeaderName, HeaderValue,
    uri::{Authority, Scheme},
};
use memchr::memmem::Finder;

use super::{live::Live, meter::Meter, roster::Roster};
use crate::{
    config::{self, ApiKey, Config, ModelGlobs},
    ids::{Namespace, OrganizationId, SessionKey, UpstreamId},
    policy::{Member, Patience, Rendezvous, Source},
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
    /// The distinct lists of models; an upstream's eligibility class is its list's index here.
    model_lists: Box<[ModelGlobs]>,
    /// Where session keys are looked for.
    pub sources: Box<[Source]>,
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
    /// Whose sessions these are.
    pub namespace: Namespace,
    /// Whether any upstream is called with the caller's own credential.
    pub has_passthrough: bool,
}

/// An upstream, ready to be called.
pub struct Upstream {
    /// Its stable identity.
    pub id: UpstreamId,
    /// Its name, for logs and messages.
    pub name: Arc<str>,
    /// Its name, for `x-steadfast-upstream`.
    pub name_header: HeaderValue,
    /// The base URL's path, without a slash at its end.
    pub prefix: Box<str>,
    /// What goes into `Host`.
    pub host: HeaderValue,
    /// What it is called with.
    pub credential: Credential,
    /// Headers that are set on every request to it.
    pub headers: Box<[(HeaderName, HeaderValue)]>,
    /// What no caller may see, even where this upstream echoes it: its key, and the credentials among the configured headers.
    pub confidential: Box<[Finder<'static>]>,
    /// The models that it serves.
    pub models: ModelGlobs,
    /// Its weight.
    pub weight: crate::ids::Weight,
    /// Its connections.
    pub pool: Arc<wire::Pool>,
    /// What the pool was made for.
    line: Line,
    /// Who it shares prompt cache and response state with, where that is named.
    pub organization: Option<Arc<str>>,
    /// How many requests it takes at once, where that is limited.
    pub max_in_flight: Option<u32>,
    /// What it is doing; outlives this snapshot.
    pub live: Arc<Live>,
}

/// All that connections depend on: as long as it stays the same, warm ones serve the next snapshot too.
#[derive(PartialEq)]
struct Line {
    url_scheme: Scheme,
    authority: Authority,
    /// PEM certificates trusted beside the platform's.
    ca: Option<Box<[u8]>>,
    http2: bool,
    connect: Duration,
    stall: Duration,
}

/// What an upstream is called with.
pub enum Credential {
    /// Our own: an `Authorization` value, marked as sensitive.
    Own(HeaderValue),
    /// Whatever the caller sent.
    Callers,
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

/// Which upstreams may serve a request: one flag for each list of models.
pub enum Eligibility {
    /// Every upstream.
    All,
    /// Those whose list is flagged.
    Lists(Box<[bool]>),
}

impl Eligibility {
    /// Whether members of `class` may serve the request.
    pub fn allows(&self, class: u16) -> bool {
        match self {
            Self::All => true,
            Self::Lists(lists) => lists.get(usize::from(class)).copied().unwrap_or(false),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::All => false,
            Self::Lists(lists) => !lists.contains(&true),
        }
    }
}

impl Snapshot {
    /// Compiles `config`. What outlives a snapshot comes from `roster`; upstreams that are reached as in `previous` keep
    /// its connections.
    ///
    /// # Errors
    /// When an upstream's TLS cannot be set up.
    pub fn compile(
        config: &Config,
        roster: &Roster,
        meter: &Meter,
        previous: Option<&Self>,
    ) -> Result<Self, CompileError> {
        let mut model_lists: Vec<ModelGlobs> = Vec::new();
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
            let upstream = Upstream::compile(configured, line, pool, roster, meter).map_err(failed)?;
            let class = match model_lists.iter().position(|list| *list == upstream.models) {
                Some(known) => known,
                None => {
                    model_lists.push(upstream.models.clone());
                    model_lists.len() - 1
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
                organization: match &configured.organization {
                    Some(name) => OrganizationId::from_name(name),
                    None => OrganizationId::of_upstream(upstream.id),
                },
            });
            upstreams.push(upstream);
        }
        Ok(Self {
            rendezvous: Rendezvous::new(&members),
            upstreams: upstreams.into(),
            model_lists: model_lists.into(),
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
            namespace: Namespace::of_group(""),
            has_passthrough: config
                .upstreams
                .iter()
                .any(|upstream| upstream.api_key == ApiKey::Passthrough),
        })
    }

    /// Holds from now on: what outlives snapshots is set as this one has it.
    pub(super) fn take_effect(&self) {
        for upstream in &self.upstreams {
            upstream.live.set_slots(upstream.max_in_flight);
            upstream.live.reloaded();
        }
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

    /// Who may serve `model`; `None` where nobody does. A request that names no model may go to anyone.
    pub fn eligibility(&self, model: Option<&str>) -> Option<Eligibility> {
        let Some(model) = model else {
            return Some(Eligibility::All);
        };
        if self.model_lists.iter().all(ModelGlobs::is_all) {
            return Some(Eligibility::All);
        }
        let lists = Eligibility::Lists(self.model_lists.iter().map(|list| list.matches(model)).collect());
        if lists.is_empty() { None } else { Some(lists) }
    }

    /// The upstreams for the session key `text`, best first: the answer of `route`.
    pub fn route<'a>(&'a self, text: &str, eligibility: &'a Eligibility) -> impl Iterator<Item = &'a Upstream> {
        let key = SessionKey::from_text(self.namespace, text);
        self.rendezvous
            .ranked(key, |class| eligibility.allows(class))
            .filter_map(|index| self.upstream(index))
    }
}

impl Line {
    fn of(configured: &config::Upstream, timeouts: &config::Timeouts) -> Self {
        let url = &configured.base_url;
        Self {
            url_scheme: url.scheme().clone(),
            authority: url.authority().clone(),
            ca: configured.ca.as_ref().map(|ca| ca.pem.as_slice().into()),
            http2: configured.http2,
            connect: timeouts.connect,
            stall: timeouts.idle,
        }
    }

    /// A pool without any connection yet.
    fn open(&self) -> Result<Arc<wire::Pool>, String> {
        let tls = if self.url_scheme == Scheme::HTTPS {
            Some(wire::client_config(self.ca.as_deref(), self.http2).map_err(|error| error.to_string())?)
        } else {
            None
        };
        let target = wire::Target {
            authority: self.authority.clone(),
            tls,
        };
        wire::Pool::new(&target, self.connect, self.stall).map_err(|error| error.to_string())
    }
}

impl Upstream {
    fn compile(
        configured: &config::Upstream,
        line: Line,
        pool: Arc<wire::Pool>,
        roster: &Roster,
        meter: &Meter,
    ) -> Result<Self, String> {
        let url = &configured.base_url;
        let credential = match &configured.api_key {
            ApiKey::Passthrough => Credential::Callers,
            ApiKey::Key(key) => {
                let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose()))
                    .map_err(|_| "its api_key has characters that a header cannot carry".to_owned())?;
                value.set_sensitive(true);
                Credential::Own(value)
            }
        };
        let id = UpstreamId::from_name(&configured.name);
        let name: Arc<str> = configured.name.as_str().into();
        let live = roster.live(id, &name, meter);
        Ok(Self {
            id,
            name,
            name_header: header(&configured.name)?,
            prefix: url.prefix().into(),
            host: host(url.authority())?,
            credential,
            headers: configured.headers.clone().into(),
            confidential: confidential(configured),
            models: configured.models.clone(),
            weight: configured.weight,
            pool,
            organization: configured.organization.as_deref().map(Into::into),
            max_in_flight: configured.max_in_flight,
            line,
            live,
        })
    }
}

/// What is shorter than this is no secret, and would be found by chance.
const SHORTEST_SECRET: usize = 8;

fn confidential(configured: &config::Upstream) -> Box<[Finder<'static>]> {
    let key = match &configured.api_key {
        ApiKey::Key(key) => key.expose().as_bytes(),
        ApiKey::Passthrough => b"",
    };
    let credentials = configured.headers.iter().filter(|(name, _)| names_credential(name));
    let headers = credentials.map(|(_, value)| value.as_bytes());
    let secrets = std::iter::once(key)
        .chain(headers)
        .filter(|secret| secret.len() >= SHORTEST_SECRET);
    secrets.map(|secret| Finder::new(secret).into_owned()).collect()
}

/// Whether a header of this name carries a credential; others may well come back, as `content-type` does.
fn names_credential(name: &HeaderName) -> bool {
    const WORDS: [&str; 6] = ["key", "token", "secret", "auth", "cookie", "password"];
    WORDS.iter().any(|word| name.as_str().contains(word))
}

fn host(authority: &Authority) -> Result<HeaderValue, String> {
    header(authority.as_str())
}

fn header(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| format!("'{text}' cannot stand in a header"))
}

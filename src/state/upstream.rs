//! Upstreams, ready to be called: everything prebuilt that each request would build anew.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _};

use http::{
    HeaderName, HeaderValue,
    uri::{Authority, Scheme},
};
use memchr::memmem::Finder;
use sha2::Sha256;

use super::{metrics::Metrics, runtime::RuntimeState, upstream_state::UpstreamState};
use crate::{
    config::{self, ApiKey, ModelGlobs},
    ids::{OrganizationId, UpstreamId},
    wire,
};

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
    /// What keeps its turn states apart by group; as secret as the credential that it is made from.
    pub seal: Hmac<Sha256>,
    /// The names by which it calls models, as JSON, where they differ from those that callers use.
    pub renames: HashMap<Box<str>, Bytes>,
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
    pub(super) line: Line,
    /// Who it shares prompt cache and response state with, where that is named.
    pub organization: Option<Arc<str>>,
    /// How many requests it takes at once, where that is limited.
    pub max_in_flight: Option<u32>,
    /// What it is doing; outlives this snapshot.
    pub state: Arc<UpstreamState>,
}

/// All that connections depend on: as long as it stays the same, warm ones serve the next snapshot too.
#[derive(PartialEq)]
pub(super) struct Line {
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

/// Whose account an upstream is.
pub(super) fn organization(configured: &config::Upstream) -> OrganizationId {
    match &configured.organization {
        Some(name) => OrganizationId::from_name(name),
        None => OrganizationId::of_upstream(UpstreamId::from_name(&configured.name)),
    }
}

impl Line {
    pub(super) fn of(configured: &config::Upstream, timeouts: &config::Timeouts) -> Self {
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
    pub(super) fn open(&self) -> Result<Arc<wire::Pool>, String> {
        let tls = if self.url_scheme == Scheme::HTTPS {
            let versions = if self.http2 {
                wire::HttpVersions::Http2AndHttp1
            } else {
                wire::HttpVersions::Http1
            };
            Some(wire::client_config(self.ca.as_deref(), versions).map_err(|error| error.to_string())?)
        } else {
            None
        };
        let target = wire::DialTarget {
            authority: self.authority.clone(),
            tls,
        };
        wire::Pool::new(&target, self.connect, self.stall).map_err(|error| error.to_string())
    }
}

impl Upstream {
    pub(super) fn compile(
        configured: &config::Upstream,
        line: Line,
        pool: Arc<wire::Pool>,
        runtime: &RuntimeState,
        metrics: &Metrics,
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
        let state = runtime.state(id, &name, metrics);
        Ok(Self {
            id,
            name,
            name_header: header(&configured.name)?,
            prefix: url.prefix().into(),
            host: host(url.authority())?,
            credential,
            seal: seal(configured)?,
            renames: renames(configured),
            headers: configured.headers.clone().into(),
            confidential: confidential(configured),
            models: configured.models.clone(),
            weight: configured.weight,
            pool,
            organization: configured.organization.as_deref().map(Into::into),
            max_in_flight: configured.max_in_flight,
            line,
            state,
        })
    }
}

fn seal(configured: &config::Upstream) -> Result<Hmac<Sha256>, String> {
    let credential = match &configured.api_key {
        ApiKey::Key(key) => key.expose(),
        // Callers who have a credential of their own need not be kept apart.
        ApiKey::Passthrough => "",
    };
    Hmac::new_from_slice(credential.as_bytes()).map_err(|error| error.to_string())
}

fn renames(configured: &config::Upstream) -> HashMap<Box<str>, Bytes> {
    let as_json = |name: &str| Bytes::from(serde_json::Value::from(name).to_string());
    let renames = configured.renames.iter();
    renames
        .filter(|(ours, theirs)| ours != theirs)
        .map(|(ours, theirs)| (ours.as_str().into(), as_json(theirs)))
        .collect()
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

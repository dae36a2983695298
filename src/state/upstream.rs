//! The upstreams of a snapshot, with prepared values that each request would otherwise compute again.

use std::{
    collections::HashMap,
    hash::{Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _};

use http::{
    HeaderName, HeaderValue, Uri,
    uri::{Authority, Scheme},
};
use rustls::ClientConfig;
use sha2::Sha256;
use twox_hash::XxHash3_64;

use super::{
    base_query::BaseQuery, confidential::Confidential, model_knowledge::ConfiguredAccount, runtime::RuntimeState,
    upstream_state::UpstreamState,
};
use crate::{
    config::{self, ApiKey, ClientCertificate, ModelGlobs, ProxyScheme, UpstreamProxy},
    ids::{OrganizationId, UpstreamId, Weight},
    wire,
};

/// An upstream, with everything that a request to it needs.
pub struct Upstream {
    /// The stable identity, which sessions hash to.
    pub id: UpstreamId,
    /// The account that the upstream calls.
    pub account: ConfiguredAccount,
    /// The name, for logs and messages.
    pub name: Arc<str>,
    /// The name, as the value of `x-steadfast-upstream`.
    pub name_header: HeaderValue,
    /// The path of the base URL, without a slash at its end.
    pub prefix: Box<str>,
    /// The query of the base URL, which goes with each request.
    pub query: Option<Box<BaseQuery>>,
    /// The value of `Host`.
    pub host: HeaderValue,
    /// The credential that requests carry.
    pub credential: Credential,
    /// Signs the turn states of this upstream, so that a turn state of one group is not accepted from another. It is as
    /// secret as the credential that it is made from.
    pub seal: Hmac<Sha256>,
    /// The upstream's own names of models, as JSON, by the names that callers use. Models with the same name are left
    /// out.
    pub renames: HashMap<Box<str>, Bytes>,
    /// Headers that are set on every request.
    pub headers: Box<[(HeaderName, HeaderValue)]>,
    /// The credentials that no caller may see, even if the upstream echoes them.
    pub confidential: Confidential,
    /// The models that the upstream serves.
    pub models: ModelGlobs,
    /// The share of the sessions, relative to the other upstreams.
    pub weight: Weight,
    /// The connections to the upstream.
    pub pool: Arc<wire::Pool>,
    /// The settings that `pool` was made with.
    pub(super) connection_settings: ConnectionSettings,
    /// The configured name of the organization, whose upstreams share prompt cache and response state.
    pub organization: Option<Arc<str>>,
    /// The maximum number of requests in flight; `None` if there is no limit.
    pub max_in_flight: Option<u32>,
    /// The state of the upstream, which outlives this snapshot.
    pub state: Arc<UpstreamState>,
}

/// The settings on which connections depend. While they stay the same, the next snapshot uses the same connections.
#[derive(PartialEq)]
pub(super) struct ConnectionSettings {
    url_scheme: Scheme,
    authority: Authority,
    /// PEM certificates that are trusted in addition to the platform's.
    ca: Option<Box<[u8]>>,
    /// The certificate that is shown to the upstream.
    client_certificate: Option<ClientCertificate>,
    /// The proxy through which connections are opened.
    proxy: Option<UpstreamProxy>,
    /// Whether HTTP/2 is offered.
    http2: bool,
    /// The maximum time to establish a connection.
    connect: Duration,
    /// The maximum time that the upstream may read nothing while data waits to be sent.
    stall: Duration,
    /// The time after which a connection gets no new request; `None` if there is no limit.
    age: Option<Duration>,
}

/// The credential that requests to an upstream carry.
pub enum Credential {
    /// The upstream's own credential: the value of `Authorization`, marked as sensitive.
    Own(HeaderValue),
    /// The credential that the caller sent.
    Callers,
}

/// Returns the organization of an upstream. An upstream without a configured one is an organization of its own.
pub(super) fn organization(configured: &config::Upstream) -> OrganizationId {
    match &configured.organization {
        Some(name) => OrganizationId::from_name(name),
        None => OrganizationId::of_upstream(UpstreamId::from_name(&configured.name)),
    }
}

impl ConnectionSettings {
    pub(super) fn new(configured: &config::Upstream, timeouts: &config::Timeouts) -> Self {
        let url = &configured.base_url;
        Self {
            url_scheme: url.scheme().clone(),
            authority: url.authority().clone(),
            ca: configured.ca.as_ref().map(|ca| ca.pem.as_slice().into()),
            client_certificate: configured.client_certificate.clone(),
            proxy: configured.proxy.clone(),
            http2: configured.http2,
            connect: timeouts.connect,
            stall: timeouts.idle,
            age: Some(timeouts.connection_age).filter(|age| !age.is_zero()),
        }
    }

    /// Makes a pool that has no connection yet.
    pub(super) fn open_pool(&self) -> Result<Arc<wire::Pool>, String> {
        let tls = if self.url_scheme == Scheme::HTTPS {
            let versions = if self.http2 {
                wire::HttpVersions::Http2AndHttp1
            } else {
                wire::HttpVersions::Http1
            };
            Some(self.tls(versions, self.client_identity()?)?)
        } else {
            None
        };
        let target = wire::DialTarget {
            authority: self.authority.clone(),
            tls,
        };
        let options = wire::PoolOptions {
            proxy: self.proxy.as_ref().map(|proxy| self.proxy_target(proxy)).transpose()?,
            connect: self.connect,
            stall: self.stall,
            age: self.age,
        };
        wire::Pool::with_options(&target, options).map_err(|error| error.to_string())
    }

    fn tls(
        &self,
        versions: wire::HttpVersions,
        identity: Option<wire::ClientIdentity>,
    ) -> Result<Arc<ClientConfig>, String> {
        wire::client_config(self.ca.as_deref(), versions, identity).map_err(|error| error.to_string())
    }

    fn client_identity(&self) -> Result<Option<wire::ClientIdentity>, String> {
        let certificate = self.client_certificate.as_ref();
        let identity = certificate.map(|certificate| {
            let key = certificate.private_key.expose().as_bytes();
            wire::client_identity(&certificate.certificates, key)
        });
        identity.transpose().map_err(|error| error.to_string())
    }

    fn proxy_target(&self, proxy: &UpstreamProxy) -> Result<wire::ProxyTarget, String> {
        let protocol = match &proxy.protocol {
            ProxyScheme::Http {
                is_secure,
                authorization,
            } => wire::ProxyProtocol::Http {
                // The client certificate is for the upstream only.
                tls: is_secure
                    .then(|| self.tls(wire::HttpVersions::Http1, None))
                    .transpose()?,
                authorization: authorization.clone(),
            },
            ProxyScheme::Socks5 { credentials } => wire::ProxyProtocol::Socks5 {
                credentials: credentials.clone(),
            },
        };
        Ok(wire::ProxyTarget {
            address: proxy.address.clone(),
            protocol,
        })
    }
}

impl Upstream {
    /// The target of the upstream's list of models. `None` if it is too long for a URI.
    pub fn list_of_models(&self) -> Option<Uri> {
        const PATH: &str = "/models";
        match &self.query {
            None => Uri::try_from(format!("{}{PATH}", self.prefix)).ok(),
            Some(query) => query.target(&self.prefix, PATH, None),
        }
    }

    pub(super) fn compile(
        configured: &config::Upstream,
        connection_settings: ConnectionSettings,
        pool: Arc<wire::Pool>,
        runtime: &RuntimeState,
    ) -> Result<Self, String> {
        let url = &configured.base_url;
        let credential = match &configured.api_key {
            ApiKey::Passthrough => Credential::Callers,
            ApiKey::Key(key) => {
                let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose()))
                    .map_err(|_| "its api_key contains a character that is not allowed in a header".to_owned())?;
                value.set_sensitive(true);
                Credential::Own(value)
            }
        };
        let query = base_query(configured);
        let id = UpstreamId::from_name(&configured.name);
        let name: Arc<str> = configured.name.as_str().into();
        let state = runtime.upstream_state_or_new(id, &name);
        Ok(Self {
            id,
            account: account(id, configured),
            name,
            name_header: header(&configured.name)?,
            prefix: url.prefix().into(),
            confidential: Confidential::new(configured, query.as_ref()),
            query: query.map(Box::new),
            host: host(url.authority())?,
            credential,
            seal: seal(configured)?,
            renames: renames(configured),
            headers: configured.headers.clone().into(),
            models: configured.models.clone(),
            weight: configured.weight,
            pool,
            organization: configured.organization.as_deref().map(Into::into),
            max_in_flight: configured.max_in_flight,
            connection_settings,
            state,
        })
    }
}

/// The account that an upstream is configured to call.
fn account(upstream: UpstreamId, configured: &config::Upstream) -> ConfiguredAccount {
    let mut hasher = XxHash3_64::new();
    let url = &configured.base_url;
    url.to_string().hash(&mut hasher);
    url.query().map(crate::secret::Secret::expose).hash(&mut hasher);
    match &configured.api_key {
        ApiKey::Key(key) => key.expose().hash(&mut hasher),
        ApiKey::Passthrough => {}
    }
    for (name, value) in &configured.headers {
        (name, value).hash(&mut hasher);
    }
    configured
        .models
        .patterns()
        .for_each(|pattern| pattern.hash(&mut hasher));
    configured.renames.hash(&mut hasher);
    ConfiguredAccount {
        upstream,
        settings: hasher.finish(),
    }
}

fn seal(configured: &config::Upstream) -> Result<Hmac<Sha256>, String> {
    let credential = match &configured.api_key {
        ApiKey::Key(key) => key.expose(),
        // The upstream itself separates callers that use their own credentials.
        ApiKey::Passthrough => "",
    };
    Hmac::new_from_slice(credential.as_bytes()).map_err(|error| error.to_string())
}

fn renames(configured: &config::Upstream) -> HashMap<Box<str>, Bytes> {
    let as_json = |name: &str| Bytes::from(serde_json::Value::from(name).to_string());
    let renames = configured.renames.iter().filter(|(model, renamed)| model != renamed);
    renames
        .map(|(model, renamed)| (model.as_str().into(), as_json(renamed)))
        .collect()
}

fn base_query(configured: &config::Upstream) -> Option<BaseQuery> {
    configured.base_url.query().cloned().map(BaseQuery::new)
}

fn host(authority: &Authority) -> Result<HeaderValue, String> {
    header(authority.as_str())
}

fn header(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| format!("'{text}' contains a character that is not allowed in a header"))
}

//! `[[upstream]]` and `--upstream`: the upstream accounts.

use std::{collections::BTreeMap, fmt};

use http::HeaderName;
use toml::{Spanned, de::DeValue};

use super::{
    base_url::BaseUrl,
    document::DocumentReader,
    errors::{Located, Location, ProblemList},
    fields::upstream,
    glob::ModelGlobs,
    headers::{self, Headers},
    proxy::{self, UpstreamProxy},
    reader::Section,
    schema::AnyField,
    secrets::{LITERAL_WARNING, ResolveContext, SecretForm, credential, is_credential},
    tls::{self, Ca, ClientCertificate},
    values::{quoted, text},
};
use crate::{ids::Weight, secret::Secret};

/// One upstream account.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The name, which is the identity that sessions hash to: 1 to 64 letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// The URL that replaces `/v1` at the beginning of each request's path.
    pub base_url: BaseUrl,
    /// The credential of the account.
    pub api_key: ApiKey,
    /// The share of the sessions relative to the other upstreams.
    pub weight: Weight,
    /// The models that the upstream serves, by the names that callers use.
    pub models: ModelGlobs,
    /// The upstream's own names of models, by the names that callers use; empty if they are the same.
    pub renames: BTreeMap<String, String>,
    /// Headers that are set on every request, each name once. None of them frames the message, belongs to the connection or is
    /// set from [`Upstream::api_key`]. All values are marked as sensitive, so that `Debug` does not print them.
    pub headers: Headers,
    /// The names of the [`Upstream::headers`] whose values were read from an environment variable or a file, as secrets
    /// are.
    pub referenced_headers: Vec<HeaderName>,
    /// Certificate authorities that are trusted in addition to the platform's; only if the upstream or its proxy is called
    /// over TLS.
    pub ca: Option<Ca>,
    /// The certificate that is shown to the upstream (mutual TLS); only with https.
    pub client_certificate: Option<ClientCertificate>,
    /// The proxy through which connections are opened; `None` if they are direct.
    pub proxy: Option<UpstreamProxy>,
    /// Whether HTTP/2 is offered; only with https.
    pub http2: bool,
    /// The maximum number of concurrent requests: 1 to 1,000,000; `None` means no limit.
    pub max_in_flight: Option<u32>,
    /// The organization that owns the account, written like a name. Upstreams of one organization share prompt cache
    /// and response state. `None` means an organization of its own.
    pub organization: Option<String>,
}

/// How requests to an upstream are authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiKey {
    /// The upstream's own key, in visible ASCII, is sent as `authorization: Bearer`.
    Key(Secret),
    /// The credential of the caller is passed on.
    Passthrough,
}

/// Why [`Upstream::new`] refused its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidUpstream(String);

impl fmt::Display for InvalidUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidUpstream {}

impl Upstream {
    /// Whether the upstream receives the caller's credential.
    pub fn is_passthrough(&self) -> bool {
        self.api_key == ApiKey::Passthrough
    }

    /// An upstream of weight 1 that serves all models.
    ///
    /// # Errors
    /// If the name, the URL or the key would be refused in a file.
    pub fn new(name: &str, base_url: &str, api_key: ApiKey) -> Result<Self, InvalidUpstream> {
        let invalid = |field, problem| InvalidUpstream(format!("{field} {problem}"));
        let name = parse_name(name).map_err(|problem| invalid("name", problem))?;
        let base_url = BaseUrl::parse(base_url).map_err(|problem| invalid("base_url", problem))?;
        match &api_key {
            ApiKey::Key(secret) if !is_credential(secret) => {
                Err(invalid("api_key", "must be visible ASCII".to_owned()))
            }
            ApiKey::Key(_) | ApiKey::Passthrough => Ok(Self::with_defaults(name, base_url, api_key)),
        }
    }

    fn with_defaults(name: String, base_url: BaseUrl, api_key: ApiKey) -> Self {
        Self {
            name,
            base_url,
            api_key,
            weight: Weight::ONE,
            models: ModelGlobs::default(),
            renames: BTreeMap::new(),
            headers: Vec::new(),
            referenced_headers: Vec::new(),
            ca: None,
            client_certificate: None,
            proxy: None,
            http2: false,
            max_in_flight: None,
            organization: None,
        }
    }
}

/// The result of reading one upstream. The name is separate, so that it is compared with others even if the rest is invalid.
pub(super) struct ReadUpstream {
    pub(super) name: Option<Located<String>>,
    /// The upstream; `None` if it has an error.
    pub(super) upstream: Option<Upstream>,
    /// The URL of an upstream that is called without a proxy.
    pub(super) direct_url: Option<Located<BaseUrl>>,
}

/// Reads one `[[upstream]]`.
pub(super) fn read(
    reader: &mut DocumentReader<'_>,
    section: &Section<'_>,
    context: ResolveContext<'_>,
) -> ReadUpstream {
    let name = reader.read_text(section, &upstream::NAME, parse_name);
    let base_url = reader.read_text(section, &upstream::BASE_URL, BaseUrl::parse);
    let api_key = reader.read_text(section, &upstream::API_KEY, |text| parse_key(text, context));
    if let (Some((_, SecretForm::Literal)), Some(value)) = (&api_key, section.get(&upstream::API_KEY)) {
        reader.warn(value, format!("api_key {LITERAL_WARNING}"));
    }
    let weight = reader.read(section, &upstream::WEIGHT).map_or(Weight::ONE, |weight| {
        Weight::new(weight).expect("the declared range of weight is that of Weight")
    });
    let (models, renames) = read_models(reader, section);
    let headers = headers::read(reader, section, context);
    let ca = reader.read_text(section, &upstream::CA, |path| tls::parse_ca(path, context));
    let client_certificate = tls::read_client(reader, section, context);
    let http2 = reader.read(section, &upstream::HTTP2).unwrap_or(false);
    let max_in_flight = reader.read(section, &upstream::MAX_IN_FLIGHT);
    let organization = reader.read_text(section, &upstream::ORGANIZATION, parse_name);
    let (mut proxy, mut direct_url) = (None, None);
    if let (Some(url), Some(value)) = (&base_url, section.get(&upstream::BASE_URL)) {
        let location = reader.location_of(value);
        warn_of_url(&mut reader.problems, &location, url);
        proxy = proxy::read(reader, section, url, context);
        direct_url = proxy.is_none().then(|| (location, url.clone()));
        check_tls_fields(reader, section, url, proxy.as_ref());
    }
    let location = section.get(&upstream::NAME).map(|value| reader.location_of(value));
    let located_name = location.zip(name.clone());
    let upstream = match (name, base_url, api_key) {
        (Some(name), Some(base_url), Some((api_key, _))) => Some(Upstream {
            weight,
            models,
            renames,
            headers: headers.all,
            referenced_headers: headers.referenced,
            ca,
            client_certificate,
            proxy,
            http2,
            max_in_flight,
            organization,
            ..Upstream::with_defaults(name, base_url, api_key)
        }),
        _ => None,
    };
    ReadUpstream {
        name: located_name,
        upstream,
        direct_url,
    }
}

/// Reports the fields that have no effect without TLS.
fn check_tls_fields(
    reader: &mut DocumentReader<'_>,
    section: &Section<'_>,
    url: &BaseUrl,
    proxy: Option<&UpstreamProxy>,
) {
    if url.is_https() {
        return;
    }
    // The authorities are also those of a proxy that is called over TLS.
    if !proxy.is_some_and(UpstreamProxy::is_secure) {
        needs_tls(reader, section, &upstream::CA);
    }
    needs_tls(reader, section, &upstream::CLIENT_CERTIFICATE);
    let http2 = section.get(&upstream::HTTP2).map(Spanned::get_ref);
    if matches!(http2, Some(DeValue::Boolean(true))) {
        needs_tls(reader, section, &upstream::HTTP2);
    }
}

/// Reports `field` if it is written.
fn needs_tls(reader: &mut DocumentReader<'_>, section: &Section<'_>, field: &dyn AnyField) {
    if let Some(value) = section.get(field) {
        let message = format!(
            "{} needs TLS; remove it, or use a base_url with \"https://\"",
            field.name()
        );
        reader.error(value, message);
    }
}

/// Reads `models`: globs, or a table from the models' names for callers to their names at the upstream.
fn read_models(reader: &mut DocumentReader<'_>, section: &Section<'_>) -> (ModelGlobs, BTreeMap<String, String>) {
    let mut renames = BTreeMap::new();
    let Some(value) = section.get(&upstream::MODELS) else {
        return (ModelGlobs::default(), renames);
    };
    let DeValue::Table(table) = value.get_ref() else {
        let globs = reader.strings(section, &upstream::MODELS, parse_glob);
        let globs = globs.into_iter().flatten().map(|(_, glob)| glob);
        return (ModelGlobs::new(globs), renames);
    };
    for (ours, theirs) in table {
        let name: &str = ours.get_ref();
        if name.is_empty() || name.contains(['*', '?']) {
            let problem = format!(
                "models: {} must be the name of one model; only a list may contain globs",
                quoted(name)
            );
            reader.error(ours, problem);
            continue;
        }
        match read_rename(theirs) {
            Ok(theirs) => {
                renames.insert(name.to_owned(), theirs.to_owned());
            }
            Err(problem) => reader.error(
                theirs,
                format!("models: the upstream's name for {} {problem}", quoted(name)),
            ),
        }
    }
    if table.is_empty() {
        reader.error(
            value,
            "models must name at least one model; remove the field for all models",
        );
    }
    (ModelGlobs::new(renames.keys().map(String::as_str)), renames)
}

fn read_rename<'a>(value: &'a Spanned<DeValue<'_>>) -> Result<&'a str, String> {
    match text(value.get_ref())? {
        "" => Err("must not be empty".to_owned()),
        // In a form, such a name would be a boundary between two parts.
        name if name.starts_with("--") => Err("must not begin with --".to_owned()),
        name if name.chars().any(char::is_control) => Err("must not contain control characters".to_owned()),
        name => Ok(name),
    }
}

/// Reads the flag `--upstream NAME=BASE_URL,KEY`, the `nth` of its kind, counted from 1.
pub(super) fn read_flag(
    problems: &mut ProblemList,
    flag: &str,
    nth: usize,
    context: ResolveContext<'_>,
) -> ReadUpstream {
    const SHAPE: &str = "must have the form NAME=BASE_URL,KEY with KEY one of env:NAME, file:PATH, passthrough";
    // Only a valid name is printed: any other text may contain the key.
    let (name, rest) = flag.split_once('=').unwrap_or(("", flag));
    let name = parse_name(name);
    let location = Location::Flag(match &name {
        Ok(name) => format!("--upstream {name}"),
        Err(_) => format!("--upstream (number {nth})"),
    });
    let Some((url, key)) = rest.split_once(',') else {
        problems.error(location, SHAPE);
        return ReadUpstream {
            name: None,
            upstream: None,
            direct_url: None,
        };
    };
    let mut report = |part: &str, problem: String| problems.error(location.clone(), format!("{part} {problem}"));
    let name = name.map_err(|problem| report("NAME", problem)).ok();
    let url = BaseUrl::parse(url).map_err(|problem| report("BASE_URL", problem)).ok();
    let key = parse_key(key, context).map_err(|problem| report("KEY", problem)).ok();
    if let Some((_, SecretForm::Literal)) = key {
        problems.warn(
            location.clone(),
            "KEY is given literally, so every user of this machine may read it; use env:NAME or file:PATH",
        );
    }
    let (mut proxy, mut direct_url) = (None, None);
    if let Some(url) = &url {
        warn_of_url(problems, &location, url);
        proxy = proxy::from_environment(problems, &location, url, context.env);
        direct_url = proxy.is_none().then(|| (location.clone(), url.clone()));
    }
    let located_name = name.clone().map(|name| (location, name));
    let upstream = match (name, url, key) {
        (Some(name), Some(url), Some((key, _))) => Some(Upstream {
            proxy,
            ..Upstream::with_defaults(name, url, key)
        }),
        _ => None,
    };
    ReadUpstream {
        name: located_name,
        upstream,
        direct_url,
    }
}

fn warn_of_url(problems: &mut ProblemList, location: &Location, url: &BaseUrl) {
    if !url.is_https() && !url.is_loopback() {
        let message = "base_url is not https, so keys and prompts are sent unencrypted; use https if possible";
        problems.warn(location.clone(), message);
    }
    if let Some((endpoint, better)) = url.trailing_endpoint() {
        let query = if url.query().is_some() {
            " with the same query"
        } else {
            ""
        };
        let message = format!(
            "base_url ends in the endpoint {endpoint}, which the path of each request adds again; use \"{better}\"{query}"
        );
        problems.warn(location.clone(), message);
    }
    if url.prefix().is_empty() {
        let message = "base_url has no path, so /v1/responses becomes /responses; most upstreams need a base_url that ends in /v1";
        problems.warn(location.clone(), message);
    }
}

/// Reads the name of an upstream, a group or a key.
///
/// # Errors
/// If the name is invalid. The message says what the name must be, as a predicate that follows the kind of name.
pub fn parse_name(name: &str) -> Result<String, String> {
    const MOST: usize = 64;
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > MOST || !name.bytes().all(is_allowed) {
        return Err(format!("must be 1 to {MOST} letters, digits, \".\", \"_\" or \"-\""));
    }
    Ok(name.to_owned())
}

fn parse_key(text: &str, context: ResolveContext<'_>) -> Result<(ApiKey, SecretForm), String> {
    if text == "passthrough" {
        return Ok((ApiKey::Passthrough, SecretForm::Reference));
    }
    credential(text, context).map(|(secret, form)| (ApiKey::Key(secret), form))
}

/// Reads one glob of a list of models.
pub(super) fn parse_glob(glob: &str) -> Result<&str, String> {
    const MOST: usize = 256;
    if glob.is_empty() || glob.len() > MOST {
        return Err(format!("must contain globs of 1 to {MOST} bytes; \"*\" is all models"));
    }
    Ok(glob)
}

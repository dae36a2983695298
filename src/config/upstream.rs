//! `[[upstream]]` and `--upstream`: one account.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use toml::{Spanned, de::DeValue};

use super::{
    BaseUrl, Headers, ModelGlobs,
    errors::{Notes, Place},
    headers,
    reader::{Reader, Schema, Section},
    secrets::{Surroundings, WRITTEN_OUT, credential, is_credential, read_file, shown},
    values::{boolean, integer, quoted, text},
};
use crate::{ids::Weight, secret::Secret};

/// One account to send requests to.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// The identity that sessions hash to: 1 to 64 letters, digits, `.`, `_` and `-`.
    pub name: String,
    /// What stands before every request's path after `/v1`.
    pub base_url: BaseUrl,
    /// The credential.
    pub api_key: ApiKey,
    /// The share of the sessions, relative to the others.
    pub weight: Weight,
    /// The models that it serves, by the names that callers use.
    pub models: ModelGlobs,
    /// What it calls models that callers call otherwise, by their names for them.
    pub renames: BTreeMap<String, String>,
    /// Headers set on every request, each name once; none frames the message, belongs to the connection or is a credential that
    /// [`Upstream::api_key`] sets. A value may be named by `env:` or `file:` like a secret. All values are marked as sensitive, so that `Debug` does not print them.
    pub headers: Headers,
    /// Certificates trusted beside the platform's; only with https.
    pub ca: Option<Ca>,
    /// Whether HTTP/2 is offered; only with https.
    pub http2: bool,
    /// How many requests it gets at a time: 1 to 1,000,000; without, as many as come.
    pub max_in_flight: Option<u32>,
    /// Whom the account belongs to, written like a name: upstreams that share it share prompt cache and response state.
    /// Without, it belongs to nobody else.
    pub organization: Option<String>,
}

/// How requests to an upstream are authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiKey {
    /// With the upstream's own key, visible ASCII, which `authorization: Bearer` carries.
    Key(Secret),
    /// With what the caller sent.
    Passthrough,
}

/// A file of PEM certificates, at least one.
#[derive(Clone, PartialEq, Eq)]
pub struct Ca {
    /// Where it was read.
    pub path: PathBuf,
    /// What it held.
    pub pem: Vec<u8>,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca")
            .field("path", &self.path)
            .field("bytes", &self.pem.len())
            .finish()
    }
}

/// Why [`Upstream::new`] refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidUpstream(String);

impl fmt::Display for InvalidUpstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidUpstream {}

impl Upstream {
    /// Whether it is called with whatever its callers send.
    pub fn is_passthrough(&self) -> bool {
        self.api_key == ApiKey::Passthrough
    }

    /// An upstream of weight 1 for all models.
    ///
    /// # Errors
    /// When the name, the URL or the key would be refused in a file too.
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
            ca: None,
            http2: false,
            max_in_flight: None,
            organization: None,
        }
    }
}

pub(super) const SCHEMA: Schema = Schema {
    name: "[[upstream]]",
    prefix: "upstream.",
    fields: &[
        "name",
        "base_url",
        "api_key",
        "weight",
        "models",
        "max_in_flight",
        "headers",
        "organization",
        "ca",
        "http2",
    ],
};

/// Reads one `[[upstream]]`. Its name comes apart, with its place, so that it can be compared even where the rest is invalid.
pub(super) fn read(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    around: Surroundings<'_>,
) -> (Option<(Place, String)>, Option<Upstream>) {
    let name = reader.read(section, "name", |value| parse_name(text(value)?));
    let base_url = reader.read(section, "base_url", |value| BaseUrl::parse(text(value)?));
    let api_key = reader.read(section, "api_key", |value| parse_key(text(value)?, around));
    if let (Some((_, true)), Some(value)) = (&api_key, section.get("api_key")) {
        reader
            .notes
            .warn(reader.place_of(value), format!("api_key {WRITTEN_OUT}"));
    }
    let weight = reader.read(section, "weight", parse_weight);
    let (models, renames) = read_models(reader, section);
    let headers = headers::read(reader, section, around);
    let ca = reader.read(section, "ca", |value| parse_ca(text(value)?, around));
    let http2 = reader.read(section, "http2", boolean).unwrap_or(false);
    let max_in_flight = reader.read(section, "max_in_flight", |value| integer(value, 1..=1_000_000));
    let organization = reader.read(section, "organization", |value| parse_name(text(value)?));
    note_missing(reader, section);
    if let (Some(url), Some(value)) = (&base_url, section.get("base_url")) {
        let place = reader.place_of(value);
        warn_of_url(&mut reader.notes, &place, url);
        for (field, set) in [("ca", ca.is_some()), ("http2", http2)] {
            if let (false, true, Some(value)) = (url.is_https(), set, section.get(field)) {
                reader.error(
                    value,
                    format!("{field} needs TLS; remove it, or let base_url start with \"https://\""),
                );
            }
        }
    }
    let place = section.get("name").map(|value| reader.place_of(value));
    let named = place.zip(name.clone());
    let (Some(name), Some(base_url), Some((api_key, _))) = (name, base_url, api_key) else {
        return (named, None);
    };
    let upstream = Upstream {
        weight: weight.unwrap_or(Weight::ONE),
        models,
        renames,
        headers,
        ca,
        http2,
        max_in_flight: max_in_flight.and_then(|most| u32::try_from(most).ok()),
        organization,
        ..Upstream::with_defaults(name, base_url, api_key)
    };
    (named, Some(upstream))
}

/// Reads `models`: globs, or a table from names that callers use to names that the upstream uses.
fn read_models(reader: &mut Reader<'_>, section: &Section<'_>) -> (ModelGlobs, BTreeMap<String, String>) {
    let mut renames = BTreeMap::new();
    let Some(DeValue::Table(table)) = section.get("models").map(Spanned::get_ref) else {
        let globs = reader.list(section, "models", false, parse_glob);
        let globs = globs.into_iter().flatten().map(|(_, glob)| glob);
        return (ModelGlobs::new(globs), renames);
    };
    for (ours, theirs) in table {
        let name: &str = ours.get_ref();
        if name.is_empty() || name.contains(['*', '?']) {
            let problem = format!(
                "models: {} must be one model's name; globs are for a list",
                quoted(name)
            );
            reader.error(ours, problem);
            continue;
        }
        match text(theirs.get_ref()) {
            Ok("") => reader.error(
                theirs,
                format!("models: the upstream's name for {} must not be empty", quoted(name)),
            ),
            Ok(theirs) => {
                renames.insert(name.to_owned(), theirs.to_owned());
            }
            Err(problem) => reader.error(
                theirs,
                format!("models: the upstream's name for {} {problem}", quoted(name)),
            ),
        }
    }
    if let (true, Some(value)) = (table.is_empty(), section.get("models")) {
        reader.error(value, "models must name one model at least; leave it out for all");
    }
    (ModelGlobs::new(renames.keys().map(String::as_str)), renames)
}

fn note_missing(reader: &mut Reader<'_>, section: &Section<'_>) {
    let required = [
        (
            "name",
            "add name = \"account-a\"; sessions hash to it, so keep it later",
        ),
        ("base_url", "add base_url = \"https://api.openai.com/v1\""),
        (
            "api_key",
            "add api_key = \"env:NAME\", \"file:PATH\" or \"passthrough\"",
        ),
    ];
    for (field, remedy) in required {
        if section.get(field).is_none() {
            reader.missing(section, format!("[[upstream]] has no {field}; {remedy}"));
        }
    }
}

/// Reads `NAME=BASE_URL,KEY`, the `nth` flag of its kind.
pub(super) fn read_flag(
    notes: &mut Notes,
    flag: &str,
    nth: usize,
    around: Surroundings<'_>,
) -> (Option<(Place, String)>, Option<Upstream>) {
    const SHAPE: &str = "must have the form NAME=BASE_URL,KEY with KEY one of env:NAME, file:PATH, passthrough";
    // Only a name is shown: what is not one may hold the key.
    let (name, rest) = flag.split_once('=').unwrap_or(("", flag));
    let name = parse_name(name);
    let place = Place::Flag(match &name {
        Ok(name) => format!("--upstream {name}"),
        Err(_) => format!("--upstream (number {nth})"),
    });
    let Some((url, key)) = rest.split_once(',') else {
        notes.error(place, SHAPE);
        return (None, None);
    };
    let mut noted = |field: &str, problem: String| notes.error(place.clone(), format!("{field} {problem}"));
    let name = name.map_err(|problem| noted("NAME", problem)).ok();
    let url = BaseUrl::parse(url).map_err(|problem| noted("BASE_URL", problem)).ok();
    let key = parse_key(key, around).map_err(|problem| noted("KEY", problem)).ok();
    if let Some((_, true)) = key {
        notes.warn(
            place.clone(),
            "KEY is written out, so every user of this machine may read it; use env:NAME or file:PATH",
        );
    }
    if let Some(url) = &url {
        warn_of_url(notes, &place, url);
    }
    let named = name.clone().map(|name| (place, name));
    let (Some(name), Some(url), Some((key, _))) = (name, url, key) else {
        return (named, None);
    };
    (named, Some(Upstream::with_defaults(name, url, key)))
}

fn warn_of_url(notes: &mut Notes, place: &Place, url: &BaseUrl) {
    if !url.is_https() && !url.is_loopback() {
        let message =
            "base_url is not https, so keys and prompts cross the network in the clear; use https where you can";
        notes.warn(place.clone(), message);
    }
    if url.prefix().is_empty() {
        let message = "base_url has no path, so /v1/responses goes to /responses; most upstreams want it to end in /v1";
        notes.warn(place.clone(), message);
    }
}

/// Reads the name of an upstream, a group or a key.
///
/// # Errors
/// What it must be like, for a sentence that begins with what is named.
pub fn parse_name(name: &str) -> Result<String, String> {
    const MOST: usize = 64;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.len() > MOST || !name.bytes().all(allowed) {
        return Err(format!("must be 1 to {MOST} letters, digits, \".\", \"_\" or \"-\""));
    }
    Ok(name.to_owned())
}

fn parse_key(text: &str, around: Surroundings<'_>) -> Result<(ApiKey, bool), String> {
    if text == "passthrough" {
        return Ok((ApiKey::Passthrough, false));
    }
    credential(text, around).map(|(secret, literal)| (ApiKey::Key(secret), literal))
}

fn parse_weight(value: &DeValue<'_>) -> Result<Weight, String> {
    let range = 1..=u64::from(Weight::MAX);
    let out_of_range = || format!("must be between 1 and {}", Weight::MAX);
    let number = integer(value, range)?;
    u32::try_from(number)
        .ok()
        .and_then(Weight::new)
        .ok_or_else(out_of_range)
}

pub(super) fn parse_glob<'a>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    const MOST: usize = 256;
    let glob = text(value)?;
    if glob.is_empty() || glob.len() > MOST {
        return Err(format!("must hold globs of 1 to {MOST} bytes; \"*\" is all models"));
    }
    Ok(glob)
}

fn parse_ca(path: &str, around: Surroundings<'_>) -> Result<Ca, String> {
    const MOST: u64 = 4 << 20;
    if path.is_empty() {
        return Err("must be the path of a PEM file".to_owned());
    }
    let path = around.folder.join(path);
    let unusable = |why: String| format!("needs the file {}, which {why}", shown(&path));
    let pem = read_file(&path, MOST).map_err(unusable)?;
    let mut roots = RootCertStore::empty();
    for (index, certificate) in CertificateDer::pem_slice_iter(&pem).enumerate() {
        certificate
            .map_err(|error| error.to_string())
            .and_then(|certificate| roots.add(certificate).map_err(|error| error.to_string()))
            .map_err(|error| unusable(format!("holds an invalid certificate (number {}): {error}", index + 1)))?;
    }
    if roots.is_empty() {
        return Err(unusable("holds no certificate; it must be in PEM form".to_owned()));
    }
    Ok(Ca { path, pem })
}

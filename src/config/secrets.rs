//! Resolves secrets and reads the files that a configuration names. No error and no warning holds a secret.

use std::{fs::File, io::Read, path::Path};

use http::HeaderValue;

use super::values::{quoted, show_size};
use crate::secret::Secret;

/// The most that a secret's file may hold.
const MAX_SECRET: u64 = 64 << 10;

/// What a secret is looked up in.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) env: &'a dyn Fn(&str) -> Option<String>,
    /// What relative paths are relative to.
    pub(super) folder: &'a Path,
}

/// A secret and whether it was written out instead of named.
pub(super) type Resolved = (Secret, bool);

/// The warning for a secret that is written out in a file; follows the field's name.
pub(super) const WRITTEN_OUT: &str = "is written in the file; use \"env:NAME\" or \"file:PATH\"";

/// Resolves `env:NAME`, `file:PATH` or a literal into a credential that fits a header.
pub(super) fn credential(text: &str, around: Surroundings<'_>) -> Result<Resolved, String> {
    if text.starts_with('$') {
        return Err("is not expanded like in a shell; write \"env:NAME\"".to_owned());
    }
    let (secret, literal) = resolve(text, around)?;
    if is_credential(&secret) {
        return Ok((secret, literal));
    }
    let from = if literal { "it".to_owned() } else { quoted(text) };
    Err(format!(
        "holds a character that no credential has; look in {from} for spaces, line breaks and accents"
    ))
}

/// Stricter than a header value must be (RFC 9110 §5.5): no known credential holds a space, a copied line break is common.
pub(super) fn is_credential(secret: &Secret) -> bool {
    !secret.expose().is_empty() && secret.expose().bytes().all(|byte| byte.is_ascii_graphic())
}

/// Resolves `env:NAME`, `file:PATH` or a literal into a header value that `Debug` does not print.
pub(super) fn header_value(text: &str, around: Surroundings<'_>) -> Result<HeaderValue, String> {
    let (secret, _) = resolve(text, around)?;
    let mut value = HeaderValue::from_str(secret.expose())
        .map_err(|_| "holds a character that no header value has; look for line breaks and accents".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

fn resolve(text: &str, around: Surroundings<'_>) -> Result<Resolved, String> {
    let (secret, literal) = if let Some(name) = text.strip_prefix("env:") {
        (from_environment(name, around)?, false)
    } else if let Some(path) = text.strip_prefix("file:") {
        (from_file(path, around)?, false)
    } else {
        (text.to_owned(), true)
    };
    match (secret.is_empty(), literal) {
        (false, _) => Ok((Secret::new(secret), literal)),
        (true, false) => Err(format!("must not be empty, but {} is", quoted(text))),
        (true, true) => Err("must not be empty; write \"env:NAME\" or \"file:PATH\"".to_owned()),
    }
}

fn from_environment(name: &str, around: Surroundings<'_>) -> Result<String, String> {
    // Whatever is no name is not printed: it may be the secret itself.
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name {
        return Err("must have the name of an environment variable after \"env:\"".to_owned());
    }
    let missing = || format!("needs the environment variable {name}, which is not set; set it, or name another");
    (around.env)(name).ok_or_else(missing)
}

fn from_file(path: &str, around: Surroundings<'_>) -> Result<String, String> {
    if path.is_empty() {
        return Err("must have a path after \"file:\"".to_owned());
    }
    let path = around.folder.join(path);
    let text = read_file(&path, MAX_SECRET)
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "is not text".to_owned()))
        .map_err(|problem| format!("needs the file {}, which {problem}", shown(&path)))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A path, safe to print on a terminal.
pub(super) fn shown(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// Reads a file of at most `limit` bytes; the error is a predicate whose subject is the file.
pub(super) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(limit + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > limit {
        return Err(format!("is larger than {}", show_size(limit)));
    }
    Ok(bytes)
}

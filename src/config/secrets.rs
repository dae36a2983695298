//! Resolves secrets and reads the files that a configuration names. No error and no warning contains a secret.

use std::{
    fs::{self, File, FileType, OpenOptions},
    io::{self, Read},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

use http::HeaderValue;

use super::{
    inherited,
    values::{quoted, show_size},
};
use crate::secret::Secret;

/// The maximum size of a secret's file in bytes.
const MAX_SECRET: u64 = 64 << 10;

/// Returns the value of an environment variable.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment of this process.
pub(super) fn process_env(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// The context in which the references of a configuration (`env:NAME`, `file:PATH`, paths) are resolved.
#[derive(Clone, Copy)]
pub(super) struct ResolveContext<'a> {
    pub(super) env: Env<'a>,
    /// The folder to which relative paths are relative.
    pub(super) folder: &'a Path,
}

/// The form in which a user wrote a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecretForm {
    /// The name of an environment variable or a file.
    Reference,
    /// The secret itself, which is reported as a warning.
    Literal,
}

/// The warning for a literal secret in a file. It follows the field's name.
pub(super) const LITERAL_WARNING: &str = "is written in the file; use \"env:NAME\" or \"file:PATH\"";

/// Resolves `env:NAME`, `file:PATH` or a literal to a credential that may be sent in a header.
pub(super) fn credential(text: &str, context: ResolveContext<'_>) -> Result<(Secret, SecretForm), String> {
    if text.starts_with('$') {
        return Err("starts with \"$\", but variables are not expanded; write \"env:NAME\"".to_owned());
    }
    let (secret, form) = resolve(text, context)?;
    if is_credential(&secret) {
        return Ok((secret, form));
    }
    let origin = match form {
        SecretForm::Literal => "it".to_owned(),
        SecretForm::Reference => quoted(text),
    };
    Err(format!(
        "contains an invalid character; check {origin} for spaces, line breaks and accents"
    ))
}

/// Whether `secret` is visible ASCII. This is stricter than a header value must be (RFC 9110 §5.5), because no known credential
/// contains a space, and a copied line break is a common mistake.
pub(super) fn is_credential(secret: &Secret) -> bool {
    !secret.expose().is_empty() && secret.expose().bytes().all(|byte| byte.is_ascii_graphic())
}

/// Resolves `env:NAME`, `file:PATH` or a literal to a header value that `Debug` does not print.
pub(super) fn header_value(text: &str, context: ResolveContext<'_>) -> Result<(HeaderValue, SecretForm), String> {
    let (secret, form) = resolve(text, context)?;
    let mut value = HeaderValue::from_str(secret.expose())
        .map_err(|_| "contains an invalid character; check it for line breaks and accents".to_owned())?;
    value.set_sensitive(true);
    Ok((value, form))
}

fn resolve(text: &str, context: ResolveContext<'_>) -> Result<(Secret, SecretForm), String> {
    let (secret, form) = if let Some(name) = text.strip_prefix("env:") {
        (from_environment(name, context)?, SecretForm::Reference)
    } else if let Some(path) = text.strip_prefix("file:") {
        (from_file(path, context)?, SecretForm::Reference)
    } else {
        (text.to_owned(), SecretForm::Literal)
    };
    match (secret.is_empty(), form) {
        (false, _) => Ok((Secret::new(secret), form)),
        (true, SecretForm::Reference) => Err(format!("must not be empty, but {} is", quoted(text))),
        (true, SecretForm::Literal) => Err("must not be empty; write \"env:NAME\" or \"file:PATH\"".to_owned()),
    }
}

fn from_environment(name: &str, context: ResolveContext<'_>) -> Result<String, String> {
    // An invalid name is not printed, because it may be the secret itself.
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !is_name {
        return Err("must have the name of an environment variable after \"env:\"".to_owned());
    }
    let missing = || format!("needs the environment variable {name}, which is not set; set it, or name another");
    (context.env)(name).ok_or_else(missing)
}

fn from_file(path: &str, context: ResolveContext<'_>) -> Result<String, String> {
    if path.is_empty() {
        return Err("must have a path after \"file:\"".to_owned());
    }
    let path = context.folder.join(path);
    let text = read_named_file(&path, MAX_SECRET)
        .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned()))
        .map_err(|problem| format!("needs the file {}, which {problem}", quoted_path(&path)))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// A path in quotes, escaped for a terminal.
pub(super) fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// Reads a file that the configuration names, of at most `limit` bytes; the error is a predicate that follows the file's path.
/// The file must be a regular one, or a pipe that the process has inherited.
pub(super) fn read_named_file(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    match inherited::is_pipe(path) {
        true => inherited::read(path, limit),
        false => read_file(path, limit),
    }
}

/// Reads a regular file of at most `limit` bytes; the error is a predicate that follows the file's path. Any other kind of
/// file is refused before it is opened: a pipe blocks until another process writes to it, a device may never end, and
/// opening one can have effects.
pub(super) fn read_file(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let kind = |metadata: io::Result<fs::Metadata>| metadata.map(|metadata| metadata.file_type()).map_err(unreadable);
    check_regular(kind(fs::metadata(path))?)?;
    // The file may have been replaced meanwhile. A pipe that is opened without blocking does not wait for a writer.
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(unreadable)?;
    check_regular(kind(file.metadata())?)?;
    read_open(file, limit)
}

/// Reads a file of any kind, for example a pipe, of at most `limit` bytes; the error is a predicate that follows the file's
/// path.
pub(super) fn read_any_file(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    read_open(File::open(path).map_err(unreadable)?, limit)
}

fn read_open(file: File, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > limit {
        return Err(format!("is larger than {}", show_size(limit)));
    }
    Ok(bytes)
}

fn unreadable(error: io::Error) -> String {
    format!("cannot be read: {error}")
}

fn check_regular(kind: FileType) -> Result<(), String> {
    let what = match kind {
        _ if kind.is_file() => return Ok(()),
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(format!("cannot be read: it is {what}, not a regular file"))
}

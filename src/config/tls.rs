//! `server.tls`: the certificate that clients see.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{
    reader::{Reader, Schema, Section},
    secrets::{Surroundings, read_file, shown},
    values::text,
};
use crate::{
    secret::Secret,
    wire::{self, IdentityError},
};

/// The most that either file may hold.
const MOST: u64 = 1 << 20;

/// A certificate and its key, which fit each other.
#[derive(Clone, PartialEq, Eq)]
pub struct Tls {
    /// Where the certificates were read.
    pub cert: PathBuf,
    /// Certificates in PEM form: the server's own, then those that vouch for it.
    pub certificates: Vec<u8>,
    /// Where the key was read.
    pub key: PathBuf,
    /// The private key in PEM form.
    pub private_key: Secret,
    /// Where the certificates of those were read that vouch for clients, and these in PEM form; without, any client may
    /// shake hands.
    pub client_ca: Option<(PathBuf, Vec<u8>)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("cert", &self.cert)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

pub(super) const SCHEMA: Schema = Schema {
    name: "[server.tls]",
    prefix: "server.tls.",
    fields: &["cert", "key", "client_ca"],
};

/// Reads the table `tls` of `server`, where there is one.
pub(super) fn read(reader: &mut Reader<'_>, server: &Section<'_>, around: Surroundings<'_>) -> Option<Tls> {
    let section = reader.section(server, "tls", &SCHEMA);
    if !section.is_written() {
        return None;
    }
    for (field, remedy) in [("cert", "add cert = \"c.pem\""), ("key", "add key = \"k.pem\"")] {
        if section.get(field).is_none() {
            reader.missing(&section, format!("[server.tls] has no {field}; {remedy}"));
        }
    }
    let mut file = |field| {
        reader.read(&section, field, |value| {
            let path = text(value)?;
            if path.is_empty() {
                return Err("must be the path of a PEM file".to_owned());
            }
            let path = around.folder.join(path);
            let pem = read_file(&path, MOST).map_err(|why| needs(&path, &why))?;
            Ok((path, pem))
        })
    };
    let (cert, key, client_ca) = (file("cert"), file("key"), file("client_ca"));
    let ((cert, certificates), (key, private_key)) = cert.zip(key)?;
    // What is written and cannot be read must not let everybody in.
    if client_ca.is_none() && section.get("client_ca").is_some() {
        return None;
    }
    let authorities = client_ca.as_ref().map(|(_, pem)| pem.as_slice());
    let (field, problem) = match wire::server_config(&certificates, &private_key, authorities) {
        Ok(_) => {
            // What lies between PEM sections may be no text, and is of no use.
            let private_key = Secret::new(String::from_utf8_lossy(&private_key));
            return Some(Tls {
                cert,
                certificates,
                key,
                private_key,
                client_ca,
            });
        }
        Err(IdentityError::Certificate(why)) => ("cert", needs(&cert, &why)),
        Err(IdentityError::Key(why)) => ("key", needs(&key, &why)),
        Err(IdentityError::Authority(why)) => {
            let path = client_ca.as_ref().map_or(Path::new(""), |(path, _)| path);
            ("client_ca", needs(path, &why))
        }
        Err(IdentityError::Mismatch) => ("key", misfit(&cert, &key)),
        Err(error @ IdentityError::Library(_)) => ("cert", format!("is of no use: {error}")),
    };
    if let Some(value) = section.get(field) {
        reader.error(value, format!("{field} {problem}"));
    }
    None
}

fn needs(path: &Path, why: &str) -> String {
    format!("needs the file {}, which {why}", shown(path))
}

fn misfit(cert: &Path, key: &Path) -> String {
    let (cert, key) = (shown(cert), shown(key));
    format!("does not fit: the first certificate of {cert} was not made for the key in {key}; name its own key")
}

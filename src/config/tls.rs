//! `[server.tls]`: the certificate for clients.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{
    document::DocumentReader,
    fields::{server, tls},
    kinds::Text,
    reader::Section,
    schema::ConfigField,
    secrets::{ResolveContext, quoted_path, read_file},
};
use crate::{
    secret::Secret,
    wire::{self, IdentityError},
};

/// The maximum size of each of the files in bytes.
const MAX_PEM: u64 = 1 << 20;

/// A certificate and its private key, which match each other.
#[derive(Clone, PartialEq, Eq)]
pub struct Tls {
    /// The path of the certificates.
    pub cert: PathBuf,
    /// The certificates in PEM form: the server's own certificate, followed by the intermediate certificates.
    pub certificates: Vec<u8>,
    /// The path of the private key.
    pub key: PathBuf,
    /// The private key in PEM form.
    pub private_key: Secret,
    /// The path and the content (PEM) of the certificate authorities for client certificates; `None` if clients need no
    /// certificate.
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

/// Reads the table `tls` of `server`. Returns `None` if there is none or it is invalid.
pub(super) fn read(reader: &mut DocumentReader<'_>, server: &Section<'_>, context: ResolveContext<'_>) -> Option<Tls> {
    let section = reader.section(server, &server::TLS);
    if !section.is_written() {
        return None;
    }
    let mut file = |field: &ConfigField<Text>| {
        reader.read_text(&section, field, |path| {
            if path.is_empty() {
                return Err("must be the path of a PEM file".to_owned());
            }
            let path = context.folder.join(path);
            let pem = read_file(&path, MAX_PEM).map_err(|why| needs(&path, &why))?;
            Ok((path, pem))
        })
    };
    let (cert, key, client_ca) = (file(&tls::CERT), file(&tls::KEY), file(&tls::CLIENT_CA));
    let ((cert, certificates), (key, private_key)) = cert.zip(key)?;
    // An unreadable client_ca must not admit clients without a certificate.
    if client_ca.is_none() && section.get(&tls::CLIENT_CA).is_some() {
        return None;
    }
    let authorities = client_ca.as_ref().map(|(_, pem)| pem.as_slice());
    let (field, problem) = match wire::server_config(&certificates, &private_key, authorities) {
        Ok(_) => {
            // The bytes between the PEM sections are not used and may not be UTF-8.
            let private_key = Secret::new(String::from_utf8_lossy(&private_key));
            return Some(Tls {
                cert,
                certificates,
                key,
                private_key,
                client_ca,
            });
        }
        Err(IdentityError::Certificate(why)) => (&tls::CERT, needs(&cert, &why)),
        Err(IdentityError::Key(why)) => (&tls::KEY, needs(&key, &why)),
        Err(IdentityError::Authority(why)) => {
            let (path, _) = client_ca.as_ref().expect("only a client_ca has authorities");
            (&tls::CLIENT_CA, needs(path, &why))
        }
        Err(IdentityError::Mismatch) => (&tls::KEY, mismatch(&cert, &key)),
        Err(error @ IdentityError::Library(_)) => (&tls::CERT, format!("cannot be used: {error}")),
    };
    let value = section.get(field).expect("the value of the field has been read");
    reader.error(value, format!("{} {problem}", field.name));
    None
}

fn needs(path: &Path, why: &str) -> String {
    format!("needs the file {}, which {why}", quoted_path(path))
}

fn mismatch(cert: &Path, key: &Path) -> String {
    let (cert, key) = (quoted_path(cert), quoted_path(key));
    format!("does not fit: the first certificate of {cert} belongs to another key than {key}; use its own key")
}

//! Certificates: `[server.tls]` for clients, `client_certificate` and `ca` for upstreams.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{
    document::DocumentReader,
    fields::{server, tls, upstream},
    kinds::Text,
    reader::Section,
    schema::ConfigField,
    secrets::{ResolveContext, quoted_path, read_named_file},
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

/// A certificate that is shown to an upstream, and its private key, which match each other.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The path of the certificates.
    pub path: PathBuf,
    /// The certificates in PEM form: the client's own certificate, followed by the intermediate certificates.
    pub certificates: Vec<u8>,
    /// The path of the private key, which may be that of the certificates.
    pub key: PathBuf,
    /// The private key in PEM form.
    pub private_key: Secret,
}

/// Shows neither the certificates, whose file may contain the key, nor the key.
impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCertificate")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A file of PEM certificates, at least one.
#[derive(Clone, PartialEq, Eq)]
pub struct Ca {
    /// The path of the file.
    pub path: PathBuf,
    /// The content of the file.
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

/// Reads `client_certificate` and `client_key` of an upstream. Returns `None` if there is none or it is invalid.
pub(super) fn read_client(
    reader: &mut DocumentReader<'_>,
    section: &Section<'_>,
    context: ResolveContext<'_>,
) -> Option<ClientCertificate> {
    let written_key = section.get(&upstream::CLIENT_KEY);
    if let (Some(key), None) = (written_key, section.get(&upstream::CLIENT_CERTIFICATE)) {
        reader.error(key, "client_key needs client_certificate; add it, or remove client_key");
        return None;
    }
    let mut file = |field: &ConfigField<Text>| reader.read_text(section, field, |path| read_pem(path, context));
    let (path, certificates) = file(&upstream::CLIENT_CERTIFICATE)?;
    let (key_field, key_path, key) = match written_key {
        Some(_) => {
            let (path, pem) = file(&upstream::CLIENT_KEY)?;
            (&upstream::CLIENT_KEY, path, pem)
        }
        None => (&upstream::CLIENT_CERTIFICATE, path.clone(), certificates.clone()),
    };
    let (field, problem) = match wire::client_identity(&certificates, &key) {
        Ok(_) => {
            // The bytes between the PEM sections are not used and may not be UTF-8.
            let private_key = Secret::new(String::from_utf8_lossy(&key));
            return Some(ClientCertificate {
                path,
                certificates,
                key: key_path,
                private_key,
            });
        }
        Err(IdentityError::Certificate(why) | IdentityError::Authority(why)) => {
            (&upstream::CLIENT_CERTIFICATE, needs(&path, &why))
        }
        Err(IdentityError::Key(why)) if written_key.is_none() => {
            let why = format!("{why}; name the file of the key with client_key");
            (key_field, needs(&key_path, &why))
        }
        Err(IdentityError::Key(why)) => (key_field, needs(&key_path, &why)),
        Err(IdentityError::Mismatch) => (key_field, mismatch(&path, &key_path)),
        Err(error @ IdentityError::Library(_)) => (&upstream::CLIENT_CERTIFICATE, format!("cannot be used: {error}")),
    };
    let value = section.get(field).expect("the value of the field has been read");
    reader.error(value, format!("{} {problem}", field.name));
    None
}

fn read_pem(path: &str, context: ResolveContext<'_>) -> Result<(PathBuf, Vec<u8>), String> {
    if path.is_empty() {
        return Err("must be the path of a PEM file".to_owned());
    }
    let path = context.folder.join(path);
    let pem = read_named_file(&path, MAX_PEM).map_err(|why| needs(&path, &why))?;
    Ok((path, pem))
}

/// Reads the table `tls` of `server`. Returns `None` if there is none or it is invalid.
pub(super) fn read(reader: &mut DocumentReader<'_>, server: &Section<'_>, context: ResolveContext<'_>) -> Option<Tls> {
    let section = reader.section(server, &server::TLS);
    if !section.is_written() {
        return None;
    }
    let mut file = |field: &ConfigField<Text>| reader.read_text(&section, field, |path| read_pem(path, context));
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

/// Reads `ca` of an upstream.
pub(super) fn parse_ca(path: &str, context: ResolveContext<'_>) -> Result<Ca, String> {
    const MOST: u64 = 4 << 20;
    if path.is_empty() {
        return Err("must be the path of a PEM file".to_owned());
    }
    let path = context.folder.join(path);
    let unusable = |why: String| format!("needs the file {}, which {why}", quoted_path(&path));
    let pem = read_named_file(&path, MOST).map_err(unusable)?;
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

fn needs(path: &Path, why: &str) -> String {
    format!("needs the file {}, which {why}", quoted_path(path))
}

fn mismatch(cert: &Path, key: &Path) -> String {
    let (cert, key) = (quoted_path(cert), quoted_path(key));
    format!("does not fit: the first certificate of {cert} belongs to another key than {key}; use its own key")
}

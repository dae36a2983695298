//! Addresses to listen on.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::net::SocketAddr as UnixAddr,
    path::{Path, PathBuf},
};

use super::values::quoted;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// An IP address and port; port 0 lets the system choose a free port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Listen {
    /// Parses `IP:PORT`, `localhost:PORT`, or `unix:PATH` with a path relative to `folder`.
    ///
    /// # Errors
    /// If the text is invalid. The message says what the text must be, as a predicate that follows the field's name.
    pub(super) fn parse(text: &str, folder: &Path) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = folder.join(path);
            return match UnixAddr::from_pathname(&path) {
                Ok(address) if !address.is_unnamed() && !text.ends_with(['/', ':']) => Ok(Self::Unix(path)),
                Ok(_) => Err("must have the path of a socket after \"unix:\"".to_owned()),
                Err(_) => Err("has a socket path that is too long for this system; use a shorter one".to_owned()),
            };
        }
        parse_socket_addr(text).map(Self::Tcp)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Parses an IP address and port; `localhost` is 127.0.0.1 without a lookup (RFC 6761 §6.3).
///
/// # Errors
/// If the text is invalid. The message says what the text must be, as a predicate that follows the field's name.
pub(super) fn parse_socket_addr(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let wrong = || {
        format!(
            "must be an IP address and port such as \"127.0.0.1:8080\", not {}",
            quoted(text)
        )
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let has_digits_only = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port: u16 = port.parse().ok().filter(|_| has_digits_only).ok_or_else(wrong)?;
    match host {
        "localhost" => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        "" | "*" => Err(format!(
            "must name the address to listen on; write \"127.0.0.1:{port}\""
        )),
        _ => Err(wrong()),
    }
}

/// Whether only processes on this machine can connect to `address`.
pub(super) fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_parsed() {
        for (written, read) in [
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("[::1]:0", Some("[::1]:0")),
            ("localhost:80", Some("127.0.0.1:80")),
            ("localhost:+80", None),
            ("localhost", None),
            ("localhost:65536", None),
            (":8080", None),
            ("*:8080", None),
            ("8080", None),
            ("example.com:80", None),
            ("", None),
        ] {
            let expected = read.map(|address| address.parse().unwrap());
            assert_eq!(parse_socket_addr(written).ok(), expected, "{written}");
        }
    }

    #[test]
    fn socket_paths_are_relative_to_the_folder() {
        let folder = Path::new("/etc/steadfast");
        assert_eq!(
            Listen::parse("unix:s.sock", folder),
            Ok(Listen::Unix("/etc/steadfast/s.sock".into()))
        );
        assert_eq!(
            Listen::parse("unix:/run/s.sock", folder),
            Ok(Listen::Unix("/run/s.sock".into()))
        );
        for wrong in ["unix:", "unix:/run/", "unix:a\0b", &format!("unix:{}", "x".repeat(200))] {
            assert!(Listen::parse(wrong, folder).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in any::<String>()) {
            let _ = Listen::parse(&text, Path::new(""));
        }
    }
}

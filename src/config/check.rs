//! Checks that concern more than one field. They run after the file and the flags have been read.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use super::{
    errors::{Located, Location, ProblemList},
    listen::{Listen, is_loopback},
    settings::{AdminSettings, ServerSettings},
};

/// The addresses as the user wrote them, and the settings that decide whether they are allowed. `None` stands for the
/// default addresses.
pub(super) struct ListenerCheck<'a> {
    pub(super) public: Option<&'a [Located<Listen>]>,
    pub(super) admin: Option<&'a [Located<SocketAddr>]>,
    pub(super) has_token: bool,
    pub(super) has_client_keys: bool,
    pub(super) has_tls: bool,
    /// The location at which `allow_anonymous` is set to true; `None` if it is not.
    pub(super) anonymous: Option<&'a Location>,
}

impl ListenerCheck<'_> {
    /// Reports everything that is wrong with the addresses.
    pub(super) fn run(&self, problems: &mut ProblemList) {
        self.check_public(problems);
        if let (true, Some(location)) = (self.has_client_keys, self.anonymous) {
            let message = "allow_anonymous cannot be combined with client keys; remove allow_anonymous or the keys";
            problems.error(location.clone(), message);
        }
        self.check_admin(problems);
        self.check_between(problems);
    }

    fn check_public(&self, problems: &mut ProblemList) {
        let mut earlier: Vec<&Listen> = Vec::new();
        for (location, address) in self.public.into_iter().flatten() {
            if let Listen::Tcp(tcp) = address
                && !is_loopback(tcp)
            {
                self.check_reachable(location, tcp, problems);
            }
            if earlier.iter().any(|other| clash(other, address)) {
                let message = format!("listen has \"{address}\" twice; keep one");
                problems.error(location.clone(), message);
            }
            earlier.push(address);
        }
    }

    fn check_admin(&self, problems: &mut ProblemList) {
        let mut earlier: Vec<&SocketAddr> = Vec::new();
        for (location, address) in self.admin.into_iter().flatten() {
            if !is_loopback(address) && !self.has_token {
                let message = format!(
                    "admin.listen \"{address}\" is not loopback, so it needs a token: set admin.token = \"env:NAME\", or listen on \"127.0.0.1:{}\"",
                    address.port()
                );
                problems.error(location.clone(), message);
            }
            if address.port() != 0 && earlier.contains(&address) {
                let message = format!("admin.listen has \"{address}\" twice; keep one");
                problems.error(location.clone(), message);
            }
            earlier.push(address);
        }
    }

    /// Checks a public address that other machines can reach.
    fn check_reachable(&self, location: &Location, address: &SocketAddr, problems: &mut ProblemList) {
        let port = address.port();
        if self.has_client_keys {
            if !self.has_tls {
                let message = format!(
                    "listen \"{address}\" is plain HTTP, so client keys are sent unencrypted; set server.tls, or listen on a loopback address behind a proxy that terminates TLS"
                );
                problems.warn(location.clone(), message);
            }
        } else if self.anonymous.is_some() {
            let message = format!(
                "everyone who can connect to \"{address}\" can use your upstream keys: allow_anonymous is set and there are no client keys"
            );
            problems.warn(location.clone(), message);
        } else {
            let message = format!(
                "listen may only be a loopback address such as \"127.0.0.1:{port}\", not \"{address}\": without client keys, everyone who can connect can use your upstream keys; make keys with \"steadfast key\", or set allow_anonymous = true to allow it"
            );
            problems.error(location.clone(), message);
        }
    }

    /// Checks that the two listeners do not share an address. If a written address clashes with a default one, the written one
    /// is reported.
    fn check_between(&self, problems: &mut ProblemList) {
        let message = |address: &SocketAddr| {
            format!("\"{address}\" is used by both server.listen and admin.listen; change one of them")
        };
        match (self.public, self.admin) {
            (public, Some(admin)) => {
                let default = ServerSettings::default().listen;
                let is_taken = |address: &Listen| match public {
                    Some(public) => public.iter().any(|(_, other)| clash(other, address)),
                    None => default.iter().any(|other| clash(other, address)),
                };
                for (location, address) in admin.iter().filter(|(_, address)| is_taken(&Listen::Tcp(*address))) {
                    problems.error(location.clone(), message(address));
                }
            }
            (Some(public), None) => {
                for address in AdminSettings::default().listen {
                    for (location, _) in public.iter().filter(|(_, other)| clash(other, &Listen::Tcp(address))) {
                        problems.error(location.clone(), message(&address));
                    }
                }
            }
            (None, None) => {}
        }
    }
}

/// Whether one process cannot listen on both addresses. Port 0 is a different port each time.
fn clash(a: &Listen, b: &Listen) -> bool {
    match (a, b) {
        (Listen::Tcp(a), Listen::Tcp(b)) => {
            let (x, y) = (a.ip().to_canonical(), b.ip().to_canonical());
            a.port() == b.port() && a.port() != 0 && (x == y || covers(x, y) || covers(y, x))
        }
        (Listen::Unix(a), Listen::Unix(b)) => a == b,
        (Listen::Tcp(_), Listen::Unix(_)) | (Listen::Unix(_), Listen::Tcp(_)) => false,
    }
}

/// Whether listening on `any` includes `other`: the unspecified address of IPv6 includes IPv4 (RFC 3493 §5.3).
pub(super) fn covers(any: IpAddr, other: IpAddr) -> bool {
    any.is_unspecified() && (any.is_ipv6() || other.is_ipv4())
}

/// Reports upstream names that are used twice. Sessions are hashed to names, so two upstreams with one name would get
/// the same sessions.
pub(super) fn check_upstream_names(names: &[Located<String>], problems: &mut ProblemList) {
    let mut seen = HashSet::with_capacity(names.len());
    for (location, name) in names {
        if !seen.insert(name) {
            let message = format!("the upstream name \"{name}\" is taken; names must be unique");
            problems.error(location.clone(), message);
        }
    }
}

//! Checks what concerns more than one field, once file and flags are both read.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
};

use super::{
    Admin, Listen, Server,
    errors::{Notes, Place},
    values::is_loopback,
};

/// A value that was written down, and where.
pub(super) type Placed<T> = (Place, T);

/// Checks the addresses as written; where nothing was written, the defaults hold.
pub(super) struct Listeners<'a> {
    pub(super) public: Option<&'a [Placed<Listen>]>,
    pub(super) admin: Option<&'a [Placed<SocketAddr>]>,
    pub(super) has_token: bool,
    pub(super) has_client_keys: bool,
    pub(super) has_tls: bool,
    /// Where it is said that anybody may call.
    pub(super) anonymous: Option<&'a Place>,
}

impl Listeners<'_> {
    pub(super) fn check(&self, notes: &mut Notes) {
        let public = self.public.unwrap_or_default();
        for (index, (place, address)) in public.iter().enumerate() {
            if let Listen::Tcp(tcp) = address
                && !is_loopback(tcp)
            {
                self.check_open(place, tcp, notes);
            }
            let earlier = public.iter().take(index).any(|(_, other)| clash(other, address));
            if earlier {
                notes.error(place.clone(), format!("listen has \"{address}\" twice; keep one"));
            }
        }
        if let (true, Some(place)) = (self.has_client_keys, self.anonymous) {
            let message =
                "allow_anonymous is for a gateway without client keys, and there are some; remove it, or them";
            notes.error(place.clone(), message);
        }
        let admin = self.admin.unwrap_or_default();
        for (index, (place, address)) in admin.iter().enumerate() {
            if !is_loopback(address) && !self.has_token {
                notes.error(
                    place.clone(),
                    format!(
                        "admin.listen \"{address}\" is not loopback, so it needs a token: set admin.token = \"env:NAME\", or listen on \"127.0.0.1:{}\"",
                        address.port()
                    ),
                );
            }
            if admin
                .iter()
                .take(index)
                .any(|(_, other)| other == address && address.port() != 0)
            {
                notes.error(place.clone(), format!("admin.listen has \"{address}\" twice; keep one"));
            }
        }
        self.check_between(notes);
    }

    /// An address that others can reach.
    fn check_open(&self, place: &Place, address: &SocketAddr, notes: &mut Notes) {
        let port = address.port();
        if self.has_client_keys {
            if !self.has_tls {
                let message = format!(
                    "listen \"{address}\" is plain HTTP, so client keys cross the network in the clear; set server.tls, or put what ends TLS on this machine"
                );
                notes.warn(place.clone(), message);
            }
        } else if self.anonymous.is_some() {
            let message = format!(
                "whoever reaches \"{address}\" spends your upstream keys: allow_anonymous is set and there are no client keys"
            );
            notes.warn(place.clone(), message);
        } else {
            let message = format!(
                "listen may only be a loopback address such as \"127.0.0.1:{port}\", not \"{address}\": there are no client keys, so whoever connects spends your upstream keys; make keys with \"steadfast key\", or set allow_anonymous = true if that is meant"
            );
            notes.error(place.clone(), message);
        }
    }

    /// The two listeners must be apart. A clash of a written address with a default is reported at the written one.
    fn check_between(&self, notes: &mut Notes) {
        let message = |address: &SocketAddr| {
            format!("\"{address}\" is wanted by both server.listen and admin.listen; change one of them")
        };
        match (self.public, self.admin) {
            (public, Some(admin)) => {
                let default = Server::default().listen;
                let taken = |address: &Listen| match public {
                    Some(public) => public.iter().any(|(_, other)| clash(other, address)),
                    None => default.iter().any(|other| clash(other, address)),
                };
                for (place, address) in admin.iter().filter(|(_, address)| taken(&Listen::Tcp(*address))) {
                    notes.error(place.clone(), message(address));
                }
            }
            (Some(public), None) => {
                for address in Admin::default().listen {
                    let clashing = public.iter().filter(|(_, other)| clash(other, &Listen::Tcp(address)));
                    clashing.for_each(|(place, _)| notes.error(place.clone(), message(&address)));
                }
            }
            (None, None) => {}
        }
    }
}

/// Whether the two cannot be listened on at once. Port 0 is another port each time.
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

/// Whether listening on `any` takes `other` too: the unspecified address of IPv6 takes IPv4 along (RFC 3493 §5.3).
fn covers(any: IpAddr, other: IpAddr) -> bool {
    any.is_unspecified() && (any.is_ipv6() || other.is_ipv4())
}

/// Names are identities: two upstreams of one name would be one to every session.
pub(super) fn names(names: &[Placed<String>], notes: &mut Notes) {
    let mut seen = HashSet::with_capacity(names.len());
    for (place, name) in names {
        if !seen.insert(name) {
            notes.error(
                place.clone(),
                format!("the upstream name \"{name}\" is taken; names must be unique"),
            );
        }
    }
}

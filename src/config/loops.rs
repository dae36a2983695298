//! Finds upstreams whose base URL leads back to this gateway.
//!
//! Only what can be seen without the network is judged: addresses, names of loopback, the names in `/etc/hosts`, and the
//! name of this machine. Other loops are found when a request comes back.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket},
    path::Path,
};

use super::{
    base_url::BaseUrl,
    check::covers,
    errors::{Located, ProblemList},
    listen::Listen,
};

/// The addresses on which this gateway listens.
pub(super) struct OwnAddresses<'a> {
    /// `server.listen`.
    pub(super) public: &'a [Listen],
    /// `admin.listen`.
    pub(super) admin: &'a [SocketAddr],
}

impl OwnAddresses<'_> {
    /// Reports each base URL that leads to one of the addresses. `urls` are those of the upstreams that are called directly:
    /// where a proxy connects to is not known here.
    pub(super) fn check(&self, urls: &[Located<BaseUrl>], problems: &mut ProblemList) {
        for (location, url) in urls {
            let host = HostAddresses::find(url);
            let is_reached = |address: &&SocketAddr| url.port() == address.port() && host.reaches(address.ip());
            let mut public = self.public.iter().filter_map(|listen| match listen {
                Listen::Tcp(address) => Some(address),
                Listen::Unix(_) => None,
            });
            if let Some(address) = public.find(is_reached) {
                let message = format!(
                    "base_url leads back to this gateway, which listens on \"{address}\" (server.listen), so no request would reach an account; use the URL of the account, or change server.listen"
                );
                problems.error(location.clone(), message);
            } else if let Some(address) = self.admin.iter().find(is_reached) {
                let message = format!(
                    "base_url leads to the admin listener of this gateway on \"{address}\" (admin.listen), which serves no models; use the URL of the account, or change admin.listen"
                );
                problems.error(location.clone(), message);
            }
        }
    }
}

/// The addresses of the host of a base URL.
struct HostAddresses {
    /// The addresses that are known without the network.
    known: Vec<IpAddr>,
    /// Whether the host is the name of this machine.
    is_own_name: bool,
}

impl HostAddresses {
    fn find(url: &BaseUrl) -> Self {
        let host = url.host();
        let name = host.strip_suffix('.').unwrap_or(host);
        let mut known = addresses_of(name);
        // A connection to the unspecified address goes to this machine.
        for address in &mut known {
            *address = match address.to_canonical() {
                IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
                address => address,
            };
        }
        Self {
            known,
            is_own_name: own_name().is_some_and(|own| own.eq_ignore_ascii_case(name)),
        }
    }

    /// Whether a connection to the host reaches a socket that listens on `listen`.
    fn reaches(&self, listen: IpAddr) -> bool {
        let listen = listen.to_canonical();
        let is_reached =
            |address: &IpAddr| *address == listen || covers(listen, *address) && is_of_this_machine(*address);
        self.is_own_name && listen.is_unspecified() || self.known.iter().any(is_reached)
    }
}

/// The addresses of a host, as far as they are known without the network.
fn addresses_of(name: &str) -> Vec<IpAddr> {
    if let Ok(address) = name.parse() {
        return vec![address];
    }
    let last = name.rsplit_once('.').map_or(name, |(_, last)| last);
    // RFC 6761 section 6.3: localhost and its subdomains.
    if last.eq_ignore_ascii_case("localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    // The resolver reads `127.1` and `2130706433` as addresses, and asks no server about names that end in a number.
    if last.starts_with(|first: char| first.is_ascii_digit())
        && last.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'x')
    {
        let found = (name, 0).to_socket_addrs();
        return found.map_or_else(|_| Vec::new(), |found| found.map(|address| address.ip()).collect());
    }
    let hosts = fs::read_to_string(Path::new("/etc/hosts")).unwrap_or_default();
    addresses_in(&hosts, name)
}

/// The addresses of `name` in the text of a file like `/etc/hosts`.
fn addresses_in(hosts: &str, name: &str) -> Vec<IpAddr> {
    let entries = hosts.lines().filter_map(|line| {
        let line = line.split_once('#').map_or(line, |(text, _)| text);
        let mut words = line.split_ascii_whitespace();
        let address: IpAddr = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    });
    entries.collect()
}

/// The name of this machine.
fn own_name() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

/// Whether an address belongs to this machine: only then a socket can be bound to it. No packet is sent.
fn is_of_this_machine(address: IpAddr) -> bool {
    address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::errors::Location;

    /// The report about a base URL on a machine that listens on these addresses.
    fn report(url: &str, public: &str, admin: &str) -> String {
        let url = BaseUrl::parse(url).expect("a base URL");
        let location = Location::Flag("here".to_owned());
        let public = Listen::parse(public, Path::new("")).expect("an address");
        let mut problems = ProblemList::default();
        let own = OwnAddresses {
            public: &[public],
            admin: &[admin.parse().expect("an address")],
        };
        own.check(&[(location, url)], &mut problems);
        problems
            .finish()
            .map_or_else(|errors| errors.to_string(), |_| String::new())
    }

    #[test]
    fn a_url_that_reaches_an_own_address_is_found() {
        const ADMIN: &str = "127.0.0.1:8081";
        for (url, listen, is_own) in [
            ("http://127.0.0.1:8080/v1", "127.0.0.1:8080", true),
            ("https://127.0.0.1:8080/v1", "127.0.0.1:8080", true),
            ("http://127.0.0.1/v1", "127.0.0.1:80", true),
            ("https://127.0.0.1/v1", "127.0.0.1:443", true),
            ("http://127.0.0.1/v1", "127.0.0.1:443", false),
            ("http://127.0.0.1:8082/v1", "127.0.0.1:8080", false),
            ("http://LocalHost:8080/v1", "127.0.0.1:8080", true),
            ("http://localhost:8080", "[::1]:8080", true),
            ("http://api.localhost:8080/v1", "127.0.0.1:8080", true),
            ("http://0.0.0.0:8080/v1", "127.0.0.1:8080", true),
            ("http://[::]:8080/v1", "[::1]:8080", true),
            ("http://[::1]:8080/v1", "[::1]:8080", true),
            ("http://[::1]:8080/v1", "127.0.0.1:8080", false),
            ("http://[::ffff:127.0.0.1]:8080/v1", "127.0.0.1:8080", true),
            ("http://127.0.0.2:8080/v1", "127.0.0.1:8080", false),
            ("http://127.0.0.2:8080/v1", "0.0.0.0:8080", true),
            ("http://127.0.0.2:8080/v1", "[::]:8080", true),
            ("http://[::1]:8080/v1", "0.0.0.0:8080", false),
            ("http://localhost:8080/v1", "0.0.0.0:8080", true),
            ("http://localhost:8080/v1", "unix:/run/s.sock", false),
            ("http://192.0.2.7:8080/v1", "0.0.0.0:8080", false),
            ("http://192.0.2.7:8080/v1", "192.0.2.7:8080", true),
            ("http://upstream.example:8080/v1", "0.0.0.0:8080", false),
        ] {
            let found = report(url, listen, ADMIN);
            let expected = format!("here: base_url leads back to this gateway, which listens on \"{listen}\"");
            assert_eq!(found.starts_with(&expected), is_own, "{url} {listen}: {found}");
            assert_eq!(found.is_empty(), !is_own, "{url} {listen}: {found}");
        }
    }

    #[test]
    fn a_url_that_reaches_the_admin_listener_is_found() {
        let found = report("http://localhost:8081/v1", "127.0.0.1:8080", "127.0.0.1:8081");
        let expected = "here: base_url leads to the admin listener of this gateway on \"127.0.0.1:8081\"";
        assert!(found.starts_with(expected), "{found}");
    }

    #[test]
    fn the_name_of_this_machine_reaches_a_socket_that_listens_on_all_addresses() {
        let Some(name) = own_name().filter(|name| BaseUrl::parse(&format!("http://{name}:8080/v1")).is_ok()) else {
            return;
        };
        let found = report(&format!("http://{name}:8080/v1"), "0.0.0.0:8080", "127.0.0.1:8081");
        assert!(found.contains("leads back to this gateway"), "{found}");
    }

    #[test]
    fn names_are_found_in_the_file_of_hosts() {
        let hosts = "127.0.0.1 localhost\n# 10.0.0.1 gateway\n10.0.0.2\tgateway.internal  Gateway # gateway2\nfe80::1 gateway\nx gateway";
        let found = |name| addresses_in(hosts, name);
        assert_eq!(
            found("gateway"),
            ["10.0.0.2", "fe80::1"].map(|address| address.parse::<IpAddr>().unwrap())
        );
        assert_eq!(found("gateway2"), [] as [IpAddr; 0]);
    }
}

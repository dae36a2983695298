//! The proxy of an upstream: `proxy` in its table, or what the environment says.
//!
//! hyper-util reads the URL of a proxy, with its credentials, and decides by `NO_PROXY` which upstreams use it.

use std::fmt;

use http::{
    HeaderValue, Uri,
    uri::{Authority, Scheme},
};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::{
    base_url::{BaseUrl, parse_authority},
    document::DocumentReader,
    errors::{Location, ProblemList},
    fields::upstream,
    reader::Section,
    secrets::{Env, LITERAL_WARNING, ResolveContext, SecretForm, credential},
};
use crate::secret::Secret;

/// The form of a proxy's URL, as the end of a sentence.
const SHAPE: &str = "must be the URL of a proxy, such as \"http://proxy.example:3128\", with http, https or socks5";

/// A forward proxy, through which the connections to an upstream are opened. `Debug` shows no credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamProxy {
    /// The host and the port of the proxy.
    pub address: Authority,
    /// How the proxy is asked for a tunnel.
    pub protocol: ProxyScheme,
}

/// How a proxy is asked for a tunnel, by the scheme of its URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyScheme {
    /// `http://` and `https://`: CONNECT.
    Http {
        /// Whether the proxy itself is called over TLS.
        is_secure: bool,
        /// The value of `Proxy-Authorization`, marked as sensitive.
        authorization: Option<HeaderValue>,
    },
    /// `socks5://` and `socks5h://`: SOCKS 5. The proxy resolves the name of the upstream in both cases.
    Socks5 {
        /// User and password, each at most 255 bytes.
        credentials: Option<(String, Secret)>,
    },
}

/// Shows the scheme, the host and the port.
impl fmt::Display for UpstreamProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            ProxyScheme::Http { is_secure: false, .. } => "http",
            ProxyScheme::Http { is_secure: true, .. } => "https",
            ProxyScheme::Socks5 { .. } => "socks5",
        };
        write!(f, "{scheme}://{}", self.address)
    }
}

/// What `proxy` of an upstream says.
enum Configured {
    /// The upstream is called directly, whatever the environment says.
    Direct,
    /// The upstream is called through this proxy.
    Through(UpstreamProxy, SecretForm),
}

/// Reads the proxy of the upstream at `url`. Without `proxy` in its table, the environment decides, and a warning says so.
pub(super) fn read(
    reader: &mut DocumentReader<'_>,
    section: &Section<'_>,
    url: &BaseUrl,
    context: ResolveContext<'_>,
) -> Option<UpstreamProxy> {
    if let Some(value) = section.get(&upstream::PROXY) {
        return match reader.read_text(section, &upstream::PROXY, |text| parse(text, context))? {
            Configured::Direct => None,
            Configured::Through(proxy, form) => {
                if form == SecretForm::Literal && proxy.has_credentials() {
                    reader.warn(
                        value,
                        format!("the password of proxy {LITERAL_WARNING} for the whole URL"),
                    );
                }
                Some(proxy)
            }
        };
    }
    let value = section.get(&upstream::BASE_URL)?;
    let location = reader.location_of(value);
    from_environment(&mut reader.problems, &location, url, context.env)
}

fn parse(text: &str, context: ResolveContext<'_>) -> Result<Configured, String> {
    if text == "direct" || text == "none" {
        return Ok(Configured::Direct);
    }
    let (url, form) = credential(text, context)?;
    let proxy = UpstreamProxy::parse(url.expose()).ok_or(SHAPE)?;
    Ok(Configured::Through(proxy, form))
}

/// The proxy that the environment names for the upstream at `url`, with a warning at `location`. As with curl, the scheme
/// of the upstream selects the variable, a name in lower case comes first, and `HTTP_PROXY` is ignored in a CGI program,
/// where a client can set it by a header.
pub(super) fn from_environment(
    problems: &mut ProblemList,
    location: &Location,
    url: &BaseUrl,
    env: Env<'_>,
) -> Option<UpstreamProxy> {
    let first_of = |names: &[&'static str]| {
        let mut set = names.iter().filter_map(|name| Some((*name, env(name)?)));
        set.find(|(_, value)| !value.is_empty())
    };
    let names: &[&str] = if url.is_https() {
        &["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    } else if env("REQUEST_METHOD").is_some() {
        &["http_proxy", "all_proxy", "ALL_PROXY"]
    } else {
        &["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]
    };
    let (name, value) = first_of(names)?;
    let (_, exceptions) = first_of(&["no_proxy", "NO_PROXY"]).unwrap_or_default();
    let origin = Uri::builder()
        .scheme(url.scheme().clone())
        .authority(url.authority().clone())
        .path_and_query("/")
        .build()
        .expect("a scheme, an authority and a path make a URI");
    // A proxy for everything tells only whether this upstream is an exception.
    let any = Matcher::builder()
        .all("http://proxy.invalid")
        .no(exceptions_at(&exceptions, url))
        .build();
    any.intercept(&origin)?;
    let proxy = UpstreamProxy::parse(&value);
    match &proxy {
        Some(proxy) => problems.warn(
            location.clone(),
            format!(
                "the upstream is reached through the proxy {proxy}, because {name} is set; to reach it directly, set proxy = \"direct\", or NO_PROXY"
            ),
        ),
        None => problems.warn(
            location.clone(),
            format!("{name} is ignored: it {SHAPE}"),
        ),
    }
    proxy
}

/// The exceptions of a `NO_PROXY` that may concern `url`, in the form that hyper-util reads. Go and Python also accept
/// `*.example`, `host:port` and `[::1]`, and curl accepts spaces between names.
fn exceptions_at(list: &str, url: &BaseUrl) -> String {
    let default_port = if url.is_https() { 443 } else { 80 };
    let port = url.authority().port_u16().unwrap_or(default_port);
    let names = list.split([',', ' ']).filter_map(|name| {
        let name = match name.rsplit_once(':') {
            Some((host, digits)) if !host.contains(':') || host.ends_with(']') => {
                (digits.parse() == Ok(port)).then_some(host)?
            }
            _ => name,
        };
        let name = name.trim_start_matches('[').trim_end_matches(']');
        let domain = name.strip_prefix('*').filter(|rest| rest.starts_with('.'));
        Some(domain.unwrap_or(name))
    });
    names.collect::<Vec<_>>().join(",")
}

impl UpstreamProxy {
    /// Reads the URL of a proxy. A URL without a scheme must have a port, and stands for `http://`.
    fn parse(text: &str) -> Option<Self> {
        let (has_scheme, rest) = match text.split_once("://") {
            Some((_, rest)) => (true, rest),
            None => (false, text),
        };
        // A "/" in a password would end the host before it, so a part of the password would become the host.
        if rest.strip_suffix('/').unwrap_or(rest).contains(['/', '?', '#']) {
            return None;
        }
        let matcher = Matcher::builder().all(text).build();
        let proxy = matcher.intercept(&Uri::from_static("https://any.invalid/"))?;
        if !has_scheme && proxy.uri().port().is_none() {
            return None;
        }
        let scheme = proxy.uri().scheme()?;
        let (protocol, default_port) = if *scheme == Scheme::HTTP {
            (ProxyScheme::http(&proxy), 80)
        } else if *scheme == Scheme::HTTPS {
            (ProxyScheme::http(&proxy), 443)
        } else if matches!(scheme.as_str(), "socks5" | "socks5h") {
            (ProxyScheme::socks5(&proxy)?, 1080)
        } else {
            return None;
        };
        let written = parse_authority(proxy.uri().authority()?.as_str())?;
        let address = match written.port() {
            Some(_) => written,
            None => format!("{written}:{default_port}").parse().ok()?,
        };
        Some(Self { address, protocol })
    }

    /// Whether the proxy itself is called over TLS.
    pub fn is_secure(&self) -> bool {
        matches!(self.protocol, ProxyScheme::Http { is_secure: true, .. })
    }

    fn has_credentials(&self) -> bool {
        match &self.protocol {
            ProxyScheme::Http { authorization, .. } => authorization.is_some(),
            ProxyScheme::Socks5 { credentials } => credentials.is_some(),
        }
    }
}

impl ProxyScheme {
    fn http(proxy: &Intercept) -> Self {
        Self::Http {
            is_secure: proxy.uri().scheme() == Some(&Scheme::HTTPS),
            authorization: proxy.basic_auth().cloned(),
        }
    }

    /// `None` if the user or the password is too long (RFC 1929).
    fn socks5(proxy: &Intercept) -> Option<Self> {
        const MOST: usize = 255;
        let credentials = match proxy.raw_auth() {
            Some((user, password)) if user.len().max(password.len()) <= MOST => {
                Some((user.to_owned(), Secret::new(password)))
            }
            Some(_) => return None,
            None => None,
        };
        Some(Self::Socks5 { credentials })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn shown(text: &str) -> Option<String> {
        UpstreamProxy::parse(text).map(|proxy| proxy.to_string())
    }

    #[test]
    fn the_url_of_a_proxy_is_read() {
        for (text, expected) in [
            ("http://p:3128", Some("http://p:3128")),
            ("http://u:canary@p:3128/", Some("http://p:3128")),
            ("HTTP://p", Some("http://p:80")),
            ("https://p", Some("https://p:443")),
            ("socks5://u:canary@p", Some("socks5://p:1080")),
            ("socks5h://[::1]:9", Some("socks5://[::1]:9")),
            ("p:3128", Some("http://p:3128")),
            ("u:canary@p:3128", Some("http://p:3128")),
            ("p", None),
            ("sk-1", None),
            ("", None),
            ("ftp://p:1", None),
            ("socks4://p:1", None),
            ("http://user:12/34@p:1", None),
            ("http://p:1/path", None),
            ("http://p:1?q", None),
            ("http://p:1#f", None),
            ("http://", None),
            ("http://:1", None),
            ("http://p:0", None),
            ("http://p:65536", None),
            ("http://p q", None),
            ("direct", None),
        ] {
            assert_eq!(shown(text).as_deref(), expected, "{text}");
        }
        let long = format!("socks5://u:{}@p", "x".repeat(256));
        assert_eq!(shown(&long), None);
    }

    #[test]
    fn credentials_are_decoded_and_never_shown() {
        let proxy = UpstreamProxy::parse("http://user:p%40canary@p:1").expect("a proxy");
        let ProxyScheme::Http {
            authorization: Some(value),
            ..
        } = &proxy.protocol
        else {
            panic!("{proxy:?}")
        };
        assert_eq!(value, "Basic dXNlcjpwQGNhbmFyeQ==");
        let socks = UpstreamProxy::parse("socks5://user:p%40canary@p:1").expect("a proxy");
        assert_eq!(
            socks.protocol,
            ProxyScheme::Socks5 {
                credentials: Some(("user".to_owned(), Secret::new("p@canary")))
            }
        );
        for text in [format!("{proxy:?}{socks:?}"), format!("{proxy}{socks}")] {
            assert!(!text.contains("canary") && !text.contains("dXNl"), "{text}");
        }
    }

    /// The proxy of the upstream at `url` in the environment `set`, and the warnings.
    fn chosen(url: &str, set: &[(&str, &str)]) -> (Option<String>, String) {
        let mut problems = ProblemList::default();
        let env = |name: &str| {
            let mut set = set.iter();
            set.find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let url = BaseUrl::parse(url).expect("a URL");
        let location = Location::File(Arc::from("f"));
        let proxy = from_environment(&mut problems, &location, &url, &env);
        let warnings = problems.finish().expect("no error");
        let warnings: Vec<String> = warnings.into_iter().map(|warning| warning.message).collect();
        (proxy.map(|proxy| proxy.address.to_string()), warnings.join("; "))
    }

    const HTTPS: &str = "https://api.example/v1";
    const HTTP: &str = "http://10.1.2.3:8000/v1";

    /// An upstream, the environment as `NAME=VALUE`, and the proxy that is used.
    type Case<'a> = (&'a str, &'a [&'a str], Option<&'a str>);

    fn assert_chosen(cases: &[Case<'_>]) {
        for (url, set, expected) in cases {
            let set: Vec<_> = set.iter().map(|pair| pair.split_once('=').expect("a pair")).collect();
            let (proxy, warnings) = chosen(url, &set);
            assert_eq!(proxy.as_deref(), *expected, "{url} {set:?}");
            assert_eq!(warnings.is_empty(), expected.is_none(), "{warnings}");
        }
    }

    #[test]
    fn the_scheme_of_the_upstream_selects_the_variable() {
        assert_chosen(&[
            (HTTPS, &["HTTPS_PROXY=http://p:1"], Some("p:1")),
            (
                HTTPS,
                &["https_proxy=http://p:1", "HTTPS_PROXY=http://q:1"],
                Some("p:1"),
            ),
            (HTTPS, &["https_proxy=", "HTTPS_PROXY=http://q:1"], Some("q:1")),
            (HTTPS, &["HTTP_PROXY=http://p:1", "http_proxy=http://p:1"], None),
            (HTTPS, &["ALL_PROXY=http://p:1"], Some("p:1")),
            (HTTPS, &["ALL_PROXY=http://p:1", "HTTPS_PROXY=http://q:1"], Some("q:1")),
            (HTTP, &["HTTP_PROXY=http://p:1"], Some("p:1")),
            (HTTP, &["http_proxy=http://p:1"], Some("p:1")),
            (HTTP, &["HTTPS_PROXY=http://p:1"], None),
            ("http://127.0.0.1:1/v1", &["HTTP_PROXY=http://p:1"], Some("p:1")),
            (HTTPS, &[], None),
        ]);
    }

    #[test]
    fn a_client_of_a_cgi_program_cannot_name_a_proxy() {
        assert_chosen(&[
            (HTTP, &["HTTP_PROXY=http://p:1", "REQUEST_METHOD=GET"], None),
            (HTTP, &["http_proxy=http://p:1", "REQUEST_METHOD=GET"], Some("p:1")),
            (HTTPS, &["HTTPS_PROXY=http://p:1", "REQUEST_METHOD=GET"], Some("p:1")),
        ]);
    }

    #[test]
    fn no_proxy_names_exceptions() {
        const P: &str = "ALL_PROXY=http://p:1";
        assert_chosen(&[
            (HTTPS, &[P, "NO_PROXY=example"], None),
            (HTTPS, &[P, "NO_PROXY=x, .example"], None),
            (HTTPS, &[P, "NO_PROXY=pi.example"], Some("p:1")),
            (HTTPS, &[P, "no_proxy=*"], None),
            (HTTP, &[P, "NO_PROXY=10.0.0.0/8"], None),
            (HTTP, &[P, "NO_PROXY=10.2.0.0/16"], Some("p:1")),
            ("http://[::1]:1/v1", &[P, "NO_PROXY=::1"], None),
            ("http://[::1]:1/v1", &[P, "NO_PROXY=[::1]:1"], None),
            (HTTPS, &[P, "NO_PROXY=x *.example"], None),
            (HTTPS, &[P, "NO_PROXY=api.example:443"], None),
            (HTTP, &[P, "NO_PROXY=10.1.2.3:80"], Some("p:1")),
        ]);
    }

    #[test]
    fn a_warning_names_the_variable_and_the_proxy_without_its_credentials() {
        let (_, warning) = chosen("https://a/v1", &[("ALL_PROXY", "socks5://u:canary@p:1")]);
        assert_eq!(
            warning,
            "the upstream is reached through the proxy socks5://p:1, because ALL_PROXY is set; to reach it directly, set proxy = \"direct\", or NO_PROXY"
        );
        let (proxy, warning) = chosen("https://a/v1", &[("HTTPS_PROXY", "gopher://canary@p:1")]);
        assert_eq!((proxy, warning), (None, format!("HTTPS_PROXY is ignored: it {SHAPE}")));
    }
}

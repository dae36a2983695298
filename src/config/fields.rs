//! The fields of the configuration file, each declared once.
//!
//! Each declaration is used in four places. [`super::reader`] reads the field and checks its range. A name that is not
//! declared is an unknown field, which is an error. [`super::schema`] makes the JSON Schema. A test compares
//! `deploy/steadfast.example.toml` with the text that the declarations make. A reader takes a field as a value of this
//! module, so a field that is not declared cannot be read; a test checks that each declared field is read.

use std::time::Duration;

use super::{
    kinds::{
        ByteSize, Fraction, HeaderTable, ListOf, ModelNames, Moment, OneOrMore, Text, TimeSpan, Toggle, WholeNumber,
    },
    schema::{ConfigField, ConfigTable, NestedTable, Presence::*, TableArray},
};
use crate::{ids::Weight, policy::SessionSource};

const DAY: Duration = Duration::from_secs(24 * 3600);
const MILLISECOND: Duration = Duration::from_millis(1);

const NAME: Text = Text::matching("^[A-Za-z0-9._-]{1,64}$");
const NOT_EMPTY: Text = Text::matching(r"[\s\S]");
const ADDRESS: Text = Text::matching("^.+:[0-9]+$");
const ADDRESS_OR_SOCKET: Text = Text::matching("^(unix:|.+:[0-9]+$)");
const BASE_URL: Text = Text::matching("^[Hh][Tt][Tt][Pp][Ss]?://[^?# ]+([?][^# ]*)?$");
const DIGEST: Text = Text::matching("^[0-9A-Fa-f]{64}$");
const API_KEY: Text = Text {
    choices: &["passthrough"],
    ..NOT_EMPTY
};
const PROXY: Text = Text {
    choices: &["direct"],
    ..NOT_EMPTY
};
const ORIGIN: Text = Text::matching("^[A-Za-z][A-Za-z0-9+.-]*://[^/?#@ ]+$");
const SOURCE: Text = Text {
    choices: SessionSource::NAMES,
    pattern: "^(header:.+|(body|messages):[A-Za-z0-9_-]+([.][A-Za-z0-9_-]+){0,2})$",
};

/// Declares tables and their fields. Each table becomes a module with a static for each field, and `TABLE`, which lists them.
macro_rules! tables {
    ($(
        $(#[doc = $table_doc:literal])+
        $table:ident = $header:literal {
            $(
                $(#[doc = $doc:literal])+
                $field:ident($name:literal): $kind:ty = $value:expr, $presence:expr;
            )+
        }
    )+) => {$(
        $(#[doc = $table_doc])+
        pub(super) mod $table {
            use super::*;

            $(
                $(#[doc = $doc])+
                pub(in crate::config) static $field: ConfigField<$kind> = ConfigField {
                    name: $name,
                    kind: $value,
                    presence: $presence,
                    doc: &[$($doc),+],
                };
            )+

            pub(in crate::config) static TABLE: ConfigTable = ConfigTable {
                header: $header,
                doc: &[$($table_doc),+],
                fields: &[$(&$field),+],
            };
        }
    )+};
}

/// All tables of the main file. A misplaced field is looked for in this order; the example file shows the tables in this order.
pub(super) static TABLES: &[&ConfigTable] = &[
    &server::TABLE,
    &tls::TABLE,
    &admin::TABLE,
    &affinity::TABLE,
    &retry::TABLE,
    &health::TABLE,
    &tokens::TABLE,
    &timeouts::TABLE,
    &upstream::TABLE,
    &group::TABLE,
    &key::TABLE,
    &root::TABLE,
];

/// All tables of a file of client keys.
pub(super) static KEYS_FILE_TABLES: &[&ConfigTable] = &[&key::TABLE, &keys_file::TABLE];

tables! {
    /// The configuration of Steadfast.
    root = "the top level" {
        /// The public listener.
        SERVER("server"): NestedTable = NestedTable(&server::TABLE), Table;
        /// The operator's listener.
        ADMIN("admin"): NestedTable = NestedTable(&admin::TABLE), Table;
        /// The choice of a session's upstream.
        AFFINITY("affinity"): NestedTable = NestedTable(&affinity::TABLE), Table;
        /// Failover.
        RETRY("retry"): NestedTable = NestedTable(&retry::TABLE), Table;
        /// Ejection.
        HEALTH("health"): NestedTable = NestedTable(&health::TABLE), Table;
        /// The estimate of tokens.
        TOKENS("tokens"): NestedTable = NestedTable(&tokens::TABLE), Table;
        /// Timeouts.
        TIMEOUTS("timeouts"): NestedTable = NestedTable(&timeouts::TABLE), Table;
        /// The upstream accounts.
        UPSTREAM("upstream"): TableArray = TableArray(&upstream::TABLE), Table;
        /// The groups of callers.
        GROUP("group"): TableArray = TableArray(&group::TABLE), Table;
        /// The client keys.
        KEY("key"): TableArray = TableArray(&key::TABLE), Table;
    }

    /// A file of client keys.
    keys_file = "the top level of a file of keys" {
        /// The client keys.
        KEY("key"): TableArray = TableArray(&key::TABLE), Table;
    }

    /// The public listener.
    server = "[server]" {
        /// The addresses to listen on: one "IP:PORT" or "unix:PATH", or a list of them. Without client keys only loopback
        /// addresses and Unix sockets are allowed, unless allow_anonymous is set.
        LISTEN("listen"): OneOrMore = OneOrMore(ADDRESS_OR_SOCKET, 1), Default(r#""127.0.0.1:8080""#);
        /// The maximum size of a request body, applied to the body as sent and after decompression. A larger body is answered
        /// with 413.
        MAX_BODY("max_body"): ByteSize = ByteSize(1 << 10..=3 << 30), Default(r#""64MiB""#);
        /// The maximum size of all request bodies together that are kept in memory. At least max_body.
        BUFFERED_BODIES("buffered_bodies"): ByteSize = ByteSize(1 << 10..=1 << 40), Default(r#""512MiB""#);
        /// The maximum fraction of buffered_bodies that the bodies of one client key may fill while other callers wait for
        /// memory, but at least max_body. Without client keys it applies to each client address, and to each /64 of IPv6.
        /// If the memory is full, the slowest arriving bodies of callers over their share are answered with 503. Their
        /// complete bodies always leave one share free.
        BUFFERED_SHARE("buffered_share"): Fraction = Fraction(0.01..=1.0), Default("0.25");
        /// The minimum number of bytes per second with which a request body must arrive, as an average over
        /// body_rate_window. Only the time in which Steadfast waits for the client counts. A slower body is answered with
        /// 408. 0B turns the limit off.
        MIN_BODY_RATE("min_body_rate"): ByteSize = ByteSize(0..=1 << 30), Default(r#""10KiB""#);
        /// The time over which the rate of a request body is measured.
        BODY_RATE_WINDOW("body_rate_window"): TimeSpan = TimeSpan(MILLISECOND..=DAY), Default(r#""30s""#);
        /// The maximum time that open streams may continue after a stop signal.
        GRACE("grace"): TimeSpan = TimeSpan(Duration::ZERO..=DAY), Default(r#""30s""#);
        /// The time after which a silent TCP connection of a client is probed (TCP keepalive), so that a client that has
        /// vanished is noticed and a firewall keeps the connection during long silences. 0s turns it off.
        KEEPALIVE("keepalive"): TimeSpan = TimeSpan(Duration::ZERO..=Duration::from_secs(2 * 3600)), Default(r#""60s""#);
        /// Whether upstreams receive the client's address, scheme and host, as x-forwarded-for, -proto and -host.
        FORWARDED("forwarded"): Toggle = Toggle, Default("false");
        /// Whether responses carry x-steadfast-upstream and x-steadfast-route. Default: true without client keys, false with
        /// them.
        ROUTE_HEADERS("route_headers"): Toggle = Toggle, Optional("true");
        /// TLS towards clients.
        TLS("tls"): NestedTable = NestedTable(&tls::TABLE), Table;
        /// Whether clients need no key, even on addresses that are not loopback, and may send any Host. Every client that
        /// can connect may then use the upstreams. Not allowed together with client keys.
        ALLOW_ANONYMOUS("allow_anonymous"): Toggle = Toggle, Default("false");
        /// The origins of web pages that may call this listener through a browser. Without client keys, pages of all other
        /// origins are refused. Default: none.
        ALLOW_ORIGINS("allow_origins"): ListOf = ListOf(ORIGIN, 0), Optional(r#"["https://app.example"]"#);
        /// A file with additional [[key]] tables. It is read again when it changes.
        KEYS_FILE("keys_file"): Text = NOT_EMPTY, Optional(r#""keys.toml""#);
        /// A folder of *.toml files with additional [[key]] tables. The files are read again when they change.
        KEYS_DIRECTORY("keys_directory"): Text = NOT_EMPTY, Optional(r#""keys.d""#);
    }

    /// TLS towards clients on all TCP addresses of the public listener. Without this table the listener uses plain
    /// HTTP.
    tls = "[server.tls]" {
        /// The PEM file with the server's certificate, followed by the intermediate certificates.
        CERT("cert"): Text = NOT_EMPTY, Required(r#""cert.pem""#, "add cert = \"c.pem\"");
        /// The PEM file with the private key of the certificate.
        KEY("key"): Text = NOT_EMPTY, Required(r#""key.pem""#, "add key = \"k.pem\"");
        /// The PEM file with the certificate authorities whose client certificates are accepted. Default: clients need
        /// no certificate.
        CLIENT_CA("client_ca"): Text = NOT_EMPTY, Optional(r#""ca.pem""#);
    }

    /// The operator's listener: metrics, probes and the admin API.
    admin = "[admin]" {
        /// The addresses to listen on: one "IP:PORT" or a list of them; [] turns the admin listener off.
        LISTEN("listen"): OneOrMore = OneOrMore(ADDRESS, 0), Default(r#""127.0.0.1:9090""#);
        /// The bearer token that callers must send. Required if an address is not loopback. Default: no token.
        TOKEN("token"): Text = NOT_EMPTY, Optional(r#""env:STEADFAST_ADMIN_TOKEN""#);
    }

    /// The choice of a session's upstream, and the time that the session waits for it.
    affinity = "[affinity]" {
        /// The places that are searched for the session key, in this order. "header:NAME" is any header. "body:PATH" is any
        /// text in the body, at a path of up to three names such as "metadata.thread"; "messages:PATH" is the same for the
        /// Messages API only. "owner" is the upstream that made an object that the request names. "content" is the beginning
        /// that all requests of a conversation share.
        SOURCES("sources"): ListOf = ListOf(SOURCE, 1), Default(r#"[
    "body:prompt_cache_key",
    "header:session-id",
    "header:session_id",
    "header:x-session-id",
    "header:x-session-affinity",
    "header:x-claude-code-session-id",
    "body:client_metadata.session_id",
    "messages:metadata.user_id",
    "owner",
    "content",
]"#);
        /// The time that a pin stays valid after its last use. It should be the time for which upstreams keep a prompt
        /// cached.
        IDLE("idle"): TimeSpan = TimeSpan(Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600)), Default(r#""1h""#);
        /// The maximum number of pins. Above this number, the least recently used pin is dropped.
        CAPACITY("capacity"): WholeNumber<u32> = WholeNumber(1..=100_000_000), Default("1_000_000");
        /// The minimum time that a session waits for its own upstream before it moves to another. At most wait_max.
        WAIT("wait"): TimeSpan = TimeSpan(Duration::ZERO..=DAY), Default(r#""2s""#);
        /// The number of uncached prompt tokens that an upstream reads per second. A session with a long prompt waits longer
        /// than wait: as long as another upstream would need to read its prompt.
        REREAD_RATE("reread_rate"): WholeNumber<u32> = WholeNumber(1..=10_000_000), Default("5000");
        /// The maximum time that a session waits for its own upstream, and that any request waits for the reset of a limit
        /// if no upstream can take it.
        WAIT_MAX("wait_max"): TimeSpan = TimeSpan(Duration::ZERO..=DAY), Default(r#""60s""#);
    }

    /// Failover: if an upstream fails before any output has reached the caller, the request is sent to another upstream.
    retry = "[retry]" {
        /// The maximum number of upstreams that one request is sent to, the first included; 1 turns failover off. An
        /// upstream whose limit the request waits out is not counted, and neither is one that does not have the model or
        /// the object of the request.
        ATTEMPTS("attempts"): WholeNumber<u32> = WholeNumber(1..=10), Default("3");
        /// The maximum number of retries after failures, as a fraction of the number of requests. One more retry per second
        /// is always allowed. A failover after a limit, a refused credential or a missing model is
        /// not counted.
        BUDGET("budget"): Fraction = Fraction(0.0..=1.0), Default("0.2");
        /// The maximum time after an upstream's response head for which a stream is held back until its first output.
        /// If the stream fails before that, the request can still be sent to another upstream. 0s passes streams on at
        /// once.
        DECIDE_WITHIN("decide_within"): TimeSpan = TimeSpan(Duration::ZERO..=Duration::from_secs(60)), Default(r#""5s""#);
        /// The maximum number of bytes of a stream that are held back until its first output.
        DECIDE_BYTES("decide_bytes"): ByteSize = ByteSize((1 << 10)..=(16 << 20)), Default(r#""256KiB""#);
        /// Whether a generation is sent to another upstream after timeouts.head. The first upstream may still be
        /// generating, so the same generation may be paid for more than once.
        ON_TIMEOUT("on_timeout"): Toggle = Toggle, Default("false");
    }

    /// The tokens that the images, recordings and files in a request probably cost. The estimate counts towards
    /// tokens_per_minute until the upstream reports the real number, and decides how long a session waits for its own
    /// upstream. All other bytes of a request count as a quarter of a token.
    tokens = "[tokens]" {
        /// The tokens of an image.
        IMAGE("image"): WholeNumber<u32> = WholeNumber(0..=10_000_000), Default("1100");
        /// The tokens of a recording.
        AUDIO("audio"): WholeNumber<u32> = WholeNumber(0..=10_000_000), Default("2000");
        /// The tokens of another file, such as a PDF.
        FILE("file"): WholeNumber<u32> = WholeNumber(0..=10_000_000), Default("10000");
    }

    /// Ejection: an upstream that fails gets no requests for a while.
    health = "[health]" {
        /// The maximum fraction of the upstreams that are ejected for failures at the same time. Below 1 at least one
        /// upstream always stays; of two or more upstreams at least one can be ejected, unless this is 0.
        MAX_EJECTED("max_ejected"): Fraction = Fraction(0.0..=1.0), Default("0.5");
    }

    /// Timeouts.
    timeouts = "[timeouts]" {
        /// The maximum time to establish a connection to an upstream, including the proxy and the TLS handshake.
        CONNECT("connect"): TimeSpan = TimeSpan(MILLISECOND..=DAY), Default(r#""5s""#);
        /// The maximum time until the head of an upstream's response has arrived. After it the caller gets 504; see
        /// retry.on_timeout.
        HEAD("head"): TimeSpan = TimeSpan(MILLISECOND..=DAY), Default(r#""10m""#);
        /// The maximum time between two pieces of a body, in either direction.
        IDLE("idle"): TimeSpan = TimeSpan(MILLISECOND..=DAY), Default(r#""5m""#);
        /// The time after which a connection to an upstream gets no new request, give or take a tenth of it, so that a
        /// changed address of the upstream's name is followed. Running requests are not cut. 0s means no limit.
        CONNECTION_AGE("connection_age"): TimeSpan = TimeSpan(Duration::ZERO..=DAY), Default(r#""10m""#);
        /// The maximum time until the head of a client's request is complete.
        CLIENT_HEADER("client_header"): TimeSpan = TimeSpan(MILLISECOND..=DAY), Default(r#""15s""#);
    }

    /// An upstream account. At least one is needed.
    upstream = "[[upstream]]" {
        /// The name of the upstream. Sessions are hashed to this name. Keep it when the URL or the key changes, because
        /// a new name moves sessions.
        NAME("name"): Text = super::NAME,
            Required(r#""account-a""#, "add name = \"account-a\"; sessions hash to it, so keep it later");
        /// The URL that replaces /v1 in the path of each request. Its query, such as "?api-version=2025-04-01-preview",
        /// goes with each request; a parameter of the same name in a caller's query is dropped.
        BASE_URL("base_url"): Text = super::BASE_URL,
            Required(r#""https://api.openai.com/v1""#, "add base_url = \"https://api.openai.com/v1\"");
        /// The credential of the account: "env:NAME", "file:PATH", or "passthrough" to send the caller's own
        /// credential.
        API_KEY("api_key"): Text = super::API_KEY,
            Required(r#""env:OPENAI_KEY_A""#, "add api_key = \"env:NAME\", \"file:PATH\" or \"passthrough\"");
        /// The share of the sessions relative to the other upstreams.
        WEIGHT("weight"): WholeNumber<u32> = WholeNumber(1..=Weight::MAX), Default("1");
        /// The models that the upstream serves, as globs such as "gpt-5*"; [] means all models. If the
        /// upstream's own list does not name a model that another upstream has, requests go there. A table gives models
        /// other names at the upstream: { "gpt-5.2" = "my-deployment" } sends the callers' gpt-5.2 as my-deployment.
        MODELS("models"): ModelNames = ModelNames(NOT_EMPTY), Default("[]");
        /// The maximum number of requests that the upstream receives at the same time. Default: no limit.
        MAX_IN_FLIGHT("max_in_flight"): WholeNumber<u32> = WholeNumber(1..=1_000_000), Optional("64");
        /// Headers that are set on every request to the upstream. A value may be "env:NAME" or "file:PATH". Default:
        /// none.
        HEADERS("headers"): HeaderTable = HeaderTable, Optional(r#"{ "openai-project" = "proj_1" }"#);
        /// The organization that owns the account. Upstreams of one organization share prompt cache and response state.
        /// Default: an organization of its own.
        ORGANIZATION("organization"): Text = super::NAME, Optional(r#""org-1""#);
        /// A PEM file with certificate authorities that are trusted in addition to the platform's, for the upstream and for a
        /// proxy that is called over TLS. Default: none.
        CA("ca"): Text = NOT_EMPTY, Optional(r#""ca.pem""#);
        /// A PEM file with the certificate, followed by the intermediate certificates, that is shown to the upstream if
        /// it asks for one (mutual TLS). Default: none.
        CLIENT_CERTIFICATE("client_certificate"): Text = NOT_EMPTY, Optional(r#""cert.pem""#);
        /// The PEM file with the private key of client_certificate. Default: the key is in the file of the certificate.
        CLIENT_KEY("client_key"): Text = NOT_EMPTY, Optional(r#""key.pem""#);
        /// The proxy through which the upstream is reached by CONNECT, as "http://PROXY:PORT", "https://..." or
        /// "socks5://...", with "USER:PASSWORD@" before the host if it needs them; "env:NAME" and "file:PATH" hold the whole
        /// URL. "direct" uses no proxy. Default: what HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say.
        PROXY("proxy"): Text = super::PROXY, Optional(r#""http://proxy.example:3128""#);
        /// Whether HTTP/2 is offered to the upstream. With HTTP/1.1 a slow stream cannot delay another stream.
        HTTP2("http2"): Toggle = Toggle, Default("false");
    }

    /// A group of callers that share sessions, response state and rights. Each client key belongs to one group.
    group = "[[group]]" {
        /// The name of the group. [[key]] tables refer to it.
        NAME("name"): Text = super::NAME, Required(r#""team""#, "add name = \"team\"");
        /// The names of the upstreams that the keys of the group may use. Default: all.
        UPSTREAMS("upstreams"): ListOf = ListOf(super::NAME, 1), Optional(r#"["account-a", "account-b"]"#);
        /// The models that the keys of the group may use, as globs. Default: all.
        MODELS("models"): ListOf = ListOf(NOT_EMPTY, 1), Optional(r#"["gpt-5*"]"#);
        /// The maximum number of requests of each key in any 60 seconds. Default: no limit.
        REQUESTS_PER_MINUTE("requests_per_minute"): WholeNumber<u32> = WholeNumber(1..=u32::MAX), Optional("600");
        /// The maximum number of tokens of each key in any 60 seconds. Default: no limit.
        TOKENS_PER_MINUTE("tokens_per_minute"): WholeNumber<u64> = WholeNumber(1..=1_000_000_000_000_000),
            Optional("2_000_000");
        /// The maximum number of requests of each key at the same time. Default: no limit.
        MAX_CONCURRENT("max_concurrent"): WholeNumber<u32> = WholeNumber(1..=u32::MAX), Optional("50");
    }

    /// A client key. `steadfast key --name alice --group team` makes one and prints these lines.
    key = "[[key]]" {
        /// The name of the key in logs and limits.
        NAME("name"): Text = super::NAME, Required(r#""alice""#, "add name = \"alice\"");
        /// The SHA-256 of the key in hexadecimal, or a list of two while an old key is replaced by a new one.
        SHA256("sha256"): OneOrMore = OneOrMore(DIGEST, 1), Required(
            r#""2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b""#,
            "make a key with: steadfast key"
        );
        /// The name of the group that the key belongs to.
        GROUP("group"): Text = NOT_EMPTY, Required(r#""team""#, "add group with the name of a [[group]]");
        /// The date, or the date and time, from which the key is refused. Default: never.
        EXPIRES("expires"): Moment = Moment, Optional("2031-01-31");
        /// Whether the key is disabled. A disabled key is refused.
        DISABLED("disabled"): Toggle = Toggle, Default("false");
    }
}

//! Builds a [`Config`] from the file and the flags.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::policy::tokens::MediaCost;

use super::{
    access::{AccessDraft, ClientKey, Group},
    affinity,
    base_url::BaseUrl,
    check::{ListenerCheck, check_upstream_names},
    document::DocumentReader,
    errors::{ConfigProblem, Errors, Located, Location, ProblemList},
    fields::{TABLES, admin, health, retry, root, server, timeouts, tokens},
    inherited,
    listen::{Listen, is_loopback, parse_socket_addr},
    loops::OwnAddresses,
    origin,
    reader::Section,
    secrets::{Env, LITERAL_WARNING, ResolveContext, SecretForm, credential, process_env},
    settings::{AdminSettings, AffinitySettings, HealthSettings, Overrides, RetrySettings, ServerSettings, Timeouts},
    tls,
    upstream::{self, ReadUpstream, Upstream},
    values::{show_size, text},
};

/// A configuration that is valid and complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The public listener.
    pub server: ServerSettings,
    /// The operator's listener.
    pub admin: AdminSettings,
    /// The choice of a session's upstream.
    pub affinity: AffinitySettings,
    /// Failover of requests after their upstream has failed.
    pub retry: RetrySettings,
    /// Ejection of upstreams that fail.
    pub health: HealthSettings,
    /// The estimate of the tokens of images, recordings and files.
    pub tokens: MediaCost,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// The upstreams, at least one, in the order of the file and then of the flags. Their names are unique.
    pub upstreams: Vec<Upstream>,
    /// The groups of callers. Their names are unique.
    pub groups: Vec<Group>,
    /// Whether callers need a client key. Also true if client keys are configured but none is valid, so that no caller is
    /// admitted then.
    pub has_client_keys: bool,
    /// The file and the folder of client keys beside the main file.
    pub key_paths: Vec<PathBuf>,
    /// The client keys. Their names and digests are unique, and their groups exist.
    pub keys: Vec<ClientKey>,
    /// Settings that are allowed but probably a mistake. `serve` logs them, `check` prints them.
    pub warnings: Vec<ConfigProblem>,
}

impl Config {
    /// The files and folders that were read for this configuration, without the main file and without pipes, which cannot
    /// change.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let tls = self.server.tls.iter();
        let tls = tls.flat_map(|tls| {
            [&tls.cert, &tls.key]
                .into_iter()
                .chain(tls.client_ca.as_ref().map(|(path, _)| path))
        });
        let upstreams = self.upstreams.iter();
        let upstreams = upstreams.flat_map(|upstream| {
            let certificate = upstream.client_certificate.iter();
            let ca = upstream.ca.iter().map(|ca| &ca.path);
            ca.chain(certificate.flat_map(|certificate| [&certificate.path, &certificate.key]))
        });
        let files = self.key_paths.iter().chain(tls).chain(upstreams).map(PathBuf::as_path);
        files.filter(|path| !inherited::is_pipe(path))
    }

    /// The first address of `listen` that this configuration would open to other machines without a client key,
    /// although `allow_anonymous` is not set. The configuration's own addresses have been checked; this check is for
    /// the sockets that an earlier configuration has bound.
    pub fn find_exposed<'a>(&self, listen: &'a [Listen]) -> Option<&'a Listen> {
        let is_guarded = self.has_client_keys || self.server.allow_anonymous;
        let is_reachable = |listen: &&Listen| matches!(listen, Listen::Tcp(address) if !is_loopback(address));
        listen.iter().find(is_reachable).filter(|_| !is_guarded)
    }

    /// Reads `text`, which came from the file `origin`. Errors name that file, and relative paths are relative to its folder.
    ///
    /// # Errors
    /// Everything that is wrong with the text, the flags and the files that they name.
    pub fn from_toml(text: &str, origin: &str, env: Env<'_>, overrides: &Overrides) -> Result<Self, Errors> {
        // A path without a parent is the root folder or empty. Paths are then relative to the working directory.
        let folder = Path::new(origin).parent().unwrap_or(Path::new(""));
        let context = ResolveContext { env, folder };
        let (mut reader, tree) = DocumentReader::parse(text, Arc::from(origin), TABLES, ProblemList::default());
        let root = reader.root(&root::TABLE, &tree);
        let mut draft = ConfigDraft::default();
        draft.read_server(&mut reader, &root, context);
        draft.read_admin(&mut reader, &root, context);
        affinity::read(&mut reader, &root, &mut draft.affinity);
        draft.read_retry(&mut reader, &root);
        draft.read_health(&mut reader, &root);
        draft.read_tokens(&mut reader, &root);
        draft.read_timeouts(&mut reader, &root);
        draft.read_upstreams(&mut reader, &root, context);
        let has_upstreams = root
            .get(&root::UPSTREAM)
            .is_some_and(|value| value.get_ref().as_array().is_none_or(|items| !items.is_empty()));
        if !has_upstreams && overrides.upstreams.is_empty() && reader.is_whole() {
            let message = "there is no upstream; add [[upstream]] with name, base_url and api_key";
            reader.problems.error(Location::File(Arc::from(origin)), message);
        }
        draft.access.read(&mut reader, &root);
        let problems = draft.access.read_further_files(reader.problems);
        draft.finish(problems, overrides, env)
    }

    /// A configuration without a file, with the environment of this process.
    ///
    /// # Errors
    /// Everything that is wrong with the flags, a missing `--upstream` included.
    pub fn from_flags(overrides: &Overrides) -> Result<Self, Errors> {
        Self::from_flags_in(&process_env, overrides)
    }

    pub(super) fn from_flags_in(env: Env<'_>, overrides: &Overrides) -> Result<Self, Errors> {
        ConfigDraft::default().finish_without_file(overrides, env)
    }

    /// A configuration without a file, for upstreams that run inside this process and those of the flags.
    ///
    /// # Errors
    /// Everything that is wrong with the flags or with the upstreams taken together.
    pub fn embedded(upstreams: Vec<Upstream>, overrides: &Overrides) -> Result<Self, Errors> {
        let location = Location::Flag("embedded".to_owned());
        let names = upstreams
            .iter()
            .map(|upstream| (location.clone(), upstream.name.clone()))
            .collect();
        let draft = ConfigDraft {
            names,
            upstreams,
            ..ConfigDraft::default()
        };
        draft.finish_without_file(overrides, &process_env)
    }
}

/// The settings that have been read so far.
#[derive(Default)]
struct ConfigDraft {
    server: ServerSettings,
    admin: AdminSettings,
    affinity: AffinitySettings,
    retry: RetrySettings,
    health: HealthSettings,
    tokens: MediaCost,
    timeouts: Timeouts,
    /// `server.listen`; `None` is the default.
    listen: Option<Vec<Located<Listen>>>,
    /// `admin.listen`; `None` is the default.
    admin_listen: Option<Vec<Located<SocketAddr>>>,
    /// Whether `admin.token` is set, valid or not.
    has_token: bool,
    /// `server.route_headers`; `None` is the default, which depends on client keys.
    route_headers: Option<bool>,
    /// The location at which `allow_anonymous` is set to true; `None` if it is not.
    anonymous: Option<Location>,
    access: AccessDraft,
    /// The names of all upstreams, invalid ones included.
    names: Vec<Located<String>>,
    upstreams: Vec<Upstream>,
    /// The URLs of the upstreams that are called without a proxy.
    direct_urls: Vec<Located<BaseUrl>>,
}

fn values_of<T>(located: Vec<Located<T>>) -> Vec<T> {
    located.into_iter().map(|(_, value)| value).collect()
}

impl ConfigDraft {
    fn read_server(&mut self, reader: &mut DocumentReader<'_>, root: &Section<'_>, context: ResolveContext<'_>) {
        let section = reader.section(root, &root::SERVER);
        let read_listen = |value| Listen::parse(text(value)?, context.folder);
        self.listen = reader.one_or_more(&section, &server::LISTEN, read_listen);
        if let Some(value) = section.get(&server::LISTEN)
            && value.get_ref().as_array().is_some_and(|items| items.is_empty())
        {
            reader.error(value, "listen must have an address such as \"127.0.0.1:8080\"");
        }
        let settings = &mut self.server;
        reader.update(&section, &server::MAX_BODY, &mut settings.max_body);
        reader.update(&section, &server::BUFFERED_BODIES, &mut settings.buffered_bodies);
        reader.update(&section, &server::BUFFERED_SHARE, &mut settings.buffered_share);
        reader.update(&section, &server::MIN_BODY_RATE, &mut settings.min_body_rate);
        reader.update(&section, &server::BODY_RATE_WINDOW, &mut settings.body_rate_window);
        reader.update(&section, &server::GRACE, &mut settings.grace);
        reader.update(&section, &server::KEEPALIVE, &mut settings.keepalive);
        reader.update(&section, &server::FORWARDED, &mut settings.forwarded);
        self.route_headers = reader.read(&section, &server::ROUTE_HEADERS);
        reader.update(&section, &server::ALLOW_ANONYMOUS, &mut settings.allow_anonymous);
        if let (true, Some(value)) = (settings.allow_anonymous, section.get(&server::ALLOW_ANONYMOUS)) {
            self.anonymous = Some(reader.location_of(value));
        }
        if let Some(origins) = reader.list(&section, &server::ALLOW_ORIGINS, origin::parse) {
            self.server.allow_origins = values_of(origins);
        }
        let settings = &mut self.server;
        self.access.read_paths(reader, &section, context);
        settings.tls = tls::read(reader, &section, context);
        self.check_body_sizes(reader, &section);
    }

    fn check_body_sizes(&self, reader: &mut DocumentReader<'_>, section: &Section<'_>) {
        let ServerSettings {
            max_body,
            buffered_bodies,
            ..
        } = self.server;
        let value = section
            .get(&server::BUFFERED_BODIES)
            .or_else(|| section.get(&server::MAX_BODY));
        if let Some(value) = value
            && buffered_bodies < max_body
            && reader.is_whole()
        {
            let (buffered, max) = (show_size(buffered_bodies), show_size(max_body));
            let message = format!(
                "buffered_bodies ({buffered}) must hold one body of max_body ({max}); raise it, or lower max_body"
            );
            reader.error(value, message);
        }
    }

    fn read_admin(&mut self, reader: &mut DocumentReader<'_>, root: &Section<'_>, context: ResolveContext<'_>) {
        let section = reader.section(root, &root::ADMIN);
        self.admin_listen = reader.one_or_more(&section, &admin::LISTEN, |value| parse_socket_addr(text(value)?));
        let token = reader.read_text(&section, &admin::TOKEN, |text| credential(text, context));
        if let (Some((_, SecretForm::Literal)), Some(value)) = (&token, section.get(&admin::TOKEN)) {
            reader.warn(value, format!("token {LITERAL_WARNING}"));
        }
        self.has_token = section.get(&admin::TOKEN).is_some();
        self.admin.token = token.map(|(secret, _)| secret);
    }

    fn read_retry(&mut self, reader: &mut DocumentReader<'_>, root: &Section<'_>) {
        let section = reader.section(root, &root::RETRY);
        reader.update(&section, &retry::ATTEMPTS, &mut self.retry.attempts);
        reader.update(&section, &retry::BUDGET, &mut self.retry.budget);
        reader.update(&section, &retry::DECIDE_WITHIN, &mut self.retry.decide_within);
        reader.update(&section, &retry::DECIDE_BYTES, &mut self.retry.decide_bytes);
        reader.update(&section, &retry::ON_TIMEOUT, &mut self.retry.on_timeout);
    }

    fn read_health(&mut self, reader: &mut DocumentReader<'_>, root: &Section<'_>) {
        let section = reader.section(root, &root::HEALTH);
        reader.update(&section, &health::MAX_EJECTED, &mut self.health.max_ejected);
    }

    fn read_tokens(&mut self, reader: &mut DocumentReader<'_>, root: &Section<'_>) {
        let section = reader.section(root, &root::TOKENS);
        reader.update(&section, &tokens::IMAGE, &mut self.tokens.image);
        reader.update(&section, &tokens::AUDIO, &mut self.tokens.audio);
        reader.update(&section, &tokens::FILE, &mut self.tokens.file);
    }

    fn read_timeouts(&mut self, reader: &mut DocumentReader<'_>, root: &Section<'_>) {
        let section = reader.section(root, &root::TIMEOUTS);
        let settings = &mut self.timeouts;
        reader.update(&section, &timeouts::CONNECT, &mut settings.connect);
        reader.update(&section, &timeouts::HEAD, &mut settings.head);
        reader.update(&section, &timeouts::IDLE, &mut settings.idle);
        reader.update(&section, &timeouts::CONNECTION_AGE, &mut settings.connection_age);
        reader.update(&section, &timeouts::CLIENT_HEADER, &mut settings.client_header);
    }

    fn read_upstreams(&mut self, reader: &mut DocumentReader<'_>, root: &Section<'_>, context: ResolveContext<'_>) {
        for section in reader.sections(root, &root::UPSTREAM) {
            let read = upstream::read(reader, &section, context);
            self.add(read);
        }
    }

    fn add(&mut self, read: ReadUpstream) {
        self.names.extend(read.name);
        self.upstreams.extend(read.upstream);
        self.direct_urls.extend(read.direct_url);
    }

    fn finish_without_file(self, overrides: &Overrides, env: Env<'_>) -> Result<Config, Errors> {
        let mut problems = ProblemList::default();
        if self.upstreams.is_empty() && overrides.upstreams.is_empty() {
            let message = "there is no upstream; give NAME=BASE_URL,env:KEY, or a file with --config";
            problems.error(Location::Flag("--upstream".to_owned()), message);
        }
        self.finish(problems, overrides, env)
    }

    /// Applies the flags, checks everything together, and makes the configuration if nothing is wrong.
    fn finish(mut self, mut problems: ProblemList, overrides: &Overrides, env: Env<'_>) -> Result<Config, Errors> {
        let folder = Path::new("");
        self.apply(&mut problems, overrides, ResolveContext { env, folder });
        let has_client_keys = self.access.has_client_keys;
        let listeners = ListenerCheck {
            public: self.listen.as_deref(),
            admin: self.admin_listen.as_deref(),
            has_token: self.has_token,
            has_client_keys,
            has_tls: self.server.tls.is_some(),
            anonymous: self.anonymous.as_ref(),
        };
        listeners.run(&mut problems);
        let key_paths = self.access.paths();
        let (groups, keys) = self.access.finish(&self.upstreams, &self.names, &mut problems);
        check_upstream_names(&self.names, &mut problems);
        if let Some(listen) = self.listen {
            self.server.listen = values_of(listen);
        }
        if let Some(listen) = self.admin_listen {
            self.admin.listen = values_of(listen);
        }
        let own = OwnAddresses {
            public: &self.server.listen,
            admin: &self.admin.listen,
        };
        own.check(&self.direct_urls, &mut problems);
        let warnings = problems.finish()?;
        let mut config = Config {
            server: self.server,
            admin: self.admin,
            affinity: self.affinity,
            retry: self.retry,
            health: self.health,
            tokens: self.tokens,
            timeouts: self.timeouts,
            upstreams: self.upstreams,
            groups,
            has_client_keys,
            key_paths,
            keys,
            warnings,
        };
        // By default, callers with a client key are not told which upstream serves them.
        config.server.route_headers = self.route_headers.unwrap_or(!has_client_keys);
        Ok(config)
    }

    fn apply(&mut self, problems: &mut ProblemList, overrides: &Overrides, context: ResolveContext<'_>) {
        if !overrides.listen.is_empty() {
            let location = Location::Flag("--listen".to_owned());
            let parse = |written: &String| match Listen::parse(written, context.folder) {
                Ok(address) => Some((location.clone(), address)),
                Err(problem) => {
                    problems.error(location.clone(), problem);
                    None
                }
            };
            self.listen = Some(overrides.listen.iter().filter_map(parse).collect());
        }
        if let Some(written) = &overrides.admin {
            let location = Location::Flag("--admin".to_owned());
            match parse_socket_addr(written) {
                Ok(address) => self.admin_listen = Some(vec![(location, address)]),
                Err(problem) => problems.error(location, problem),
            }
        }
        for (index, flag) in overrides.upstreams.iter().enumerate() {
            self.add(upstream::read_flag(problems, flag, index + 1, context));
        }
    }
}

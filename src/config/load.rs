//! Puts a configuration together and checks what concerns more than one field.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use toml::de::DeValue;

use super::{
    Admin, Affinity, Config, Errors, File, Listen, Overrides, Retry, Server, Timeouts, Upstream, access, affinity,
    check::{self, Placed},
    errors::{Notes, Place},
    reader::{Reader, Schema, Section},
    secrets::{Surroundings, WRITTEN_OUT, credential},
    tls, upstream,
    values::{boolean, duration, fraction, integer, listen, show_size, size, socket_addr, text},
};

const ROOT: Schema = Schema {
    name: "the top level",
    prefix: "",
    fields: &[
        "server", "admin", "affinity", "retry", "timeouts", "upstream", "group", "key",
    ],
};
const SERVER: Schema = Schema {
    name: "[server]",
    prefix: "server.",
    fields: &[
        "listen",
        "max_body",
        "buffered_bodies",
        "grace",
        "forwarded",
        "route_headers",
        "tls",
        "allow_anonymous",
        "keys_file",
        "keys_directory",
    ],
};
const ADMIN: Schema = Schema {
    name: "[admin]",
    prefix: "admin.",
    fields: &["listen", "token"],
};
const RETRY: Schema = Schema {
    name: "[retry]",
    prefix: "retry.",
    fields: &["attempts", "budget"],
};
const TIMEOUTS: Schema = Schema {
    name: "[timeouts]",
    prefix: "timeouts.",
    fields: &["connect", "head", "idle", "client_header"],
};
const SCHEMAS: &[&Schema] = &[
    &SERVER,
    &tls::SCHEMA,
    &ADMIN,
    &affinity::SCHEMA,
    &RETRY,
    &TIMEOUTS,
    &upstream::SCHEMA,
    &access::GROUP,
    &access::KEY,
    &ROOT,
];

/// Looks a variable of the environment up.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

pub(super) const DAY: Duration = Duration::from_secs(24 * 3600);

/// What file and flags say so far; `None` where they say nothing and the default holds.
#[derive(Default)]
struct Draft {
    server: Server,
    admin: Admin,
    affinity: Affinity,
    retry: Retry,
    timeouts: Timeouts,
    listen: Option<Vec<Placed<Listen>>>,
    admin_listen: Option<Vec<Placed<SocketAddr>>>,
    token_written: bool,
    route_headers: Option<bool>,
    /// Where `allow_anonymous` is set.
    anonymous: Option<Place>,
    access: access::Draft,
    names: Vec<Placed<String>>,
    upstreams: Vec<Upstream>,
}

impl Config {
    /// Reads the file at `path` with the environment of this process.
    ///
    /// # Errors
    /// Everything that is wrong with the file, the flags and what they name.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, Errors> {
        File::read(path).parse(overrides)
    }

    /// Reads `text`, which came from the file `origin`: reports name it, and relative paths start at its folder.
    ///
    /// # Errors
    /// Everything that is wrong with the text, the flags and what they name.
    pub fn from_toml(text: &str, origin: &str, env: Env<'_>, overrides: &Overrides) -> Result<Self, Errors> {
        let folder = Path::new(origin).parent().unwrap_or(Path::new(""));
        let around = Surroundings { env, folder };
        let (mut reader, tree) = Reader::parse(text, Arc::from(origin), SCHEMAS, Notes::default());
        let root = reader.root(&ROOT, &tree);
        let mut draft = Draft::default();
        draft.read_server(&mut reader, &root, around);
        draft.read_admin(&mut reader, &root, around);
        affinity::read(&mut reader, &root, &mut draft.affinity);
        draft.read_retry(&mut reader, &root);
        draft.read_timeouts(&mut reader, &root);
        let any = draft.read_upstreams(&mut reader, &root, around);
        if !any && overrides.upstreams.is_empty() && reader.is_whole() {
            let message = "there is no upstream; add [[upstream]] with name, base_url and api_key";
            reader.notes.error(Place::File(Arc::from(origin)), message);
        }
        draft.access.read(&mut reader, &root);
        let notes = draft.access.read_elsewhere(reader.notes);
        draft.finish(notes, overrides, env)
    }

    /// A configuration without a file, with the environment of this process.
    ///
    /// # Errors
    /// Everything that is wrong with the flags; that none is `--upstream` is one of them.
    pub fn from_flags(overrides: &Overrides) -> Result<Self, Errors> {
        Self::from_flags_in(&process_env, overrides)
    }

    pub(super) fn from_flags_in(env: Env<'_>, overrides: &Overrides) -> Result<Self, Errors> {
        Draft::default().finish_without_file(overrides, env)
    }

    /// A configuration without a file, for upstreams that run inside this process; those of the flags join them.
    ///
    /// # Errors
    /// Everything that is wrong with the flags or with the upstreams taken together.
    pub fn embedded(upstreams: Vec<Upstream>, overrides: &Overrides) -> Result<Self, Errors> {
        let place = Place::Flag("embedded".to_owned());
        let names = upstreams
            .iter()
            .map(|upstream| (place.clone(), upstream.name.clone()))
            .collect();
        let draft = Draft {
            names,
            upstreams,
            ..Draft::default()
        };
        draft.finish_without_file(overrides, &process_env)
    }
}

pub(super) fn process_env(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

pub(super) fn is_empty_array(value: &DeValue<'_>) -> bool {
    value.as_array().is_some_and(|items| items.is_empty())
}

/// Replaces a default by what was written.
pub(super) fn set<T>(default: &mut T, written: Option<T>) {
    if let Some(written) = written {
        *default = written;
    }
}

fn values_of<T>(placed: Vec<Placed<T>>) -> Vec<T> {
    placed.into_iter().map(|(_, value)| value).collect()
}

impl Draft {
    fn read_server(&mut self, reader: &mut Reader<'_>, root: &Section<'_>, around: Surroundings<'_>) {
        let section = reader.section(root, "server", &SERVER);
        let server = &mut self.server;
        let read_listen = |value| listen(text(value)?, around.folder);
        self.listen = reader.list(&section, "listen", true, read_listen);
        if let (Some([]), Some(value)) = (self.listen.as_deref(), section.get("listen"))
            && is_empty_array(value.get_ref())
        {
            reader.error(value, "listen must have an address such as \"127.0.0.1:8080\"");
        }
        set(
            &mut server.max_body,
            reader.read(&section, "max_body", |value| size(value, 1 << 10..=3 << 30)),
        );
        set(
            &mut server.buffered_bodies,
            reader.read(&section, "buffered_bodies", |value| size(value, 1 << 10..=1 << 40)),
        );
        set(
            &mut server.grace,
            reader.read(&section, "grace", |value| duration(value, Duration::ZERO..=DAY)),
        );
        set(&mut server.forwarded, reader.read(&section, "forwarded", boolean));
        self.route_headers = reader.read(&section, "route_headers", boolean);
        set(
            &mut server.allow_anonymous,
            reader.read(&section, "allow_anonymous", boolean),
        );
        if let (true, Some(value)) = (server.allow_anonymous, section.get("allow_anonymous")) {
            self.anonymous = Some(reader.place_of(value));
        }
        self.access.read_places(reader, &section, around);
        let server = &mut self.server;
        server.tls = tls::read(reader, &section, around);
        if server.buffered_bodies < server.max_body && reader.is_whole() {
            let (buffered, max) = (show_size(server.buffered_bodies), show_size(server.max_body));
            let message = format!(
                "buffered_bodies ({buffered}) must hold one body of max_body ({max}); raise it, or lower max_body"
            );
            if let Some(value) = section.get("buffered_bodies").or(section.get("max_body")) {
                reader.error(value, message);
            }
        }
    }

    fn read_admin(&mut self, reader: &mut Reader<'_>, root: &Section<'_>, around: Surroundings<'_>) {
        let section = reader.section(root, "admin", &ADMIN);
        self.admin_listen = reader.list(&section, "listen", true, |value| socket_addr(text(value)?));
        let token = reader.read(&section, "token", |value| credential(text(value)?, around));
        if let (Some((_, true)), Some(value)) = (&token, section.get("token")) {
            reader
                .notes
                .warn(reader.place_of(value), format!("token {WRITTEN_OUT}"));
        }
        self.token_written = section.get("token").is_some();
        self.admin.token = token.map(|(secret, _)| secret);
    }

    fn read_retry(&mut self, reader: &mut Reader<'_>, root: &Section<'_>) {
        let section = reader.section(root, "retry", &RETRY);
        let attempts = reader.read(&section, "attempts", |value| integer(value, 1..=10));
        set(
            &mut self.retry.attempts,
            attempts.and_then(|attempts| u32::try_from(attempts).ok()),
        );
        let budget = reader.read(&section, "budget", |value| fraction(value, 0.0..=1.0));
        set(&mut self.retry.budget, budget);
    }

    fn read_timeouts(&mut self, reader: &mut Reader<'_>, root: &Section<'_>) {
        let section = reader.section(root, "timeouts", &TIMEOUTS);
        let timeouts = &mut self.timeouts;
        for (field, timeout) in [
            ("connect", &mut timeouts.connect),
            ("head", &mut timeouts.head),
            ("idle", &mut timeouts.idle),
            ("client_header", &mut timeouts.client_header),
        ] {
            set(
                timeout,
                reader.read(&section, field, |value| duration(value, Duration::from_millis(1)..=DAY)),
            );
        }
    }

    /// Whether any upstream was written, valid or not.
    fn read_upstreams(&mut self, reader: &mut Reader<'_>, root: &Section<'_>, around: Surroundings<'_>) -> bool {
        for section in reader.sections(root, "upstream", &upstream::SCHEMA) {
            let (name, upstream) = upstream::read(reader, &section, around);
            self.names.extend(name);
            self.upstreams.extend(upstream);
        }
        root.get("upstream")
            .is_some_and(|value| !is_empty_array(value.get_ref()))
    }

    fn finish_without_file(self, overrides: &Overrides, env: Env<'_>) -> Result<Config, Errors> {
        let mut notes = Notes::default();
        if self.upstreams.is_empty() && overrides.upstreams.is_empty() {
            let message = "there is no upstream; give NAME=BASE_URL,env:KEY, or a file with --config";
            notes.error(Place::Flag("--upstream".to_owned()), message);
        }
        self.finish(notes, overrides, env)
    }

    /// Applies the flags, checks everything together, and makes the configuration if nothing was wrong.
    fn finish(mut self, mut notes: Notes, overrides: &Overrides, env: Env<'_>) -> Result<Config, Errors> {
        self.apply(
            &mut notes,
            overrides,
            Surroundings {
                env,
                folder: Path::new(""),
            },
        );
        let listeners = check::Listeners {
            public: self.listen.as_deref(),
            admin: self.admin_listen.as_deref(),
            has_token: self.token_written,
            has_client_keys: self.access.has_client_keys,
            has_tls: self.server.tls.is_some(),
            anonymous: self.anonymous.as_ref(),
        };
        listeners.check(&mut notes);
        let (has_client_keys, key_places) = (self.access.has_client_keys, self.access.places());
        let (groups, keys) = self.access.finish(&self.upstreams, &self.names, &mut notes);
        // Who strangers are served by is not theirs to know.
        self.server.route_headers = self.route_headers.unwrap_or(!has_client_keys);
        check::names(&self.names, &mut notes);
        set(&mut self.server.listen, self.listen.map(values_of));
        set(&mut self.admin.listen, self.admin_listen.map(values_of));
        let warnings = notes.finish()?;
        let Self {
            server,
            admin,
            affinity,
            retry,
            timeouts,
            upstreams,
            ..
        } = self;
        Ok(Config {
            server,
            admin,
            affinity,
            retry,
            timeouts,
            upstreams,
            groups,
            has_client_keys,
            key_places,
            keys,
            warnings,
        })
    }

    fn apply(&mut self, notes: &mut Notes, overrides: &Overrides, around: Surroundings<'_>) {
        if !overrides.listen.is_empty() {
            let place = Place::Flag("--listen".to_owned());
            let parse = |written: &String| match listen(written, around.folder) {
                Ok(address) => Some((place.clone(), address)),
                Err(problem) => {
                    notes.error(place.clone(), problem);
                    None
                }
            };
            self.listen = Some(overrides.listen.iter().filter_map(parse).collect());
        }
        if let Some(written) = &overrides.admin {
            let place = Place::Flag("--admin".to_owned());
            match socket_addr(written) {
                Ok(address) => self.admin_listen = Some(vec![(place, address)]),
                Err(problem) => notes.error(place, problem),
            }
        }
        for (index, flag) in overrides.upstreams.iter().enumerate() {
            let (name, upstream) = upstream::read_flag(notes, flag, index + 1, around);
            self.names.extend(name);
            self.upstreams.extend(upstream);
        }
    }
}

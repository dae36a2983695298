//! Reloading: read the file, compile it, let it take over; or keep the old configuration and say why everywhere.
//!
//! ```text
//! signal, file, operator ──▶ read ──▶ parse ──▶ compile ──▶ swap ──▶ log, metric, answer
//!                                       └────────┴── refused ────────▶ log, metric, answer
//! ```
//!
//! Reloads run one after the other on a thread of their own, so that no request waits for a disk. All that a request uses
//! comes from the snapshot that it began with. What was handed out at the start (sockets, certificates, the admin token) stays
//! as it is until the next start; a reload that would change it says so by name, and changes the rest.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;

use crate::{
    config::{Config, File, Overrides, Tls, Upstream},
    state::{Gateway, PendingShrink, ReloadOutcome},
    wire::{self, Identity, IdentityError},
};

/// Why the configuration is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// The file may have changed. Where it has not, nothing happens and nothing is said.
    File,
    /// The operator asked.
    Operator,
}

impl Trigger {
    fn label(self) -> &'static str {
        match self {
            Self::Signal => "signal",
            Self::File => "file",
            Self::Operator => "operator",
        }
    }
}

/// What became of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// A new configuration is in force.
    Applied(Changes),
    /// The configuration is what it was.
    Unchanged,
    /// The old configuration stays; here is everything that is wrong with the new one, one line each.
    Refused(Vec<String>),
    /// The process was started without a file.
    NoFile,
}

/// What a reload changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Upstreams that are new, by name.
    pub added: Vec<String>,
    /// Upstreams that are gone: what they work on goes on, and they get nothing more.
    pub removed: Vec<String>,
    /// Upstreams that are described differently.
    pub changed: Vec<String>,
    /// Fields that differ from those at the start and wait for the next one.
    pub at_next_start: Vec<&'static str>,
    /// Client keys that are new, gone or different: how many.
    pub keys: usize,
    /// Groups that are new, gone or different, by name.
    pub groups: Vec<String>,
    /// What is allowed but probably not meant.
    pub warnings: Vec<String>,
}

/// Reloads the configuration of a gateway.
pub struct Reloader {
    gateway: Arc<Gateway>,
    overrides: Overrides,
    /// What clients are shown over TLS.
    identity: Option<Arc<Identity>>,
    /// What sockets and the like were set up with.
    started: Config,
    /// What is in force.
    config: ArcSwap<Config>,
    /// Locked as long as a reload takes.
    last: Mutex<Last>,
}

/// What was read last.
struct Last {
    file: Option<File>,
    /// What was wrong with it, or with what it names.
    problems: Vec<String>,
}

impl Reloader {
    /// Reloads `gateway`, which was made from `config`, which was read from `file` with `overrides`; and `identity`, which was
    /// made from it too.
    pub fn new(
        gateway: Arc<Gateway>,
        config: Config,
        file: Option<File>,
        overrides: Overrides,
        identity: Option<Arc<Identity>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            gateway,
            overrides,
            identity,
            config: ArcSwap::from_pointee(config.clone()),
            started: config,
            last: Mutex::new(Last {
                file,
                problems: Vec::new(),
            }),
        })
    }

    /// The files and folders that are read: the main file, where there is one, and what it names.
    pub fn paths(&self) -> Vec<PathBuf> {
        let main = self.last.lock().file.as_ref().map(|file| file.path().to_owned());
        let named = self.config.load();
        main.into_iter().chain(named.files().map(Path::to_owned)).collect()
    }

    /// The configuration that is in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Reloads, after any reload that runs already. Needs a Tokio runtime.
    pub async fn reload(self: Arc<Self>, trigger: Trigger) -> Reloaded {
        let done = tokio::task::spawn_blocking(move || self.run(trigger)).await;
        let (reloaded, shrinking) =
            done.unwrap_or_else(|error| (Reloaded::Refused(vec![format!("the reload broke off: {error}")]), None));
        if let Some(shrinking) = shrinking {
            tokio::spawn(shrinking.finish());
        }
        reloaded
    }

    fn run(&self, trigger: Trigger) -> (Reloaded, Option<PendingShrink>) {
        let mut last = self.last.lock();
        let Some(path) = last.file.as_ref().map(File::path) else {
            tracing::warn!(
                trigger = trigger.label(),
                "no file to reload: this was started without one"
            );
            return (Reloaded::NoFile, None);
        };
        let file = File::read(path);
        let (reloaded, shrinking) = self.take_over(&file, trigger);
        let is_same = last.file.as_ref() == Some(&file);
        let problems = match &reloaded {
            Reloaded::Refused(problems) => problems.clone(),
            _ => Vec::new(),
        };
        // Something happened near a file, but not to it: what is known already need not be said again.
        let is_news = problems != last.problems || !matches!(reloaded, Reloaded::Refused(_) | Reloaded::Unchanged);
        if trigger != Trigger::File || !is_same || is_news {
            self.tell(trigger, &reloaded);
        }
        *last = Last {
            file: Some(file),
            problems,
        };
        (reloaded, shrinking)
    }

    fn take_over(&self, file: &File, trigger: Trigger) -> (Reloaded, Option<PendingShrink>) {
        let refused = |problems| (Reloaded::Refused(problems), None);
        let config = match file.parse(&self.overrides) {
            Ok(config) => config,
            Err(errors) => return refused(errors.problems().iter().map(ToString::to_string).collect()),
        };
        if let Some(listen) = config.opens(&self.started.server.listen) {
            return refused(vec![format!(
                "server.listen is still \"{listen}\" until the next start, and there whoever connects would spend your upstream keys; keep the client keys, or restart"
            )]);
        }
        let before = self.config.load();
        if config == **before {
            if trigger != Trigger::File {
                self.gateway.probe_credentials();
            }
            return (Reloaded::Unchanged, None);
        }
        let tls = match config.server.tls.as_ref().map(server_identity).transpose() {
            Ok(tls) => tls,
            Err(error) => return refused(vec![error.to_string()]),
        };
        match self.gateway.reload(&config) {
            Ok(shrinking) => {
                if let (Some(identity), Some(tls)) = (&self.identity, tls)
                    && before.server.tls != config.server.tls
                {
                    identity.replace(tls);
                }
                let changes = Changes::between(&before, &config, &self.started);
                self.config.store(Arc::new(config));
                (Reloaded::Applied(changes), shrinking)
            }
            Err(error) => refused(vec![error.to_string()]),
        }
    }

    fn tell(&self, trigger: Trigger, reloaded: &Reloaded) {
        let trigger = trigger.label();
        let outcome = match reloaded {
            Reloaded::Applied(changes) => {
                let [added, removed, changed] =
                    [&changes.added, &changes.removed, &changes.changed].map(|names| names.join(", "));
                tracing::info!(
                    trigger,
                    added,
                    removed,
                    changed,
                    groups = (!changes.groups.is_empty()).then(|| changes.groups.join(", ")),
                    keys = (changes.keys > 0).then_some(changes.keys),
                    "reloaded: a new configuration is in force"
                );
                for warning in &changes.warnings {
                    tracing::warn!("{warning}");
                }
                for field in &changes.at_next_start {
                    tracing::warn!("{field} changed: takes effect at the next start");
                }
                ReloadOutcome::Applied
            }
            Reloaded::Unchanged => {
                tracing::info!(trigger, "reloaded: the configuration is what it was");
                ReloadOutcome::Unchanged
            }
            Reloaded::Refused(problems) => {
                for problem in problems {
                    tracing::error!("{problem}");
                }
                tracing::error!(trigger, "not reloaded: the old configuration stays in force");
                ReloadOutcome::Refused
            }
            Reloaded::NoFile => return,
        };
        self.gateway.metrics.reloads.increment(outcome);
    }
}

impl Changes {
    fn between(before: &Config, after: &Config, started: &Config) -> Self {
        let mut changes = Self {
            at_next_start: waiting(started, after),
            warnings: after.warnings.iter().map(ToString::to_string).collect(),
            ..Self::default()
        };
        for upstream in &after.upstreams {
            match named(before, &upstream.name) {
                None => changes.added.push(upstream.name.clone()),
                Some(known) if known != upstream => changes.changed.push(upstream.name.clone()),
                Some(_) => {}
            }
        }
        let gone = before
            .upstreams
            .iter()
            .filter(|known| named(after, &known.name).is_none());
        changes.groups = different(&before.groups, &after.groups, |group| &group.name);
        changes.keys = different(&before.keys, &after.keys, |key| &key.name).len();
        changes.removed = gone.map(|known| known.name.clone()).collect();
        changes
    }
}

/// What `tls` makes of a listener.
///
/// # Errors
/// When the files have stopped being what they were when they were read.
pub fn server_identity(tls: &Tls) -> Result<Arc<ServerConfig>, IdentityError> {
    let client_ca = tls.client_ca.as_ref().map(|(_, pem)| pem.as_slice());
    wire::server_config(&tls.certificates, tls.private_key.expose().as_bytes(), client_ca)
}

/// The names of those that are in only one of the two, or in both and not the same.
fn different<T: PartialEq>(before: &[T], after: &[T], name: fn(&T) -> &String) -> Vec<String> {
    let mut known: BTreeMap<&String, &T> = before.iter().map(|item| (name(item), item)).collect();
    let mut names = BTreeSet::new();
    for item in after {
        if known.remove(name(item)) != Some(item) {
            names.insert(name(item));
        }
    }
    names.extend(known.into_keys());
    names.into_iter().cloned().collect()
}

fn named<'a>(config: &'a Config, name: &str) -> Option<&'a Upstream> {
    config.upstreams.iter().find(|upstream| upstream.name == name)
}

/// The fields that were handed out at the start and are different now.
fn waiting(started: &Config, now: &Config) -> Vec<&'static str> {
    let fields = [
        ("server.listen", started.server.listen != now.server.listen),
        (
            "whether there is server.tls",
            started.server.tls.is_some() != now.server.tls.is_some(),
        ),
        ("admin.listen", started.admin.listen != now.admin.listen),
        ("admin.token", started.admin.token != now.admin.token),
        (
            "timeouts.client_header",
            started.timeouts.client_header != now.timeouts.client_header,
        ),
        (
            "timeouts.idle (towards clients)",
            started.timeouts.idle != now.timeouts.idle,
        ),
    ];
    let different = fields.into_iter().filter(|(_, differs)| *differs);
    different.map(|(field, _)| field).collect()
}

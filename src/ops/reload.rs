//! Reloading the configuration: the file is read and compiled, and replaces the old configuration. If the new
//! configuration has an error, the old one stays in force. The log, the metrics and the answer then say why.
//!
//! ```text
//! signal, file, operator ──▶ read ──▶ parse ──▶ compile ──▶ swap ──▶ log, metric, answer
//!                                       └────────┴── refused ────────▶ log, metric, answer
//! ```
//!
//! Reloads run one after the other on a blocking thread, so that no request waits for a disk. A request uses the
//! snapshot that it began with until its end. Sockets, timeouts of the listeners and the admin token are set up at the
//! start and stay as they are until the next start. If a reload would change one of them, the log names it, and
//! everything else changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    config::{Config, File, Overrides, Tls, Upstream},
    state::{Gateway, ReloadOutcome},
    wire::{self, IdentityError, TlsIdentity},
};

/// Why the configuration is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The process received SIGHUP.
    Signal,
    /// A file of the configuration may have changed. If it has not, the reload has no effect and is not logged.
    File,
    /// The operator called the admin API.
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

/// The result of a reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadResult {
    /// A new configuration is in force.
    Applied(ConfigChanges),
    /// The configuration is the same as before.
    Unchanged,
    /// The new configuration is invalid and the old one stays in force. Contains one line for each problem.
    Refused(Vec<String>),
    /// The process was started without a file.
    NoFile,
}

/// The changes of a reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigChanges {
    /// The names of new upstreams.
    pub added: Vec<String>,
    /// The names of removed upstreams. Their running requests finish, and they receive no new ones.
    pub removed: Vec<String>,
    /// The names of upstreams with changed settings.
    pub changed: Vec<String>,
    /// Fields that differ from those at the start of the process and take effect at the next start.
    pub at_next_start: Vec<&'static str>,
    /// The number of client keys that are new, removed or changed.
    pub keys: usize,
    /// The names of groups that are new, removed or changed.
    pub groups: Vec<String>,
    /// Settings that are valid but probably a mistake.
    pub warnings: Vec<String>,
}

/// Reloads the configuration of a gateway.
pub struct Reloader {
    gateway: Arc<Gateway>,
    /// The flags and environment variables that override the file.
    overrides: Overrides,
    /// The TLS settings of the public listener; `None` if it does not use TLS.
    identity: Option<Arc<TlsIdentity>>,
    /// The configuration at the start of the process, with which the sockets were set up.
    started: Config,
    /// The configuration in force.
    config: ArcSwap<Config>,
    /// Locked during a reload, so that reloads run one after the other.
    last: Mutex<LastRead>,
}

/// The file as the last reload read it.
struct LastRead {
    /// The file; `None` if the process was started without one.
    file: Option<File>,
    /// The problems that the last reload found in the file or in a file that it names.
    problems: Vec<String>,
}

impl Reloader {
    /// Makes a reloader of `gateway` and `identity`. Both were made from `config`, which was read from `file` with
    /// `overrides`.
    pub fn new(
        gateway: Arc<Gateway>,
        config: Config,
        file: Option<File>,
        overrides: Overrides,
        identity: Option<Arc<TlsIdentity>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            gateway,
            overrides,
            identity,
            config: ArcSwap::from_pointee(config.clone()),
            started: config,
            last: Mutex::new(LastRead {
                file,
                problems: Vec::new(),
            }),
        })
    }

    /// The files and directories that the configuration is read from: the main file, if there is one, and those that it
    /// names. There are none if the main file was a pipe, which cannot be read again.
    pub fn paths(&self) -> Vec<PathBuf> {
        let last = self.last.lock();
        if last.file.as_ref().is_some_and(|file| !file.is_regular()) {
            return Vec::new();
        }
        let main = last.file.as_ref().map(|file| file.path().to_owned());
        let named = self.config.load();
        main.into_iter().chain(named.files().map(Path::to_owned)).collect()
    }

    /// The configuration in force.
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Reloads the configuration. If another reload is running, this one waits for its end.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    pub async fn reload(self: Arc<Self>, trigger: Trigger) -> ReloadResult {
        let (sender, receiver) = oneshot::channel();
        let runtime = Handle::current();
        // Tokio's own pool of threads would panic where the system has no thread left.
        let thread = thread::Builder::new().name("reload".to_owned()).spawn(move || {
            let _runtime = runtime.enter();
            let _ = sender.send(self.run(trigger));
        });
        let refused = |why: String| ReloadResult::Refused(vec![why]);
        match thread {
            Ok(_) => receiver
                .await
                .unwrap_or_else(|_| refused("the reload was aborted".to_owned())),
            Err(error) => refused(format!("there is no thread for the reload: {error}")),
        }
    }

    fn run(&self, trigger: Trigger) -> ReloadResult {
        let mut last = self.last.lock();
        let Some(file) = last.file.as_ref().map(File::read_again) else {
            tracing::warn!(
                trigger = trigger.label(),
                "no file to reload: the process was started without one"
            );
            return ReloadResult::NoFile;
        };
        let result = self.apply(&file, trigger);
        let is_same = last.file.as_ref() == Some(&file);
        let problems = match &result {
            ReloadResult::Refused(problems) => problems.clone(),
            _ => Vec::new(),
        };
        // A change of another file in the same folder triggers a reload too. A result that was logged before is then
        // not logged again.
        let is_news = problems != last.problems || matches!(result, ReloadResult::Applied(_) | ReloadResult::NoFile);
        if trigger != Trigger::File || !is_same || is_news {
            self.log_and_count(trigger, &result);
        }
        *last = LastRead {
            file: Some(file),
            problems,
        };
        result
    }

    fn apply(&self, file: &File, trigger: Trigger) -> ReloadResult {
        let refused = ReloadResult::Refused;
        let config = match file.parse(&self.overrides) {
            Ok(config) => config,
            Err(errors) => return refused(errors.problems().iter().map(ToString::to_string).collect()),
        };
        if let Some(listen) = config.find_exposed(&self.started.server.listen) {
            return refused(vec![format!(
                "server.listen stays \"{listen}\" until the next start, and without client keys every caller on that address could use your upstream keys; keep the client keys, or restart"
            )]);
        }
        let before = self.config.load();
        if config == **before {
            if trigger != Trigger::File {
                self.gateway.probe_credentials();
            }
            return ReloadResult::Unchanged;
        }
        let tls = match config.server.tls.as_ref().map(server_identity).transpose() {
            Ok(tls) => tls,
            Err(error) => return refused(vec![error.to_string()]),
        };
        match self.gateway.reload(&config) {
            Ok(()) => {
                if let (Some(identity), Some(tls)) = (&self.identity, tls)
                    && before.server.tls != config.server.tls
                {
                    identity.replace(tls);
                }
                let changes = ConfigChanges::between(&before, &config, &self.started);
                self.config.store(Arc::new(config));
                ReloadResult::Applied(changes)
            }
            Err(error) => refused(vec![error.to_string()]),
        }
    }

    fn log_and_count(&self, trigger: Trigger, result: &ReloadResult) {
        let trigger = trigger.label();
        let outcome = match result {
            ReloadResult::Applied(changes) => {
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
                    tracing::warn!("{field} changed; the change takes effect at the next start");
                }
                ReloadOutcome::Applied
            }
            ReloadResult::Unchanged => {
                tracing::info!(trigger, "reloaded: the configuration has not changed");
                ReloadOutcome::Unchanged
            }
            ReloadResult::Refused(problems) => {
                for problem in problems {
                    tracing::error!("{problem}");
                }
                tracing::error!(
                    trigger,
                    "not reloaded: the new configuration is refused, so the old one stays in force"
                );
                ReloadOutcome::Refused
            }
            ReloadResult::NoFile => return,
        };
        self.gateway.metrics.reloads.increment(outcome);
    }
}

impl ConfigChanges {
    fn between(before: &Config, after: &Config, started: &Config) -> Self {
        let mut changes = Self {
            at_next_start: changes_at_next_start(started, after),
            warnings: after.warnings.iter().map(ToString::to_string).collect(),
            ..Self::default()
        };
        for upstream in &after.upstreams {
            match find_upstream(before, &upstream.name) {
                None => changes.added.push(upstream.name.clone()),
                Some(known) if known != upstream => changes.changed.push(upstream.name.clone()),
                Some(_) => {}
            }
        }
        let removed = before
            .upstreams
            .iter()
            .filter(|known| find_upstream(after, &known.name).is_none());
        changes.groups = changed_names(&before.groups, &after.groups, |group| &group.name);
        changes.keys = changed_names(&before.keys, &after.keys, |key| &key.name).len();
        changes.removed = removed.map(|known| known.name.clone()).collect();
        changes
    }
}

/// Makes the TLS settings of a listener.
///
/// # Errors
/// When the certificates, the private key or the client CA cannot be used.
pub fn server_identity(tls: &Tls) -> Result<Arc<ServerConfig>, IdentityError> {
    let client_ca = tls.client_ca.as_ref().map(|(_, pem)| pem.as_slice());
    wire::server_config(&tls.certificates, tls.private_key.expose().as_bytes(), client_ca)
}

/// Returns the names of the items that are in only one of the two lists, or differ between them.
fn changed_names<T: PartialEq>(before: &[T], after: &[T], name: fn(&T) -> &String) -> Vec<String> {
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

fn find_upstream<'a>(config: &'a Config, name: &str) -> Option<&'a Upstream> {
    config.upstreams.iter().find(|upstream| upstream.name == name)
}

/// Returns the fields that are used only at the start of the process and have changed since.
fn changes_at_next_start(started: &Config, now: &Config) -> Vec<&'static str> {
    let fields = [
        ("server.listen", started.server.listen != now.server.listen),
        ("server.keepalive", started.server.keepalive != now.server.keepalive),
        (
            "server.tls (added or removed)",
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
    let changed = fields.into_iter().filter(|(_, has_changed)| *has_changed);
    changed.map(|(field, _)| field).collect()
}

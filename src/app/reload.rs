//! Reloads the configuration at SIGHUP and when one of its files changes.

use std::{
    future::pending,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    time::{Instant, sleep},
};

use crate::ops::{Reloader, Trigger};

/// The time without a change after which a file counts as saved. An editor saves a file in several steps.
const QUIET: Duration = Duration::from_millis(200);
/// The maximum time to wait until a file counts as saved.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// The signal SIGHUP, whose default action would end the process.
pub(super) struct Hangups(Signal);

impl Hangups {
    /// Registers a handler for the signal.
    ///
    /// # Errors
    /// If the system refuses the handler.
    pub fn listen() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }
}

/// Reloads the configuration at each signal and after each change of a file, until the process ends.
pub(super) async fn reload_on_changes(reloader: Arc<Reloader>, mut hangups: Hangups) {
    let mut paths = reloader.paths();
    let mut watcher = FileWatcher::start(&paths);
    // A change between the first reading of the files and the start of the watcher would go unnoticed.
    let mut trigger = watcher.as_ref().map(|_| Trigger::File);
    loop {
        if let Some(trigger) = trigger {
            reloader.clone().reload(trigger).await;
        }
        let named = reloader.paths();
        let is_watched = named == paths;
        paths = named;
        trigger = if is_watched {
            tokio::select! {
                hangup = hangups.0.recv() => hangup.map(|()| Trigger::Signal),
                () = wait_for_change(watcher.as_ref()) => Some(Trigger::File),
            }
        } else {
            // Files that the new configuration names for the first time may have changed since they were read.
            Some(Trigger::File)
        };
        if let Some(watcher) = &mut watcher {
            watcher.watch_only(&paths);
        }
    }
}

/// Waits for a change in a watched folder, and then until [`QUIET`] has passed without another one. Without a watcher, waits
/// for ever.
async fn wait_for_change(watcher: Option<&FileWatcher>) {
    let Some(FileWatcher { changed, .. }) = watcher else {
        return pending().await;
    };
    changed.notified().await;
    let deadline = Instant::now() + MAX_WAIT;
    while Instant::now() < deadline {
        tokio::select! {
            () = changed.notified() => {}
            () = sleep(QUIET) => return,
        }
    }
}

/// Watches the folders of files, and folders themselves.
///
/// A file cannot be watched by itself, because it may be replaced: by a rename, or, if it is a link, by another target.
/// Kubernetes mounts a ConfigMap as links to `..data/NAME`, where `..data` is a link to a folder that is created for each
/// version.
struct FileWatcher {
    watcher: RecommendedWatcher,
    /// Notified after each change in one of the folders.
    changed: Arc<Notify>,
    /// The folders that are watched.
    folders: Vec<PathBuf>,
}

impl FileWatcher {
    /// Watches `paths`. Returns `None`, and logs a warning, if the system cannot watch any of them.
    fn start(paths: &[PathBuf]) -> Option<Self> {
        let first = paths.first()?.clone();
        let changed = Arc::new(Notify::new());
        let notify = changed.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // After an error, such as lost events, the file may have changed.
            if event.is_err() || event.is_ok_and(|event| is_change(&event.kind)) {
                notify.notify_one();
            }
        });
        let watcher = watcher.map_err(|error| warn_unwatched(&first, &error)).ok()?;
        let mut watcher = Self {
            watcher,
            changed,
            folders: Vec::new(),
        };
        watcher.watch_only(paths);
        (!watcher.folders.is_empty()).then_some(watcher)
    }

    /// Watches, for each path, its folder; if it is a link, also the folder of its target; if it is a folder, also itself. Stops
    /// watching other folders.
    fn watch_only(&mut self, paths: &[PathBuf]) {
        let mut folders: Vec<PathBuf> = Vec::new();
        for path in paths {
            folders.push(folder_of(path));
            if path.is_symlink() {
                folders.extend(path.canonicalize().ok().as_deref().map(folder_of));
            }
            if path.is_dir() {
                folders.push(path.clone());
            }
        }
        folders.sort_unstable();
        folders.dedup();
        for left in self.folders.extract_if(.., |folder| !folders.contains(folder)) {
            // This fails if the folder was removed, which has ended its watch.
            let _ = self.watcher.unwatch(&left);
        }
        for folder in folders {
            // The name may refer to another folder by now, so each folder is watched again.
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) if self.folders.contains(&folder) => {}
                Ok(()) => self.folders.push(folder),
                Err(error) => {
                    self.folders.retain(|known| *known != folder);
                    warn_unwatched(&folder, &error);
                }
            }
        }
    }
}

fn warn_unwatched(file: &Path, error: &notify::Error) {
    let file = file.display();
    tracing::warn!(
        "cannot watch {file} for changes ({error}); to reload, send SIGHUP, or POST /api/reload to the admin listener"
    );
}

/// Whether an event may have changed a file. Reading a file is an event too, and a reload must not trigger the next one.
fn is_change(kind: &EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}

/// The folder that contains `file`.
fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

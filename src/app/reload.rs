//! What makes the configuration be read again: SIGHUP, and a file that changed.

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

/// An editor takes several steps to save a file: how long none must have come for all to have been taken,
const QUIET: Duration = Duration::from_millis(200);
/// and how long that is waited for where something goes on all the time.
const LATEST: Duration = Duration::from_secs(2);

/// SIGHUP, which would end the process otherwise.
pub(super) struct Hangups(Signal);

impl Hangups {
    /// Takes the signal over.
    pub fn listen() -> io::Result<Self> {
        Ok(Self(signal(SignalKind::hangup())?))
    }
}

/// Reloads at each signal and each change of the file until the process ends.
pub(super) async fn keep_up_to_date(reloader: Arc<Reloader>, mut hangups: Hangups) {
    let mut paths = reloader.paths();
    let mut watch = Watch::start(&paths);
    // What changed between the start's reading and the watch, nobody would tell.
    let mut trigger = watch.as_ref().map(|_| Trigger::File);
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
                () = settled(watch.as_ref()) => Some(Trigger::File),
            }
        } else {
            // Files that are named only now may have changed since they were read.
            Some(Trigger::File)
        };
        if let Some(watch) = &mut watch {
            watch.follow(&paths);
        }
    }
}

/// Waits until something has happened where the file is, and nothing more does.
async fn settled(watch: Option<&Watch>) {
    let Some(Watch { happened, .. }) = watch else {
        return pending().await;
    };
    happened.notified().await;
    let latest = Instant::now() + LATEST;
    while Instant::now() < latest {
        tokio::select! {
            () = happened.notified() => {}
            () = sleep(QUIET) => return,
        }
    }
}

/// Watches files by their folders, since a file itself may be replaced: by a rename, or, where it is a link, by another
/// target; and folders by themselves. Kubernetes mounts a ConfigMap as links to `..data/NAME`, where `..data` is a link to a folder that is
/// written anew for each version.
struct Watch {
    watcher: RecommendedWatcher,
    happened: Arc<Notify>,
    folders: Vec<PathBuf>,
}

impl Watch {
    /// `None` where the system cannot watch, which is logged.
    fn start(paths: &[PathBuf]) -> Option<Self> {
        let first = paths.first()?.clone();
        let happened = Arc::new(Notify::new());
        let tell = happened.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // What cannot be told exactly, as when events got lost, may concern the file.
            if event.is_err() || event.is_ok_and(|event| is_change(&event.kind)) {
                tell.notify_one();
            }
        });
        let watcher = watcher.map_err(|error| unwatched(&first, &error)).ok()?;
        let mut watch = Self {
            watcher,
            happened,
            folders: Vec::new(),
        };
        watch.follow(paths);
        (!watch.folders.is_empty()).then_some(watch)
    }

    /// Watches the folder of each file, where the file is a link, that of its target, and what is a folder itself.
    fn follow(&mut self, paths: &[PathBuf]) {
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
            // It is mostly gone, and its watch with it.
            let _ = self.watcher.unwatch(&left);
        }
        for folder in folders {
            // A folder of the same name may be another one by now, so it is watched anew in any case.
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) if self.folders.contains(&folder) => {}
                Ok(()) => self.folders.push(folder),
                Err(error) => {
                    self.folders.retain(|known| *known != folder);
                    unwatched(&folder, &error);
                }
            }
        }
    }
}

fn unwatched(file: &Path, error: &notify::Error) {
    let file = file.display();
    tracing::warn!("changes of {file} go unnoticed ({error}); send SIGHUP, or POST /api/reload to the admin side");
}

/// To read the file is an event too, and must not lead to reading it again.
fn is_change(kind: &EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if *access != AccessKind::Close(AccessMode::Write))
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

//! A listening Unix socket and the file under which clients find it.
//!
//! The file outlives a process that is killed. So a file at the path may be a stale one, which is replaced, or the one of a
//! running process, which must stay. A file says neither, so a connection is tried. Instances that start at the same time
//! take turns: each locks the folder while it decides. And an instance that stops removes only its own file, which it knows
//! by device and inode, because the operator may have removed that file and started another instance.

use std::{
    fs::{File, Metadata},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::net::{UnixListener, UnixStream};

/// How often and for how long in all a folder's lock is waited for. Without it, the socket is bound nevertheless: the lock
/// only keeps instances apart that start within milliseconds of each other.
const LOCK_PERIOD: Duration = Duration::from_millis(20);
const LOCK_TRIES: usize = 50;

/// A listening Unix socket, whose file is removed when it is dropped.
#[derive(Debug)]
pub(in crate::wire) struct UnixSocketFile {
    listener: UnixListener,
    path: PathBuf,
    /// The file as it was bound; `None` if it was replaced or removed at once.
    identity: Option<FileIdentity>,
}

/// The identity of a file. No other file has it as long as the socket is open, because the socket holds the inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
}

impl From<&Metadata> for FileIdentity {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

impl UnixSocketFile {
    /// Binds a socket to `path`. A stale socket is replaced. Any other file, and the socket of a running process, is not.
    pub async fn bind(path: &Path) -> io::Result<Self> {
        let _lock = lock_folder(path).await;
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                if !is_stale(path).await {
                    return Err(error);
                }
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            other => other?,
        };
        let metadata = std::fs::symlink_metadata(path).ok();
        Ok(Self {
            listener,
            path: path.to_owned(),
            identity: metadata.as_ref().map(FileIdentity::from),
        })
    }

    /// The socket.
    pub fn listener(&self) -> &UnixListener {
        &self.listener
    }
}

impl Drop for UnixSocketFile {
    fn drop(&mut self) {
        // The socket is still open here, so no other instance takes the file for a stale one and replaces it in between.
        let metadata = std::fs::symlink_metadata(&self.path).ok();
        let identity = metadata.as_ref().map(FileIdentity::from);
        if identity.is_some() && identity == self.identity {
            // The call fails if the folder has become read-only. The next instance replaces the file.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether the file is a socket on which no process listens. A socket whose queue is full, or that this process may not use,
/// has a listener.
async fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let is_refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    is_socket && UnixStream::connect(path).await.is_err_and(is_refused)
}

/// Locks the folder of `path` until the result is dropped. Returns `None` if the folder cannot be locked in time.
async fn lock_folder(path: &Path) -> Option<File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new("."))).ok()?;
    for _ in 0..LOCK_TRIES {
        // SAFETY: the descriptor is open, and the call touches no memory.
        if unsafe { libc::flock(folder.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) } == 0 {
            return Some(folder);
        }
        if io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock {
            return None;
        }
        tokio::time::sleep(LOCK_PERIOD).await;
    }
    None
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, SockAddr, Socket, Type};

    use super::*;

    /// A path in a folder of its own.
    fn path(test: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("unix-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a writable folder");
        folder.join("s.sock")
    }

    #[tokio::test]
    async fn a_socket_is_replaced_only_if_no_process_listens_on_it() {
        let path = path("stale");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a free path"));
        let file = UnixSocketFile::bind(&path).await.expect("the stale socket is replaced");
        let error = UnixSocketFile::bind(&path).await.expect_err("the path is in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(file);
        assert!(!path.exists(), "the file is removed with its listener");
        std::fs::write(&path, "precious").expect("a writable folder");
        assert!(UnixSocketFile::bind(&path).await.is_err(), "no socket");
        assert!(path.exists());
    }

    #[tokio::test]
    async fn the_file_of_another_instance_stays() {
        let path = path("taken-over");
        let old = UnixSocketFile::bind(&path).await.expect("a free path");
        std::fs::remove_file(&path).expect("the file exists");
        let new = UnixSocketFile::bind(&path).await.expect("a free path");
        drop(old);
        UnixStream::connect(&path).await.expect("the new instance is reachable");
        drop(new);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_with_a_full_queue_is_not_stale() {
        let path = path("full");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).expect("a socket");
        listener
            .bind(&SockAddr::unix(&path).expect("a short path"))
            .expect("a free path");
        listener.listen(1).expect("it listens");
        let mut clients = Vec::new();
        let full = loop {
            match UnixStream::connect(&path).await {
                Ok(client) => clients.push(client),
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert!(!is_stale(&path).await);
        std::fs::remove_file(&path).expect("the file exists");
    }

    #[test]
    fn of_instances_that_start_at_the_same_time_one_gets_the_path() {
        let path = path("race");
        for _ in 0..20 {
            drop(std::os::unix::net::UnixListener::bind(&path).expect("a free path"));
            let bound = std::thread::scope(|scope| {
                let bind = || {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                    let file = runtime
                        .as_ref()
                        .expect("a runtime")
                        .block_on(UnixSocketFile::bind(&path));
                    // The runtime must outlive the socket.
                    file.ok().map(|file| (file, runtime))
                };
                let instances: Vec<_> = (0..4).map(|_| scope.spawn(bind)).collect();
                let ended = instances.into_iter().map(|instance| instance.join().expect("no panic"));
                ended.collect::<Vec<_>>()
            });
            assert_eq!(bound.iter().flatten().count(), 1);
            drop(bound);
            assert!(!path.exists());
        }
    }
}

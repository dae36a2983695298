//! Threads that run connections, each with an event loop of its own.
//!
//! A client's connection stays on the thread that it is assigned to, and so do the upstream connections that its
//! requests use. One event loop drives both ends of a request. So no task moves between threads, and no thread wakes
//! another one for each piece of a body. The accepting task assigns each new connection to the thread with the fewest
//! connections. A listening socket per thread (`SO_REUSEPORT`) would distribute connections at random, and a few
//! long-lived connections would be distributed unevenly.

use std::{
    cell::Cell,
    io,
    num::NonZeroUsize,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The number of processors that this process may use, as it was at the first call. It must not change afterwards,
/// because arrays with an entry per worker depend on it. The value is cached also because determining it takes several
/// file reads.
fn processors() -> usize {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZeroUsize::get))
}

/// The number of entries in an array that is indexed by [`worker_index`].
pub(in crate::wire) fn worker_count() -> usize {
    processors() + 1
}

/// The index of the worker that this thread is, less than [`worker_count`]. It is zero on every thread that is not a
/// worker.
pub(in crate::wire) fn worker_index() -> usize {
    CURRENT.get()
}

/// Threads that run connections. When it is dropped, the threads stop, and the connections that they run are closed.
pub struct Workers {
    workers: Box<[Worker]>,
}

struct Worker {
    handle: Handle,
    /// The number of connections that are assigned to the worker.
    connections: Arc<AtomicUsize>,
    /// Stops the worker when it is dropped.
    stop: Option<oneshot::Sender<()>>,
    /// The thread of the worker; `None` once it has been joined.
    thread: Option<JoinHandle<()>>,
}

/// The assignment of one connection to a worker, which counts the connection until it is dropped.
pub(in crate::wire) struct WorkerAssignment(Arc<AtomicUsize>);

impl Drop for WorkerAssignment {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts one worker for each processor that this process may use.
    ///
    /// # Errors
    /// If the system provides no further thread, or no further event queue.
    pub fn start() -> io::Result<Self> {
        let workers: io::Result<Box<[Worker]>> = (1..=processors()).map(Worker::start).collect();
        workers.map(|workers| Self { workers })
    }

    /// Assigns a new connection to the worker with the fewest connections. Returns that worker's runtime.
    pub(in crate::wire) fn assign(&self) -> (WorkerAssignment, &Handle) {
        let least = |worker: &&Worker| worker.connections.load(Ordering::Relaxed);
        let worker = self.workers.iter().min_by_key(least);
        let worker = worker.expect("there is a worker for each processor, and at least one processor");
        worker.connections.fetch_add(1, Ordering::Relaxed);
        (WorkerAssignment(worker.connections.clone()), &worker.handle)
    }
}

impl Worker {
    fn start(index: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                CURRENT.set(index);
                // The channel completes when the sender is dropped.
                let _ = runtime.block_on(stopped);
                // A name lookup that is still running must not delay the end of the process.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            handle,
            connections: Arc::default(),
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // If the worker has panicked, the panic has been reported already.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_distributed_evenly() {
        let workers = Workers::start().expect("threads");
        let assignments: Vec<WorkerAssignment> = (0..processors() * 5).map(|_| workers.assign().0).collect();
        let counts = || {
            workers
                .workers
                .iter()
                .map(|worker| worker.connections.load(Ordering::Relaxed))
        };
        assert!(counts().all(|count| count == 5));
        drop(assignments);
        assert!(counts().all(|count| count == 0));
    }

    #[test]
    fn each_worker_has_an_index_of_its_own() {
        let workers = Workers::start().expect("threads");
        let mut indexes: Vec<usize> = workers
            .workers
            .iter()
            .map(|worker| {
                let (tell, told) = std::sync::mpsc::channel();
                worker.handle.spawn(async move { tell.send(worker_index()) });
                told.recv().expect("the worker runs")
            })
            .collect();
        indexes.push(worker_index());
        indexes.sort_unstable();
        assert_eq!(indexes, (0..worker_count()).collect::<Vec<_>>());
    }
}

//! Threads that serve connections, each with a runtime of its own.
//!
//! A connection stays on the thread that it was given to, and so do the upstream connections that its requests use: the
//! two ends of a request are driven by one event loop, no task moves, and no thread wakes another for a byte. Who accepts
//! gives each new connection to the thread that has the fewest: a socket for each thread (`SO_REUSEPORT`) would leave
//! that to chance, and few long-lived connections spread badly by chance.

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

/// The number of processors that this process may use, as it was when it was first asked for: it takes several files to
/// find out, it may change, and there must be a place for each worker ever after.
fn processors() -> usize {
    static FIRST: OnceLock<usize> = OnceLock::new();
    *FIRST.get_or_init(|| std::thread::available_parallelism().map_or(1, NonZeroUsize::get))
}

/// How many places there are that something may be kept in for each worker.
pub(in crate::wire) fn places() -> usize {
    processors() + 1
}

/// The place of this thread: zero for all that are no worker.
pub(in crate::wire) fn place() -> usize {
    CURRENT.get()
}

/// Threads that serve connections; they end with it, and what they still run ends with them.
pub struct Workers {
    workers: Box<[Worker]>,
}

struct Worker {
    handle: Handle,
    connections: Arc<AtomicUsize>,
    /// Dropped with the worker, which stops it.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// One connection's place on a worker.
pub(in crate::wire) struct Seat(Arc<AtomicUsize>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts one worker for each processor that this process may use.
    ///
    /// # Errors
    /// When the system grants no thread, or no event queue.
    pub fn start() -> io::Result<Self> {
        let workers: io::Result<Box<[Worker]>> = (1..=processors()).map(Worker::start).collect();
        workers.map(|workers| Self { workers })
    }

    /// The worker with the fewest connections, which this one is counted with.
    pub(in crate::wire) fn seat(&self) -> Option<(Seat, &Handle)> {
        let least = |worker: &&Worker| worker.connections.load(Ordering::Relaxed);
        let worker = self.workers.iter().min_by_key(least)?;
        worker.connections.fetch_add(1, Ordering::Relaxed);
        Some((Seat(worker.connections.clone()), &worker.handle))
    }
}

impl Worker {
    fn start(place: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{place}"))
            .spawn(move || {
                CURRENT.set(place);
                // Either word of the channel is the end.
                let _ = runtime.block_on(stopped);
                // A name that is still being resolved must not hold the process.
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
            // A worker that panicked has said so.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_spread_evenly() {
        let workers = Workers::start().expect("threads");
        let seats: Vec<Seat> = (0..processors() * 5).filter_map(|_| Some(workers.seat()?.0)).collect();
        let counts = || {
            workers
                .workers
                .iter()
                .map(|worker| worker.connections.load(Ordering::Relaxed))
        };
        assert!(counts().all(|count| count == 5));
        drop(seats);
        assert!(counts().all(|count| count == 0));
    }

    #[test]
    fn each_has_a_place_of_its_own() {
        let workers = Workers::start().expect("threads");
        let mut places: Vec<usize> = workers
            .workers
            .iter()
            .map(|worker| {
                let (tell, told) = std::sync::mpsc::channel();
                worker.handle.spawn(async move { tell.send(place()) });
                told.recv().expect("it runs")
            })
            .collect();
        places.push(place());
        places.sort_unstable();
        assert_eq!(places, (0..super::places()).collect::<Vec<_>>());
    }
}

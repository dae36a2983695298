//! Division of long work, so that the tasks of a thread are not late for each other.
//!
//! A worker runs all of its connections on one thread. Tokio gives each task a budget of 128 operations for one run, and a
//! read or write of a socket costs one of them. That is fair as long as every operation takes about the same time. But one
//! read can bring 256 KiB, and reading them as JSON takes milliseconds if they consist of short keys. Therefore long work
//! costs more: a run ends after 256 KiB of scanned text, after 2 MiB that were read or written, or after about a millisecond
//! of scanning, whichever comes first. An operation that finds the budget empty returns `Pending`, and its task continues
//! after the other tasks that are ready, and after the sockets have been polled.
//!
//! The budget belongs to the task. So nothing is stored in a request, and a short body costs nothing more.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::task::coop;

/// The number of operations in one run of a task (tokio's own, which it does not export).
const RUN: u64 = 128;
/// The number of scanned bytes in one run.
const SCANNED: u64 = 256 << 10;
/// The number of bytes that are read from or written to sockets in one run. Copying them costs little.
const MOVED: usize = 2 << 20;
/// The time in which a task scans in one run.
const TIME: Duration = Duration::from_millis(1);

/// Scanning that is charged to the budget of the current task.
pub struct ScanWork {
    /// `None` if the scanning is short, so that the clock is not read for it.
    begun: Option<Instant>,
}

impl ScanWork {
    /// The number of bytes of a body up to which scanning is short.
    const SHORT: u64 = 64 << 10;

    /// Begins to scan a part of a body of which `scanned` bytes have been scanned already.
    pub fn begin(scanned: u64) -> Self {
        Self {
            begun: (scanned >= Self::SHORT).then(Instant::now),
        }
    }

    /// Charges the scanning of `bytes` that is over now. The next operation of the task waits if the budget is empty.
    pub fn charge(self, cx: &mut Context<'_>, bytes: u64) {
        consume(cx, self.operations(bytes));
    }

    /// Charges the scanning of `bytes` that is over now, and lets other tasks run if the budget is empty.
    pub fn charge_and_wait(self, bytes: u64) -> impl Future<Output = ()> {
        let mut operations = self.operations(bytes);
        poll_fn(move |cx| {
            consume(cx, std::mem::take(&mut operations));
            poll_budget(cx)
        })
    }

    /// The number of operations that the scanning counts as; at least one.
    fn operations(&self, bytes: u64) -> u64 {
        let by_time = self.begun.map_or(0, |begun| {
            let micros = begun.elapsed().as_micros().saturating_mul(u128::from(RUN)) / TIME.as_micros();
            u64::try_from(micros).unwrap_or(RUN)
        });
        (bytes / (SCANNED / RUN)).max(by_time).max(1)
    }
}

/// Charges `bytes` that were read from a socket or written to it. The operation itself has been charged by tokio.
pub(in crate::wire) fn charge_moved(cx: &mut Context<'_>, bytes: usize) {
    consume(cx, (bytes / (MOVED / RUN as usize)) as u64);
}

/// Ready unless the budget of the current task is empty. In that case the task is polled again after the others.
pub fn poll_budget(cx: &mut Context<'_>) -> Poll<()> {
    // Dropping the value gives the operation back.
    drop(ready!(coop::poll_proceed(cx)));
    Poll::Ready(())
}

/// Takes `operations` from the budget, or all that is left of it.
fn consume(cx: &mut Context<'_>, operations: u64) {
    for _ in 0..operations.min(RUN) {
        // Asking for more than is left would wake the task for nothing.
        if !coop::has_budget_remaining() {
            return;
        }
        if let Poll::Ready(operation) = coop::poll_proceed(cx) {
            operation.made_progress();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        rc::Rc,
        sync::atomic::{AtomicU32, Ordering::Relaxed},
    };

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        task::{LocalSet, yield_now},
    };

    use super::*;

    /// The number of runs that another task gets while a task scans a hundred parts of `bytes`.
    async fn runs_of_another_task(bytes: u64, part: impl Fn() + 'static) -> u32 {
        let (runs, is_over) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let local = LocalSet::new();
        let (counted, over) = (runs.clone(), is_over.clone());
        local.spawn_local(async move {
            while !over.get() {
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        });
        let scanning = local.spawn_local(async move {
            for number in 0..100 {
                let work = ScanWork::begin(number * bytes);
                part();
                work.charge_and_wait(bytes).await;
            }
            is_over.set(true);
        });
        local.run_until(scanning).await.expect("the task ends");
        runs.get()
    }

    #[tokio::test]
    async fn other_tasks_run_after_each_256_kib() {
        assert!(runs_of_another_task(16 << 10, || ()).await >= 5);
        assert!(runs_of_another_task(256 << 10, || ()).await >= 99);
        // A hundred pieces are fewer than the operations of one run.
        assert!(runs_of_another_task(1, || ()).await <= 2);
    }

    #[tokio::test]
    async fn other_tasks_run_after_each_millisecond() {
        let slow = || std::thread::sleep(TIME);
        assert!(runs_of_another_task(4 << 10, slow).await >= 80);
    }

    #[tokio::test]
    async fn bytes_that_have_arrived_are_read_while_another_task_scans() {
        static READ: AtomicU32 = AtomicU32::new(0);
        let (mut near, mut far) = tokio::net::UnixStream::pair().expect("a pair");
        tokio::spawn(async move {
            let mut byte = [0];
            while near.read_exact(&mut byte).await.is_ok() {
                READ.fetch_add(1, Relaxed);
                near.write_all(&byte).await.expect("written");
            }
        });
        let scanning = tokio::spawn(async {
            // The task never waits for anything but its budget.
            while READ.load(Relaxed) < 100 {
                ScanWork::begin(0).charge_and_wait(SCANNED).await;
            }
        });
        let mut byte = [0];
        for _ in 0..100 {
            far.write_all(&byte).await.expect("written");
            far.read_exact(&mut byte).await.expect("an echo");
        }
        scanning.await.expect("the task ends");
    }

    #[tokio::test]
    async fn a_large_read_costs_more_than_a_small_one() {
        let spent = |bytes| {
            poll_fn(move |cx| {
                let mut reads = 0;
                while coop::has_budget_remaining() && reads < 10_000 {
                    charge_moved(cx, bytes);
                    reads += 1;
                }
                Poll::Ready(reads)
            })
        };
        assert_eq!(tokio::spawn(spent(256 << 10)).await.expect("a count"), 8);
        // Tokio charges the operation itself.
        assert_eq!(tokio::spawn(spent(1000)).await.expect("a count"), 10_000);
    }
}

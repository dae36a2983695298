//! The connections of one listener, looked after from its task.
//!
//! Limits and draining are kept out of the connections' own tasks: those are woken by their bytes only, and what a
//! piece of a stream costs does not grow by what watches it. Instead the listener walks over all of them now and then,
//! one atomic load each.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    task::{AbortHandle, Id, JoinError, JoinSet},
    time::{Instant, Interval, MissedTickBehavior, interval},
};

use crate::wire::{
    server::activity::{Activity, Waiting},
    server::refusal::Refusal,
    server::service::{Peer, ServeLimits},
    server::workers::Workers,
};

/// Limits are kept this exactly: a quarter of the shorter one, within these bounds.
const FINEST_WALK: Duration = Duration::from_millis(50);
const COARSEST_WALK: Duration = Duration::from_secs(1);

/// The running connections.
pub(in crate::wire) struct Connections<R> {
    limits: ServeLimits,
    refuse: R,
    walk: Interval,
    tasks: JoinSet<()>,
    watched: HashMap<Id, Watched>,
}

struct Watched {
    peer: Peer,
    activity: Arc<Activity>,
    task: AbortHandle,
    /// Taken when the connection has been told to drain.
    drain: Option<oneshot::Sender<()>>,
    is_cut: bool,
}

impl<R: Fn(Peer, Refusal) -> T, T> Connections<R> {
    /// No connections yet, with these limits; `refuse` hears of heads that take too long.
    pub fn new(limits: ServeLimits, refuse: R) -> Self {
        let period = limits.client_header.min(limits.keep_alive) / 4;
        let mut walk = interval(period.clamp(FINEST_WALK, COARSEST_WALK));
        walk.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            limits,
            refuse,
            walk,
            tasks: JoinSet::new(),
            watched: HashMap::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Runs the connection that `serve` makes of its activity and of what tells it to drain, on one of `workers`.
    pub fn spawn<F>(
        &mut self,
        peer: Peer,
        workers: Option<&Workers>,
        serve: impl FnOnce(Arc<Activity>, oneshot::Receiver<()>) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let activity = Activity::accepted();
        let (drain, drained) = oneshot::channel();
        let served = serve(activity.clone(), drained);
        let task = match workers.and_then(Workers::seat) {
            None => self.tasks.spawn(served),
            Some((seat, worker)) => {
                let seated = async move {
                    let _seat = seat;
                    served.await;
                };
                self.tasks.spawn_on(seated, worker)
            }
        };
        let watched = Watched {
            peer,
            activity,
            task,
            drain: Some(drain),
            is_cut: false,
        };
        self.watched.insert(watched.task.id(), watched);
    }

    /// Looks after the connections until one has ended or all have been looked at. Does nothing for ever without any.
    pub async fn tend(&mut self) {
        if self.is_empty() {
            return std::future::pending().await;
        }
        tokio::select! {
            Some(ended) = self.tasks.join_next_with_id() => self.forget(ended),
            _ = self.walk.tick() => self.cut_overdue(),
        }
    }

    /// Has every connection finish what it is busy with, and begin nothing more.
    pub fn drain(&mut self) {
        for watched in self.watched.values_mut() {
            // Gone without the channel's word: the connection has just ended.
            let _ = watched.drain.take().map(|drain| drain.send(()));
        }
    }

    /// Cuts every connection.
    pub async fn cut(&mut self) {
        self.tasks.shutdown().await;
        self.watched.clear();
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        self.watched.remove(&id);
    }

    fn cut_overdue(&mut self) {
        let now = Instant::now();
        for watched in self.watched.values_mut().filter(|watched| !watched.is_cut) {
            let waiting = watched.activity.waiting(now);
            if is_overdue(waiting, self.limits) {
                watched.is_cut = true;
                watched.task.abort();
                if let Waiting::Head(_) = waiting {
                    // There is nobody left to be answered.
                    let _ = (self.refuse)(watched.peer, Refusal::SlowHead);
                }
            }
        }
    }
}

fn is_overdue(waiting: Waiting, limits: ServeLimits) -> bool {
    match waiting {
        Waiting::No => false,
        Waiting::First(since) | Waiting::Head(since) => since >= limits.client_header,
        Waiting::Request(since) => since >= limits.keep_alive,
    }
}

//! Watches a stream that is passed on for a failure after its first output.
//!
//! The request cannot be sent again then. But the upstream's health is told, so that the client's next attempt goes to
//! another upstream.

use crate::{
    endpoint::Endpoint,
    policy::Verdict,
    proxy::{
        exchange::stream_failure::{FailureContext, FailureVerdict, is_judged},
        turn::verdict::VerdictRules,
    },
    scan::{ResponseReader, StreamFailure},
    tick::Clock,
};

/// Finds the failure of one stream, and tells its verdict once.
pub(super) struct LateFailureWatch {
    endpoint: Endpoint,
    /// The model that was requested.
    model: Option<String>,
    /// The rules, without the model.
    rules: VerdictRules<'static>,
    clock: Clock,
    state: WatchState,
}

enum WatchState {
    /// No failure has been seen.
    Watching,
    /// An `error` event has been seen whose meaning a later event may change. This verdict counts if none follows. It
    /// is boxed, because it is rare and every response has a watch.
    Suspected(Box<Verdict>),
    /// The stream has failed. Its verdict has been told.
    Settled,
}

impl LateFailureWatch {
    /// Watches the response to a request for `model` to `endpoint`.
    pub fn new(endpoint: Endpoint, model: Option<String>, rules: VerdictRules<'static>, clock: Clock) -> Self {
        Self {
            endpoint,
            model,
            rules,
            clock,
            state: WatchState::Watching,
        }
    }

    /// Looks at what `reader` has read. Returns the verdict on the failure, at the moment when it is certain.
    #[inline]
    pub fn observe(&mut self, reader: &ResponseReader) -> Option<Verdict> {
        match (reader.failure(), &self.state) {
            (None, WatchState::Watching) | (_, WatchState::Settled) => None,
            (None, WatchState::Suspected(_)) => {
                // Output has followed the error.
                self.state = WatchState::Watching;
                None
            }
            // This failure has been judged.
            (Some(StreamFailure { last: None, .. }), WatchState::Suspected(_)) => None,
            (Some(failure), _) => self.judge(failure),
        }
    }

    /// Ends the watch: nothing more is read, because the caller has the whole response or has left. Returns the verdict on
    /// a failure that was not certain until now.
    pub fn end(&mut self) -> Option<Verdict> {
        match std::mem::replace(&mut self.state, WatchState::Settled) {
            WatchState::Suspected(verdict) => Some(*verdict),
            WatchState::Watching | WatchState::Settled => None,
        }
    }

    /// Ends the watch of a body that has ended. Returns the verdict on it: a stream that ends without the event that must
    /// end it has failed.
    pub fn end_of_body(&mut self, reader: Option<&ResponseReader>) -> Option<Verdict> {
        let is_cut = is_judged(self.endpoint) && reader.is_some_and(ResponseReader::lacks_end);
        match self.state {
            WatchState::Watching if is_cut => self.end_of_broken_body(),
            _ => self.end(),
        }
    }

    /// Ends the watch of a body that the upstream has broken. Returns the verdict on it.
    pub fn end_of_broken_body(&mut self) -> Option<Verdict> {
        match std::mem::replace(&mut self.state, WatchState::Settled) {
            WatchState::Watching => Some(Verdict::Failed),
            WatchState::Suspected(verdict) => Some(*verdict),
            WatchState::Settled => None,
        }
    }

    #[cold]
    fn judge(&mut self, failure: StreamFailure<'_>) -> Option<Verdict> {
        if !is_judged(self.endpoint) {
            return None;
        }
        let model = self.model.as_deref();
        let context = FailureContext {
            endpoint: self.endpoint,
            model,
            rules: self.rules.with_model(model),
        };
        match context.judge(failure, self.clock.unix_time()) {
            FailureVerdict::Preliminary(verdict) => {
                self.state = WatchState::Suspected(Box::new(verdict));
                None
            }
            FailureVerdict::Final(verdict) => {
                self.state = WatchState::Settled;
                Some(verdict)
            }
        }
    }
}

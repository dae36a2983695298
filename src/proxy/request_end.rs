//! The end of a request: its log line is written and its client key is charged, both exactly once.

use http::StatusCode;

use super::{
    request_log::{Outcome, RequestLog},
    turn::limits::{Charge, FinalUsage},
};
use crate::{fault::Fault, state::Lease};

/// What happens when a request has ended. The response body takes it, and calls it once. If it is dropped instead, the
/// caller went away: then the log and the charge end as their own `Drop` says.
pub(super) struct RequestEnd {
    log: RequestLog,
    charge: Charge,
}

/// What is known of a response at its end.
pub(super) struct ResponseSummary<'a> {
    /// How many bytes of the body were passed to the caller.
    pub bytes_out: u64,
    pub usage: FinalUsage,
    /// The lease at the upstream that answered.
    pub lease: Option<&'a Lease>,
}

impl RequestEnd {
    /// The end of the request that `log` records and `charge` charges for.
    pub fn new(log: RequestLog, charge: Charge) -> Self {
        Self { log, charge }
    }

    /// The log, to write into.
    pub fn log(&mut self) -> &mut RequestLog {
        &mut self.log
    }

    /// Notes the status of the upstream's answer.
    pub fn mark_answered(&mut self, status: StatusCode) {
        self.charge.mark_answered(status);
    }

    /// Notes that Steadfast itself answers with `status`.
    pub fn mark_answered_here(&mut self, status: StatusCode) {
        self.log.answered_here(status);
        self.charge.mark_answered_here();
    }

    /// Notes that Steadfast answers with the error `fault`.
    pub fn mark_refused(&mut self, fault: &Fault) {
        self.log.refused(fault);
        self.charge.mark_answered_here();
    }

    /// Ends the request. Without an `outcome` the caller has left before the end.
    pub fn end(self, outcome: Option<Outcome>, summary: ResponseSummary<'_>) {
        let Self { mut log, charge } = self;
        if let FinalUsage::Reported(usage) = summary.usage {
            log.used(usage, summary.lease);
        }
        log.sent(summary.bytes_out);
        charge.end(summary.usage);
        match outcome {
            Some(outcome) => log.end(outcome),
            None => drop(log),
        }
    }
}

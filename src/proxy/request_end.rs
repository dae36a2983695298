//! The end of a request. Its log line is written and its client key is charged, both exactly once.

use http::StatusCode;

use super::{
    request_log::{Outcome, RequestLog},
    turn::limits::{Charge, FinalUsage},
};
use crate::{
    fault::Fault,
    state::{Gateway, Lease},
};

/// The actions at the end of a request. The response body owns them, and runs them once. If they are dropped instead,
/// the caller has disconnected: the log and the charge then end in their own `Drop`.
pub(super) struct RequestEnd {
    log: RequestLog,
    charge: Charge,
}

/// The facts about a response that are known at its end.
pub(super) struct ResponseSummary<'a> {
    /// The number of bytes of the body that were passed to the caller.
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

    /// The gateway that handles the request.
    pub fn gateway(&self) -> &Gateway {
        self.log.gateway()
    }

    /// Notes the status of the upstream's answer.
    pub fn mark_answered(&mut self, status: StatusCode) {
        self.charge.mark_answered(status);
    }

    /// Notes that Steadfast itself answers with `status`.
    pub fn mark_own_answer(&mut self, status: StatusCode) {
        self.log.record_own_answer(status);
        self.charge.mark_own_answer();
    }

    /// Notes that Steadfast answers with the error `fault`.
    pub fn mark_refused(&mut self, fault: &Fault) {
        self.log.record_fault(fault);
        self.charge.mark_own_answer();
    }

    /// Ends the request. If `outcome` is `None`, the caller has disconnected before the end.
    pub fn end(self, outcome: Option<Outcome>, summary: ResponseSummary<'_>) {
        let Self { mut log, charge } = self;
        if let Some(usage) = summary.usage.counted() {
            log.record_usage(usage, summary.lease);
        }
        log.record_bytes_out(summary.bytes_out);
        charge.end(summary.usage, &log.gateway().runtime.deferred_charges);
        match outcome {
            Some(outcome) => log.end(outcome),
            None => drop(log),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::proxy::{request_log::testing::AccessLog, testing};

    #[tokio::test]
    async fn the_log_and_the_charge_end_together_and_once() {
        for (outcome, label) in [(Some(Outcome::Refused), "refused"), (None, "client_gone")] {
            let access_log = AccessLog::default();
            let _capturing = access_log.capture();
            let (gateway, key) = (testing::gateway(""), testing::limited_key("tokens_per_minute = 1000\n"));
            let rate_limits = key.rate_limits.as_ref().expect("a limited key");
            let log = RequestLog::open_unreadable(&gateway, HeaderValue::from_static("id"), None);
            let mut charge = Charge::default();
            charge.admit(Some(rate_limits), 400).expect("within the limits");
            charge.mark_sent();
            let mut end = RequestEnd::new(log, charge);
            end.mark_refused(&Fault::BuffersFull);
            let summary = ResponseSummary {
                bytes_out: 9,
                usage: FinalUsage::NONE,
                lease: None,
            };
            end.end(outcome, summary);
            let line = access_log.only_line();
            assert_eq!(
                (&line["outcome"], &line["reason"]),
                (&label.into(), &"server_overloaded".into())
            );
            assert_eq!((&line["bytes_out"], &line["status"]), (&9.into(), &503.into()));
            assert_eq!(rate_limits.usage().tokens.expect("a limit on tokens").remaining, 1_000);
        }
    }
}

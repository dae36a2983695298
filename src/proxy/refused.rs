//! Refuses requests whose head could not be read. They are answered, counted and logged like all others.

use std::sync::Arc;

use http::Response;

use super::{
    exchange::body::ResponseBody,
    identity::RequestIdentity,
    reply,
    request::received,
    request_end::RequestEnd,
    request_log::{Outcome, RequestLog},
    turn::limits::Charge,
};
use crate::{
    fault::Fault,
    state::Gateway,
    wire::{HeadRefusal, Peer},
};

/// The response to a request whose head could not be read. `None` if the head did not arrive in time, because there is
/// no request to answer.
pub(super) fn refuse(gateway: &Arc<Gateway>, peer: Peer, refusal: HeadRefusal) -> Option<Response<ResponseBody>> {
    let id = received::new_request_id();
    let mut log = RequestLog::open_unreadable(gateway, id.clone(), peer.address);
    let fault = match refusal {
        HeadRefusal::BadHead { problem } => Fault::BadHead { problem },
        HeadRefusal::BadFraming { problem } => Fault::BadFraming { problem },
        HeadRefusal::HeadTooLarge => Fault::HeadTooLarge,
        HeadRefusal::SlowHead => {
            log.record_slow_head();
            log.end(Outcome::Refused);
            return None;
        }
    };
    let end = RequestEnd::new(log, Charge::default());
    Some(reply::error(&fault, RequestIdentity::of_unknown_caller(id), end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::testing;

    const PEER: Peer = Peer {
        address: None,
        is_secure: false,
    };

    #[tokio::test]
    async fn an_unreadable_head_is_answered_and_counted_and_a_slow_one_only_counted() {
        let gateway = testing::gateway("");
        let problem = "a problem";
        for (count, (refusal, status)) in [
            (HeadRefusal::BadHead { problem }, Some(400)),
            (HeadRefusal::BadFraming { problem }, Some(400)),
            (HeadRefusal::HeadTooLarge, Some(431)),
            (HeadRefusal::SlowHead, None),
        ]
        .into_iter()
        .enumerate()
        {
            let response = refuse(&gateway, PEER, refusal);
            assert_eq!(response.as_ref().map(|response| response.status().as_u16()), status);
            if let Some(response) = response {
                assert_eq!(response.headers().get("connection").expect("a field"), "close");
            }
            let counted = format!("steadfast_rejected_requests_total{{reason=\"head\"}} {}", count + 1);
            assert!(gateway.scrape().contains(&counted), "{refusal:?}");
        }
    }
}

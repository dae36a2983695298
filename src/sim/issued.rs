//! The state that the simulated account has issued and recognises later: response ids, encrypted items and turn
//! states.
//!
//! Response ids are remembered, and the oldest are forgotten first. Encrypted items and turn states contain the
//! account's name instead, and encrypted items also contain a checksum. So they cost no memory, and a restarted
//! simulator with the same name still accepts them, as a real account does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use twox_hash::XxHash3_64;

use super::cache::Prefix;
use super::lenient;
use super::objects::{ObjectStore, Weighed};
use super::responses::{GeneratedResponse, ResponseStatus};
use crate::tick::Tick;

/// The maximum number of bytes of requests and responses that are remembered.
const MAX_BYTES: usize = 32 << 20;

/// A response that the account made and stored.
#[derive(Clone)]
pub(super) struct IssuedResponse {
    /// The response.
    pub reply: Arc<GeneratedResponse>,
    /// The request's JSON, for its input items.
    pub request: Bytes,
    /// The conversation up to and including the response.
    pub prefix: Prefix,
    /// When the response is complete, which is later than its creation if it is a background response.
    pub due: Tick,
    /// Whether the response has been cancelled. A response with two ids has one such flag.
    pub cancelled: Arc<AtomicBool>,
}

impl IssuedResponse {
    /// Returns the request.
    pub(super) fn request_json(&self) -> serde_json::Value {
        lenient::parse(&self.request).expect("the request was parsed when it was answered")
    }

    /// Returns the status of the response at this moment.
    pub(super) fn status(&self, now: Tick) -> ResponseStatus {
        match self.cancelled.load(Ordering::Relaxed) {
            true if self.reply.is_background() => ResponseStatus::CancelledEarly,
            true => ResponseStatus::Cancelled,
            false if now < self.due => ResponseStatus::InProgress,
            false => ResponseStatus::Completed,
        }
    }
}

impl Weighed for IssuedResponse {
    fn weight(&self) -> usize {
        self.request.len() + self.reply.weight()
    }
}

/// The state that an account has issued. See the module's documentation.
pub(super) struct IssuedObjects {
    name: String,
    /// The number of turns that have begun.
    turns: AtomicU64,
    responses: ObjectStore<IssuedResponse>,
}

impl IssuedObjects {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            turns: AtomicU64::new(0),
            responses: ObjectStore::new(MAX_BYTES),
        }
    }

    /// Remembers a response by each of its ids.
    pub(super) fn remember(&self, issued: IssuedResponse) {
        let reply = Arc::clone(&issued.reply);
        if let Some(last_id) = reply.last_id() {
            self.responses.insert(last_id, issued.clone());
        }
        self.responses.insert(reply.id(), issued);
    }

    /// Returns the response with this id, if this account made it and still remembers it.
    pub(super) fn find(&self, id: &str) -> Option<IssuedResponse> {
        self.responses.get(id)
    }

    /// Forgets a response and returns it.
    pub(super) fn delete(&self, id: &str) -> Option<IssuedResponse> {
        let issued = self.responses.remove(id)?;
        for other in issued.reply.last_id().into_iter().chain([issued.reply.id()]) {
            self.responses.remove(other);
        }
        Some(issued)
    }

    /// Cancels a response and returns it. A background response that is complete remains complete.
    pub(super) fn cancel(&self, id: &str, now: Tick) -> Option<IssuedResponse> {
        let issued = self.responses.get(id)?;
        if !issued.reply.is_background() || now < issued.due {
            issued.cancelled.store(true, Ordering::Relaxed);
        }
        Some(issued)
    }

    /// Returns the content of a new encrypted item.
    pub(super) fn encrypt(&self) -> String {
        let nonce = fastrand::u64(..);
        format!("enc_{}_{nonce:016x}{:016x}", self.name, self.tag(nonce))
    }

    /// Whether this account made this encrypted content.
    pub(super) fn decrypts(&self, content: &str) -> bool {
        let own = content
            .strip_prefix("enc_")
            .and_then(|rest| rest.strip_prefix(self.name.as_str()))
            .and_then(|rest| rest.strip_prefix('_'))
            .and_then(|sealed| sealed.split_at_checked(16));
        let Some((nonce, tag)) = own else { return false };
        match (u64::from_str_radix(nonce, 16), u64::from_str_radix(tag, 16)) {
            (Ok(nonce), Ok(tag)) => tag == self.tag(nonce),
            _ => false,
        }
    }

    fn tag(&self, nonce: u64) -> u64 {
        XxHash3_64::oneshot_with_seed(nonce, self.name.as_bytes())
    }

    /// Returns the state of a new turn: `<name>-<n>`.
    pub(super) fn begin_turn(&self) -> String {
        format!("{}-{}", self.name, self.turns.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Whether this account made this turn state.
    pub(super) fn knows_turn(&self, state: &str) -> bool {
        state
            .rsplit_once('-')
            .is_some_and(|(name, number)| name == self.name && number.parse::<u64>().is_ok())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn remember_new(issued: &IssuedObjects, request: &serde_json::Value, due: Tick) -> Arc<GeneratedResponse> {
        let reply = Arc::new(GeneratedResponse::new(request, Vec::new(), Default::default()).with_changed_id());
        issued.remember(IssuedResponse {
            reply: Arc::clone(&reply),
            request: Bytes::new(),
            prefix: Prefix::new("m"),
            due,
            cancelled: Arc::default(),
        });
        reply
    }

    #[test]
    fn an_account_recognises_only_its_own_encrypted_items_and_turns() {
        let (a, b) = (IssuedObjects::new("sim-a"), IssuedObjects::new("sim-b"));
        let (item, turn) = (a.encrypt(), a.begin_turn());
        assert!(a.decrypts(&item) && !b.decrypts(&item));
        assert!(a.knows_turn(&turn) && !b.knows_turn(&turn));
        assert_eq!(turn, "sim-a-1");
        assert!(
            IssuedObjects::new("sim-a").decrypts(&item),
            "a restarted account accepts it"
        );
        for forged in [
            "",
            "enc_sim-a_",
            "enc_sim-a_00000000000000000000000000000000",
            "ENC-XYZ",
            "enc_sim-a_é",
        ] {
            assert!(!a.decrypts(forged), "{forged}");
        }
        assert!(!IssuedObjects::new("sim").decrypts(&item) && !IssuedObjects::new("sim").knows_turn("sim-a-1"));
    }

    #[test]
    fn responses_are_found_cancelled_and_deleted_by_each_of_their_ids() {
        let issued = IssuedObjects::new("a");
        let reply = remember_new(&issued, &json!({"model": "m"}), Tick::ZERO);
        let (id, last) = (reply.id(), reply.last_id().unwrap());
        let status = |id: &str| issued.find(id).map(|found| found.status(Tick::ZERO));
        assert_eq!(status(id), Some(ResponseStatus::Completed));
        assert!(issued.cancel(last, Tick::ZERO).is_some());
        assert_eq!(
            (status(id), status(last)),
            (Some(ResponseStatus::Cancelled), status(id))
        );
        assert!(issued.delete(id).is_some() && issued.delete(last).is_none());
        assert!(issued.find(last).is_none() && issued.cancel(id, Tick::ZERO).is_none());
    }

    #[test]
    fn a_background_response_is_cancelled_only_while_it_is_in_progress() {
        let issued = IssuedObjects::new("a");
        let at = Tick::from_nanos;
        let request = json!({"model": "m", "background": true});
        for (cancelled_at, then) in [(9, ResponseStatus::CancelledEarly), (10, ResponseStatus::Completed)] {
            let reply = remember_new(&issued, &request, at(10));
            assert_eq!(
                issued.find(reply.id()).unwrap().status(at(9)),
                ResponseStatus::InProgress
            );
            let cancelled = issued.cancel(reply.id(), at(cancelled_at)).unwrap();
            assert_eq!(cancelled.status(at(20)), then);
        }
    }
}

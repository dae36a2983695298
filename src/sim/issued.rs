//! The state that the simulated account has issued and recognises later: response ids, encrypted items and turn
//! states.
//!
//! Response ids are remembered, and the oldest are forgotten first. Encrypted items and turn states contain the
//! account's name instead, and encrypted items also contain a checksum. So they cost no memory, and a restarted
//! simulator with the same name still accepts them, as a real account does.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use twox_hash::XxHash3_64;

use super::cache::Prefix;
use super::responses::GeneratedResponse;

/// The maximum number of responses that are remembered.
const MAX_RESPONSES: usize = 10_000;
/// The maximum number of bytes of requests and responses that are remembered.
const MAX_BYTES: usize = 32 << 20;

/// A response that the account made.
#[derive(Clone)]
pub(super) struct IssuedResponse {
    /// The response.
    pub reply: Arc<GeneratedResponse>,
    /// The request's JSON, for its input items.
    pub request: Bytes,
    /// The conversation up to and including the response.
    pub prefix: Prefix,
    /// Whether the response has been cancelled.
    pub cancelled: bool,
}

impl IssuedResponse {
    fn weight(&self) -> usize {
        self.request.len() + self.reply.weight()
    }
}

/// The state that an account has issued. See the module's documentation.
pub(super) struct IssuedObjects {
    name: String,
    /// The number of turns that have begun.
    turns: AtomicU64,
    responses: Mutex<ResponseStore>,
}

#[derive(Default)]
struct ResponseStore {
    known: HashMap<Arc<str>, IssuedResponse>,
    /// The ids of the known responses, the oldest first.
    oldest: VecDeque<Arc<str>>,
    /// The approximate size of the known responses and their requests, in bytes.
    bytes: usize,
}

impl IssuedObjects {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            turns: AtomicU64::new(0),
            responses: Mutex::default(),
        }
    }

    /// Remembers a response by its id.
    pub(super) fn remember(&self, issued: IssuedResponse) {
        let id: Arc<str> = issued.reply.id().into();
        let mut responses = self.responses.lock();
        responses.bytes += issued.weight();
        responses.oldest.push_back(Arc::clone(&id));
        responses.known.insert(id, issued);
        while responses.oldest.len() > MAX_RESPONSES || responses.bytes > MAX_BYTES {
            let oldest = responses
                .oldest
                .pop_front()
                .expect("every remembered response is in the queue");
            responses.forget(&oldest);
        }
    }

    /// Returns the response with this id, if this account made it and still remembers it.
    pub(super) fn find(&self, id: &str) -> Option<IssuedResponse> {
        self.responses.lock().known.get(id).cloned()
    }

    /// Forgets a response. Returns whether it was known.
    pub(super) fn delete(&self, id: &str) -> bool {
        self.responses.lock().forget(id)
    }

    /// Marks a response as cancelled and returns it.
    pub(super) fn cancel(&self, id: &str) -> Option<IssuedResponse> {
        let mut responses = self.responses.lock();
        let issued = responses.known.get_mut(id)?;
        issued.cancelled = true;
        Some(issued.clone())
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

impl ResponseStore {
    fn forget(&mut self, id: &str) -> bool {
        match self.known.remove(id) {
            Some(issued) => {
                self.bytes -= issued.weight();
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn remember_new(issued: &IssuedObjects, request: Bytes) -> String {
        let reply = GeneratedResponse::new(&json!({"model": "m"}), Vec::new(), Default::default());
        let id = reply.id().to_owned();
        issued.remember(IssuedResponse {
            reply: Arc::new(reply),
            request,
            prefix: Prefix::new("m"),
            cancelled: false,
        });
        id
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
    fn responses_are_found_cancelled_and_deleted() {
        let issued = IssuedObjects::new("a");
        let id = remember_new(&issued, Bytes::new());
        assert!(issued.find(&id).is_some_and(|found| !found.cancelled));
        assert!(issued.cancel(&id).is_some());
        assert!(issued.find(&id).is_some_and(|found| found.cancelled));
        assert!(issued.delete(&id) && !issued.delete(&id));
        assert!(issued.find(&id).is_none() && issued.cancel(&id).is_none());
    }

    #[test]
    fn memory_is_bounded_in_number_and_bytes() {
        let issued = IssuedObjects::new("a");
        let first = remember_new(&issued, Bytes::new());
        let second = remember_new(&issued, Bytes::new());
        (1..MAX_RESPONSES).for_each(|_| drop(remember_new(&issued, Bytes::new())));
        assert!(issued.find(&first).is_none() && issued.find(&second).is_some());
        let big = remember_new(&issued, Bytes::from(vec![0; MAX_BYTES / 2]));
        let bigger = remember_new(&issued, Bytes::from(vec![0; MAX_BYTES / 2 + 1]));
        assert!(issued.find(&second).is_none() && issued.find(&big).is_none() && issued.find(&bigger).is_some());
        assert!(issued.responses.lock().bytes <= MAX_BYTES);
    }
}

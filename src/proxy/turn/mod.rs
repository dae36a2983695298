//! A turn is one request for a generation, from its facts to the meaning of its answer. It is independent of the
//! transport.
//!
//! ```text
//!  TurnFacts ──▶ Turn::open ──▶ next_upstream ──▶ RequestSender::send ──▶ verdict ──▶ confirm_pin ──▶ TurnAnswer
//!                (affinity)     (pick)        ▲        (exchange)         (verdict)     (confirm)
//!                                             │                              │
//!                                             ├────── mark_failed ◀──────────┤  the upstream cannot serve it
//!                                             └────── mark_limited ◀─────────┘  its limit can be waited out
//! ```
//!
//! - [`facts`] are the input: the objects that the request names, and the group of its caller. The HTTP side makes them
//!   from a request; a WebSocket message and a test make them directly.
//! - [`affinity`] reads the session key, the owner of the named state and the issuer of the turn state from the facts.
//! - [`ownership`] finds the owners of the objects that the request names, and remembers those that a search has found.
//! - [`beginning`] finds the upstream of a compaction that does not name its session.
//! - [`pick`] chooses the upstream that the turn goes to next, or waits for it, and takes a lease there.
//!   The brake (`pick/brake`) refuses a turn whose session or pool has failed everywhere, unless it is a probe.
//! - [`outlook`] tells why no upstream takes the turn, and when one may.
//! - [`attempts`] is the loop: it sends the request to one upstream after the other until one serves it. It takes the
//!   sender as a parameter, so that tests run it without a socket. `attempts/search` asks the upstreams for an object whose
//!   owner is not known.
//! - [`verdict`] judges what an answer means for the turn and for the health of its upstream.
//! - [`answer_content`] is what a good answer contains.
//! - [`confirm`] records the result: the pin of the session, and the owner of the objects and encrypted items in the answer. It
//!   decides whether the usage of a response counts.
//! - [`limits`] charges the turn to the client key that sent it.
//! - [`turn_state`] seals the state that an upstream gives a client to return during the same turn.
//!
//! A turn does not depend on a transport: it has no body, no socket and no header map. Its facts look up single headers by
//! name.

pub(super) mod affinity;
pub(super) mod answer_content;
pub(super) mod attempts;
mod beginning;
pub(super) mod confirm;
pub(super) mod facts;
#[cfg(test)]
mod kit;
pub(super) mod limits;
mod outlook;
mod ownership;
pub(super) mod pick;
pub(super) mod turn_state;
pub(super) mod verdict;

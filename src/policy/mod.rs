//! Pure decisions about requests and upstreams. An event goes in and a decision comes out, without clock, I/O or logs.
//!
//! A request passes through the modules in this order:
//!
//! 1. [`session`] finds the session key of the request and the owner of the state that it refers to, in the order of
//!    the configured sources. A new source is added in `session_source`.
//! 2. [`pins`] returns the upstream that served the session last, [`rendezvous`] returns the session's home, and
//!    `balance` chooses an upstream for a request without a session.
//! 3. [`select`](mod@select) chooses, among the candidates, the upstream that the request goes to now or waits for.
//!    The request waits at most as long as its [`patience`] allows.
//! 4. [`verdict`] judges the upstream's answer, and [`health`] remembers the verdict as part of the upstream's
//!    [`availability`]. [`outlier`] compares the upstreams with each other.
//! 5. [`budget`] decides whether the request may be retried on another upstream.
//!
//! [`brake`] stops requests that fail at every upstream from being sent again and again, and [`avoidance`] makes a session try
//! another upstream after a failure that its client has seen.
//!
//! [`limiter`] counts the requests and tokens of a client key, and denies requests over its limits. [`tokens`]
//! estimates the tokens of a request body.

pub mod availability;
pub mod avoidance;
mod balance;
pub mod brake;
pub mod budget;
mod hash;
pub mod health;
pub mod limiter;
pub mod outlier;
pub mod patience;
pub mod pins;
pub mod rendezvous;
pub mod request_class;
pub mod select;
pub mod session;
mod session_source;
#[cfg(test)]
mod simulation;
pub mod tokens;
pub mod verdict;

pub use availability::Availability;
pub use avoidance::Avoidance;
pub use brake::Brake;
pub use budget::RetryBudget;
pub use health::{Attempt, EjectionCap, Health};
pub use patience::Patience;
pub use pins::{AffinityTable, Claim, Owners, PinTakeover, Pins, PromptSize, UsageState};
pub use rendezvous::{Eligible, Member, MemberIndex, Ranked, Rendezvous};
pub use request_class::RequestClass;
pub use select::{Decision, WaitLimits, select};
pub use session::{Affinity, Candidate, Candidates, Clues, KeylessChoice, Preference, Route, candidates};
pub use session_source::{SessionSource, UnknownSessionSource};
pub use verdict::{ErrorFacts, LimitCause, NamedObjects, Scope, Verdict};

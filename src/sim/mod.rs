//! A simulated upstream account. It is the embedded default upstream, and the upstream of tests and benches.
//!
//! There is no model behind it, but it behaves like an account towards a proxy: it listens on a real socket, serves the
//! OpenAI API (Responses whole and streamed, compaction, chat completions, embeddings, models) and has a prompt cache
//! of its own. It refuses state that another account issued: a `previous_response_id`, an `encrypted_content`, a turn
//! state. So a session that is sent to the wrong account fails here as it fails at a real one.
//!
//! The identity of an account is its [name](SimConfig::name). Every response contains the name. A simulator that is
//! restarted with the same name accepts the encrypted items and turn states from before, but response ids are lost with
//! the process.
//!
//! A test controls the account through its [`Script`] while the account runs. It reads the requests that reached the
//! account from [`Sim::requests`], and the counters from [`Sim::counts`].
//!
//! | part | its job |
//! | --- | --- |
//! | `instance`, `config`, `account` | a running account, its configuration and its state |
//! | `server` | connections, and the path of one request |
//! | `routes` | the usual answer to each request |
//! | `outgoing`, `responses`, `events`, `chat`, `catalog`, `api_error` | the shapes on the wire |
//! | `cache`, `issued` | the account's memory: prompts that were read, state that was issued |
//! | `script`, `act`, `head` | rules: which requests are treated differently, and how |
//! | `transport`, `body` | faults, as they are done to a socket or a body |
//! | `intake`, `recorder` | request bodies; the record of requests |
//! | `cli` | `steadfast sim` |

mod account;
mod act;
mod api;
mod api_error;
mod body;
mod cache;
mod catalog;
mod chat;
mod cli;
mod config;
mod events;
mod head;
mod instance;
mod intake;
mod issued;
mod messages;
mod objects;
mod outgoing;
mod recorder;
mod responses;
mod routes;
mod script;
mod server;
#[cfg(test)]
mod tests;
mod transport;

pub use act::{Act, After, Close, CustomAnswer, Fixed, Point, Read, Received, ScriptedAnswer};
pub use cli::{SimArgs, run};
pub use config::SimConfig;
pub use head::RecordedHead;
pub use instance::Sim;
pub use recorder::{Ending, RequestRecord, SimCounts};
pub use script::{Accept, Rule, Script};

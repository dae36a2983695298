//! A simulated upstream account: the embedded default, and the upstream of tests and benches.
//!
//! There is no model behind it, but it is an account in all that matters to a proxy: it listens on a real socket, speaks
//! the OpenAI API (ResponseStore whole and streamed, compaction, chat completions, embeddings, models), keeps a prompt cache
//! of its own, and refuses what another account issued: a `previous_response_id`, an `encrypted_content`, a turn state. So a
//! session that is sent to the wrong account fails here as it fails at the real ones.
//!
//! An account is its [name](SimConfig::name): the name stands in every answer, and a simulator restarted under the same
//! name honours the encrypted items and turn states from before (response ids are lost with the process).
//!
//! A test steers it through its [`Script`] while it runs, and looks at what reached it in [`Sim::requests`] and [`Sim::counts`].
//!
//! | part | its job |
//! | --- | --- |
//! | `server` | connections, and one request's way through |
//! | `routes` | what is answered where: the account's usual behaviour |
//! | `responses`, `events`, `chat`, `catalog`, `refusal` | the shapes on the wire |
//! | `cache`, `issued` | what the account remembers: prompts read, things issued |
//! | `script`, `act`, `transport`, `body` | faults: when, what, and how it is done to a socket or a body |
//! | `intake`, `recorder` | request bodies; what has been seen |
//! | `cli` | `steadfast sim` |

mod account;
mod act;
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
pub use head::ReceivedHead;
pub use instance::Sim;
pub use recorder::{Ending, RequestRecord, SimCounts};
pub use script::{Accept, Rule, Script};

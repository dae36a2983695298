//! A simulated upstream account. It is the embedded default upstream, and the upstream of tests and benches.
//!
//! There is no model behind it, but it behaves like an account towards a proxy: it listens on a real socket, serves the
//! OpenAI API and Anthropic's Messages API, and has a prompt cache of its own. It owns its state strictly, as a real
//! account does. So a request at the wrong account fails here as it fails at a real one.
//!
//! | endpoints under `/v1` | what the account owns |
//! | --- | --- |
//! | `responses` (whole, streamed, `background`, resumed), `responses/compact` | stored responses and their items, encrypted items, turn states |
//! | `conversations` | conversations and their items |
//! | `chat/completions` | completions with `store` |
//! | `files`, `uploads` | files and uploads |
//! | `vector_stores` with `files`, `file_batches` and `search` | vector stores |
//! | `containers` with `files` | containers, also those that `code_interpreter` makes |
//! | `batches`, `fine_tuning/jobs`, `evals` with `runs` | jobs |
//! | `messages`, `messages/count_tokens` | nothing |
//! | `embeddings`, `models`, `audio/transcriptions`, `audio/translations`, `images` | nothing |
//!
//! An id that the account did not make is answered with 404, in a path as well as in a body: `conversation`,
//! `input_file.file_id`, `file_search.vector_store_ids`, `container`, `item_reference` and so on. It is 400 for a
//! `previous_response_id` and an `encrypted_content`, as at OpenAI, and these two and turn states are accepted from
//! anywhere if [`SimConfig::refuse_foreign`] is off. A response with `store: false` is not kept. Ids are random, so
//! they do not tell which account made them. The memory for each kind of objects is bounded.
//!
//! The identity of an account is its [name](SimConfig::name). Every response contains the name. A simulator that is
//! restarted with the same name accepts the encrypted items and turn states from before, but all objects are lost with
//! the process.
//!
//! A test controls the account through its [`Script`] while the account runs. It reads the requests that reached the
//! account from [`Sim::requests`], and the counters from [`Sim::counts`].
//!
//! | part | its job |
//! | --- | --- |
//! | `instance`, `config`, `account` | a running account, its configuration and its state |
//! | `server` | connections, and the path of one request |
//! | `routes`, `api` | the table of requests, and the usual answer to each of them |
//! | `outgoing`, `responses`, `events`, `chat`, `messages`, `catalog`, `api_error` | the shapes on the wire |
//! | `cache`, `issued`, `objects` | the account's memory: prompts that were read, state that was issued, objects |
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
mod lenient;
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

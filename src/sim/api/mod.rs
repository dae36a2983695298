//! The usual answers to requests, one file for each part of the API. `routes` chooses among them.

mod batches;
mod chat;
mod containers;
mod conversations;
mod evals;
mod files;
mod forms;
mod media;
mod messages;
mod outputs;
mod page;
mod parsed;
mod prompt;
mod responses;
mod tuning;
mod uploads;
mod vector_store_files;
mod vector_stores;

pub(super) use parsed::ParsedRequest;

//! Reads file, flags and environment into a valid [`Config`], or reports all their errors at once.
//!
//! ```text
//!                    fields: each field declared once
//!                      │                        │
//! TOML text ──parse──▶ document ──reader──▶ sections ──values, secrets, upstream──▶ Config
//!                      │                        │                    │
//!                      └──── syntax ────────────┴── unknown fields ──┴── bad values ──▶ Errors, by position
//! ```
//!
//! Reading does not stop at the first mistake: each mistake is reported with its position in the file, and reading
//! continues. A [`Config`] is made only if there was no mistake, so code that uses it need not check it again. Its
//! names are unique, its addresses do not clash, and its secrets are resolved and may be sent in a header. Fields that
//! this version does not know are errors.
//!
//! # Adding a field
//!
//! 1. Declare it in `fields`, with its doc comment, its kind and its default.
//! 2. Give it a place and the same default in the struct of its table: in `settings` for a table of which there is one; in
//!    `upstream` and `access` for upstreams, groups and keys.
//! 3. Read it where its table is read: `load` reads the tables `[server]`, `[admin]`, `[retry]`, `[health]`, `[tokens]` and `[timeouts]`,
//!    `affinity`, `tls`, `proxy`, `upstream` and `access` read theirs. What concerns several fields is checked in `check`,
//!    and base URLs that lead back to this gateway are found in `loops`.
//! 4. `UPDATE_EXPECT=1 cargo test --lib config::` writes the example file and the JSON Schema anew.
//!
//! A value that requests use is compiled into `state::Snapshot`, so that a reload applies it.
//!
//! Paths in a file are relative to that file's folder; paths in flags are relative to the working directory.

mod access;
mod affinity;
mod base_url;
mod check;
mod document;
mod errors;
mod fields;
mod file;
mod glob;
mod headers;
mod inherited;
mod kinds;
mod listen;
mod load;
mod loops;
mod origin;
mod proxy;
mod reader;
mod schema;
mod secrets;
mod settings;
mod suggest;
#[cfg(test)]
mod tests;
mod tls;
mod upstream;
mod values;

pub use self::{
    access::{ClientKey, Group},
    base_url::BaseUrl,
    errors::{ConfigProblem, Errors, Location},
    file::File,
    glob::ModelGlobs,
    listen::Listen,
    load::Config,
    proxy::{ProxyScheme, UpstreamProxy},
    settings::{AdminSettings, AffinitySettings, HealthSettings, Overrides, RetrySettings, ServerSettings, Timeouts},
    tls::{Ca, ClientCertificate, Tls},
    upstream::{ApiKey, InvalidUpstream, Upstream, parse_name},
};

/// The JSON Schema (draft-07) of the configuration file, as text that ends with a line break.
///
/// TOML editors that use Taplo complete and check a file whose first line is `#:schema PATH`.
pub fn json_schema() -> String {
    format!("{:#}\n", schema::json_schema(&fields::root::TABLE))
}

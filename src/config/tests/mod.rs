//! Tests of whole files: the files that are accepted, and the exact reports on the files that are refused.

mod accepted;
mod access;
mod connections;
mod example;
mod flags;
mod properties;
mod refused;
mod schema;
mod tls;

use std::{fs, path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue};

use super::*;
use crate::secret::Secret;

const EXAMPLE: &str = include_str!("../../../deploy/steadfast.example.toml");
const UPSTREAM: &str = "[[upstream]]\nname = \"a\"\nbase_url = \"https://a.example/v1\"\napi_key = \"env:KEY\"\n";

fn env(name: &str) -> Option<String> {
    match name {
        "KEY" | "OPENAI_KEY_A" | "OPENAI_KEY_B" => Some(format!("sk-canary-{name}")),
        "EMPTY" => Some(String::new()),
        "BROKEN" => Some("sk-canary\n".to_owned()),
        _ => None,
    }
}

fn read(text: &str) -> Result<Config, Errors> {
    Config::from_toml(text, "f.toml", &env, &Overrides::default())
}

/// The report on `text`, which must have an error.
fn report(text: &str) -> String {
    read(text).expect_err(text).to_string()
}

/// The report on a file that ends with a valid upstream.
fn report_above_upstream(text: &str) -> String {
    report(&format!("{text}\n{UPSTREAM}"))
}

fn flags(upstreams: &[&str]) -> Overrides {
    let upstreams = upstreams.iter().map(ToString::to_string).collect();
    Overrides {
        upstreams,
        ..Overrides::default()
    }
}

/// A temporary folder of one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("steadfast-config-{}-{test}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

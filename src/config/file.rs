//! The configuration file as bytes: read once, and compared with what it held before.

use std::path::{Path, PathBuf};

use super::{
    Config, Errors, Overrides,
    errors::{Notes, Place},
    load::process_env,
    secrets::read_file,
};

/// The most that a configuration file may hold.
const MAX_FILE: u64 = 4 << 20;

/// What a configuration file held when it was read, be it valid or not. Equal ones come from the same bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    path: PathBuf,
    text: Result<String, String>,
}

impl File {
    /// Reads the file at `path`. That it cannot be read is one of the things that it may hold.
    pub fn read(path: &Path) -> Self {
        let text = read_file(path, MAX_FILE).and_then(|bytes| {
            String::from_utf8(bytes).map_err(|error| {
                let valid = error
                    .as_bytes()
                    .get(..error.utf8_error().valid_up_to())
                    .unwrap_or_default();
                let line = memchr::memchr_iter(b'\n', valid).count() + 1;
                format!("is not UTF-8 in line {line}; save it as UTF-8")
            })
        });
        Self {
            path: path.to_owned(),
            text,
        }
    }

    /// Where it was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The configuration that it describes, with the environment of this process. The files that it names are read now.
    ///
    /// # Errors
    /// Everything that is wrong with the file, the flags and what they name.
    pub fn parse(&self, overrides: &Overrides) -> Result<Config, Errors> {
        let origin = self.path.display().to_string();
        match &self.text {
            Ok(text) => Config::from_toml(text, &origin, &process_env, overrides),
            Err(problem) => {
                let mut notes = Notes::default();
                notes.error(Place::File(origin.into()), problem.as_str());
                Err(notes.fail())
            }
        }
    }
}

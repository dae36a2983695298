//! The configuration file: it is read once, and compared with its earlier content at a reload.

use std::path::{Path, PathBuf};

use super::{
    errors::{Errors, Location, ProblemList},
    load::Config,
    secrets::{process_env, read_any_file, read_file},
    settings::Overrides,
};

/// The maximum size of a configuration file in bytes.
const MAX_FILE: u64 = 4 << 20;

/// The content of a configuration file at the time it was read, valid or not. Two values are equal if their paths and
/// bytes are equal.
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    path: PathBuf,
    /// Whether the file can be read again: it is not a pipe or a device.
    is_regular: bool,
    /// The text of the file, or the reason why it could not be read, as a predicate that follows the file's path.
    text: Result<String, String>,
}

impl File {
    /// Reads the file at `path`, which may also be a pipe, such as one from a shell's `<(…)`. An unreadable file is not an
    /// error yet: [`File::parse`] reports it.
    pub fn read(path: &Path) -> Self {
        // A path that names nothing may name a file later.
        let is_regular = std::fs::metadata(path).map_or(true, |metadata| metadata.is_file());
        Self {
            path: path.to_owned(),
            is_regular,
            text: read_any_file(path, MAX_FILE).and_then(decode),
        }
    }

    /// Reads the file at the same path again. Only a regular file is read: a pipe has been read to its end, or blocks.
    pub fn read_again(&self) -> Self {
        Self {
            path: self.path.clone(),
            is_regular: self.is_regular,
            text: read_file(&self.path, MAX_FILE).and_then(decode),
        }
    }

    /// Whether the file was a regular one at the first reading, so that it can change and be read again.
    pub fn is_regular(&self) -> bool {
        self.is_regular
    }

    /// The path from which the file was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Parses the configuration with the environment of this process. The files that it names are read by this call.
    ///
    /// # Errors
    /// Everything that is wrong with the file, the flags and the files that they name.
    pub fn parse(&self, overrides: &Overrides) -> Result<Config, Errors> {
        let origin = self.path.display().to_string();
        match &self.text {
            Ok(text) => Config::from_toml(text, &origin, &process_env, overrides),
            Err(problem) => {
                let mut problems = ProblemList::default();
                problems.error(Location::File(origin.into()), problem.as_str());
                Err(problems.into_errors())
            }
        }
    }
}

/// The text of a file. The error is a predicate that follows the file's path.
fn decode(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|error| {
        let (valid, _) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let line = memchr::memchr_iter(b'\n', valid).count() + 1;
        format!("is not UTF-8 in line {line}; save it as UTF-8")
    })
}

impl Config {
    /// Reads the file at `path` with the environment of this process.
    ///
    /// # Errors
    /// Everything that is wrong with the file, the flags and the files that they name.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self, Errors> {
        File::read(path).parse(overrides)
    }
}

//! The problems of a configuration, each with its location.

use std::{fmt, sync::Arc};

/// The location of a problem. The order of locations is the order of reports: positions in a file, then files as a
/// whole, then flags.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Location {
    /// A position in a file.
    At {
        /// The path of the file as the user gave it.
        file: Arc<str>,
        /// The line, counted from 1.
        line: usize,
        /// The column, counted from 1 in characters (not bytes).
        column: usize,
    },
    /// A file as a whole.
    File(Arc<str>),
    /// A command-line flag, with the part of its value that is safe to print.
    Flag(String),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::File(file) => f.write_str(file),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A value with the location at which the user wrote it.
pub(super) type Located<T> = (Location, T);

/// One error or one warning: its location, what is wrong, and what to do. It never contains a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The location of the problem.
    pub location: Location,
    /// What is wrong and what to do, in one line.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.location, self.message)
    }
}

/// All errors of a configuration, in the order of [`Location`]. `Display` prints one problem per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<ConfigProblem>);

impl Errors {
    /// The errors, at least one.
    pub fn problems(&self) -> &[ConfigProblem] {
        &self.0
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Collects problems while a configuration is read, so that one mistake does not hide the next.
#[derive(Debug, Default)]
pub(super) struct ProblemList {
    errors: Vec<ConfigProblem>,
    warnings: Vec<ConfigProblem>,
}

impl ProblemList {
    /// Adds an error.
    pub(super) fn error(&mut self, location: Location, message: impl Into<String>) {
        let message = message.into();
        self.errors.push(ConfigProblem { location, message });
    }

    /// Adds a warning.
    pub(super) fn warn(&mut self, location: Location, message: impl Into<String>) {
        let message = message.into();
        self.warnings.push(ConfigProblem { location, message });
    }

    /// Returns the warnings.
    ///
    /// # Errors
    /// All errors, if there is at least one.
    pub(super) fn finish(mut self) -> Result<Vec<ConfigProblem>, Errors> {
        if !self.errors.is_empty() {
            return Err(self.into_errors());
        }
        self.warnings.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(self.warnings)
    }

    /// Returns all errors; there must be at least one.
    pub(super) fn into_errors(mut self) -> Errors {
        debug_assert!(!self.errors.is_empty(), "the list has at least one error");
        self.errors.sort_by(|a, b| a.location.cmp(&b.location));
        Errors(self.errors)
    }
}

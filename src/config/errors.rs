//! What is wrong with a configuration, and where.

use std::{fmt, sync::Arc};

/// Where a problem stands. The order is the order of reports: by position, then what concerns a whole file, then flags.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A position in a file.
    At {
        /// The file as the user named it.
        file: Arc<str>,
        /// The line, from 1.
        line: usize,
        /// The column, from 1, in characters (not bytes).
        column: usize,
    },
    /// A file as a whole.
    File(Arc<str>),
    /// A command-line flag, with as much of its value as may be shown.
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::File(file) => f.write_str(file),
            Self::Flag(flag) => f.write_str(flag),
        }
    }
}

/// One thing that is wrong, or that deserves a warning: where, what, and what to do. It never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it stands.
    pub place: Place,
    /// What it is and what to do, in one line.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// Everything that is wrong with a configuration, in the order of [`Place`]. `Display` prints one problem a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<Problem>);

impl Errors {
    /// The problems, at least one.
    pub fn problems(&self) -> &[Problem] {
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
pub(super) struct Notes {
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Notes {
    pub(super) fn error(&mut self, place: Place, message: impl Into<String>) {
        let message = message.into();
        self.errors.push(Problem { place, message });
    }

    pub(super) fn warn(&mut self, place: Place, message: impl Into<String>) {
        let message = message.into();
        self.warnings.push(Problem { place, message });
    }

    /// The warnings, or all errors when there is one.
    pub(super) fn finish(mut self) -> Result<Vec<Problem>, Errors> {
        if !self.errors.is_empty() {
            return Err(self.fail());
        }
        self.warnings.sort_by(|a, b| a.place.cmp(&b.place));
        Ok(self.warnings)
    }

    /// All errors, of which there is one at least.
    pub(super) fn fail(mut self) -> Errors {
        debug_assert!(!self.errors.is_empty(), "failed without an error");
        self.errors.sort_by(|a, b| a.place.cmp(&b.place));
        Errors(self.errors)
    }
}

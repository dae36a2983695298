//! What is looked for in a request body.

use std::sync::LazyLock;

use crate::body_path::BodyPaths;

/// What a scanner looks for in a request body.
#[derive(Clone, Copy)]
pub struct RequestScanRules<'r> {
    /// The paths of the texts that may name the session.
    pub paths: &'r BodyPaths,
    /// How thoroughly the names of objects are looked for.
    pub references: ReferenceSearch,
}

/// How thoroughly a body is searched for the names of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReferenceSearch {
    /// The names are read at the places where the API has them, if their keys are written without escapes, as JSON
    /// writers do. A name decides the route only.
    Usual,
    /// The names are read at every depth, also if their keys are written with escapes. A name decides access.
    Exhaustive,
}

/// The paths of a scanner without a configuration: those of the session keys of OpenAI's clients.
static DEFAULT_PATHS: LazyLock<BodyPaths> = LazyLock::new(|| {
    let paths = ["prompt_cache_key", "client_metadata.session_id"];
    BodyPaths::new(&paths.map(|path| path.parse().expect("a valid path")))
});

impl Default for RequestScanRules<'static> {
    fn default() -> Self {
        Self {
            paths: &DEFAULT_PATHS,
            references: ReferenceSearch::Usual,
        }
    }
}

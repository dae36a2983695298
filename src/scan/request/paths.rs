//! Reads the texts at the configured paths.

use crate::{
    body_path::BodyPaths,
    scan::{
        field::{RoutingField, differs_only_in_case},
        json::error::{JsonError, JsonErrorKind},
    },
};

/// Follows the configured paths through the outermost objects of a body. Each set is a mask with one bit for each path.
pub(super) struct PathReader<'r> {
    paths: &'r BodyPaths,
    /// For each level, the paths of which a field at this level has been seen.
    seen: [u64; 3],
    /// For the first two levels, the paths whose object at this level is being read.
    inside: [u64; 2],
    /// The paths that the last key continues, until its value begins.
    matched: u64,
    /// The path whose text is being captured.
    captured: Option<u8>,
}

impl<'r> PathReader<'r> {
    pub fn new(paths: &'r BodyPaths) -> Self {
        Self {
            paths,
            seen: [0; 3],
            inside: [0; 2],
            matched: 0,
            captured: None,
        }
    }

    /// The depth of the members that paths may continue.
    pub fn depth(&self) -> u32 {
        match self.inside {
            [0, _] => 1,
            [_, 0] => 2,
            [_, _] => 3,
        }
    }

    /// Visits a key. Returns whether a path has it.
    ///
    /// # Errors
    /// If a path has the key twice, or if the key differs from a name of a path in case only.
    pub fn visit_key(&mut self, depth: u32, name: &[u8], at: u64) -> Result<bool, JsonError> {
        let (level, candidates) = match depth {
            1 => (0, u64::MAX),
            2 => (1, self.inside[0]),
            3 => (2, self.inside[1]),
            _ => (3, 0),
        };
        self.matched = 0;
        if candidates == 0 {
            return Ok(false);
        }
        for (index, path) in self.paths.iter().filter(|(index, _)| candidates >> index & 1 == 1) {
            let Some(expected) = path.names().nth(level) else {
                continue;
            };
            let field = RoutingField::Path {
                path: index as u8,
                names: level as u8 + 1,
            };
            if name == expected.as_bytes() {
                if self.seen[level] >> index & 1 == 1 {
                    return Err(JsonError::new(JsonErrorKind::DuplicateField(field), at));
                }
                self.matched |= 1 << index;
            } else if differs_only_in_case(name, expected) {
                return Err(JsonError::new(JsonErrorKind::FieldInOtherCase(field), at));
            }
        }
        self.seen[level.min(2)] |= self.matched;
        Ok(self.matched != 0)
    }

    /// Visits the beginning of a value. Returns whether it is a text that a path leads to.
    pub fn visit_value(&mut self, depth: u32, first: u8) -> bool {
        let matched = std::mem::take(&mut self.matched);
        if matched == 0 {
            return false;
        }
        let names = |index: usize| self.paths.iter().nth(index).map_or(0, |(_, path)| path.names().len());
        let is_last = |index: &usize| matched >> index & 1 == 1 && names(*index) == depth as usize;
        let last = (0..self.paths.iter().len()).find(is_last);
        match first {
            b'{' if depth <= 2 => {
                let rest = last.map_or(matched, |last| matched & !(1 << last));
                self.inside[depth as usize - 1] = rest;
                false
            }
            b'"' => {
                self.captured = last.map(|last| last as u8);
                last.is_some()
            }
            _ => false,
        }
    }

    /// The field at the end of a path.
    pub fn field_of(&self, path: u8) -> RoutingField {
        let found = self.paths.iter().nth(usize::from(path));
        let names = found.map_or(0, |(_, path)| path.names().len()) as u8;
        RoutingField::Path { path, names }
    }

    /// The path whose text is being captured. It is not captured any more.
    pub fn take_captured(&mut self) -> Option<u8> {
        self.captured.take()
    }

    /// Visits the end of a value.
    pub fn visit_value_end(&mut self, depth: u32) {
        match depth {
            1 => self.inside = [0; 2],
            2 => self.inside[1] = 0,
            _ => {}
        }
    }
}

//! Walks a parsed TOML document by a [`Schema`], noting every mistake with its line and column.
//!
//! The parser recovers from syntax errors and so does the reader, but a recovered tree lacks what the broken lines held. So what
//! stands on a broken line, below a broken table header, or seems to be missing is not reported beside a syntax error: it
//! may be the same mistake seen twice.

use std::{ops::Range, sync::Arc};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    errors::{Notes, Place},
    suggest::closest,
    values::{kind, quoted},
};

/// What a table of the file may hold.
#[derive(Debug)]
pub(super) struct Schema {
    /// As a user writes it: `[server]`.
    pub(super) name: &'static str,
    /// Before a field's name in a path: `server.`.
    pub(super) prefix: &'static str,
    pub(super) fields: &'static [&'static str],
}

impl Schema {
    fn location(&self) -> String {
        let Self { name, prefix, .. } = self;
        if prefix.is_empty() {
            format!("at {name}")
        } else {
            format!("in {name}")
        }
    }
}

/// A table of the file, or the lack of one, with its schema.
#[derive(Clone, Copy)]
pub(super) struct Section<'a> {
    schema: &'static Schema,
    table: Option<&'a DeTable<'a>>,
    at: usize,
}

impl<'a> Section<'a> {
    /// Whether there is such a table in the file.
    pub(super) fn is_written(&self) -> bool {
        self.table.is_some()
    }

    pub(super) fn get(&self, field: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        debug_assert!(self.schema.fields.contains(&field), "{field} is not in the schema");
        self.table?.get(field)
    }
}

/// A document and what was found wrong in it so far.
pub(super) struct Reader<'t> {
    file: Arc<str>,
    text: &'t str,
    /// The byte offset at which each line starts.
    lines: Vec<usize>,
    /// Where the tree is not what the user meant: in order and apart.
    broken: Vec<Range<usize>>,
    schemas: &'static [&'static Schema],
    pub(super) notes: Notes,
}

impl<'t> Reader<'t> {
    /// Parses `text`; the tree holds what could be read. `schemas` is where misplaced fields are looked for.
    pub(super) fn parse(
        text: &'t str,
        file: Arc<str>,
        schemas: &'static [&'static Schema],
        notes: Notes,
    ) -> (Self, DeTable<'t>) {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = std::iter::once(0)
            .chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|newline| newline + 1))
            .collect();
        let mut reader = Self {
            file,
            text,
            lines,
            broken: Vec::new(),
            schemas,
            notes,
        };
        let (tree, errors) = DeTable::parse_recoverable(text);
        reader.syntax_errors(&errors);
        (reader, tree.into_inner())
    }

    /// Notes the syntax errors but for those that follow from another: the later ones of a line, and what an array or inline
    /// table that is never closed swallows.
    fn syntax_errors(&mut self, errors: &[toml::de::Error]) {
        let end = self.text.len()..self.text.len();
        let mut errors: Vec<_> = errors
            .iter()
            .map(|e| (e.span().unwrap_or(end.clone()), e.message()))
            .collect();
        errors.sort_by_key(|(span, _)| span.start);
        let position = |starts: &[&str]| {
            let found = |(_, message): &(_, &str)| starts.iter().any(|start| message.starts_with(start));
            errors.iter().position(found)
        };
        let unclosed = position(&["unclosed array,", "unclosed inline table,"]);
        let swallowed = position(&["missing comma", "missing assignment", "extra assignment"])
            .zip(unclosed)
            .map_or(0..0, |(first, unclosed)| first + 1..unclosed);
        let mut last_line = None;
        for (index, (span, message)) in errors.into_iter().enumerate() {
            let line = Some(self.line_of(span.start));
            let follows = swallowed.contains(&index) || last_line == line && unclosed != Some(index);
            self.syntax_error(message, span, follows);
            last_line = line;
        }
    }

    fn syntax_error(&mut self, message: &str, span: Range<usize>, follows: bool) {
        if !follows {
            let message = match (message, self.text.get(span.clone())) {
                ("duplicate key", Some(key)) => format!("{} is written twice; keep one", quoted(key.trim_matches('"'))),
                (
                    "string values must be quoted, expected literal string" | "invalid literal string, expected `'`",
                    Some(nothing),
                ) if nothing.trim().is_empty() => "a value is missing".to_owned(),
                (message, _) => message.to_owned(),
            };
            self.notes.error(self.place(span.start), message);
        }
        let line = self.line_of(span.start);
        let start = self.lines.get(line).copied().unwrap_or(0);
        let is_header = self.is_header(start);
        let mut later = self.lines.iter().copied().skip(self.line_of(span.end) + 1);
        let end = later
            .find(|&next| !is_header || self.is_header(next))
            .unwrap_or(self.text.len() + 1);
        match self.broken.last_mut() {
            Some(last) if last.end >= start => last.end = last.end.max(end),
            _ => self.broken.push(start..end),
        }
    }

    /// Whether the line that starts at `start` opens a table.
    fn is_header(&self, start: usize) -> bool {
        let rest = self.text.get(start..).unwrap_or_default();
        rest.trim_start_matches([' ', '\t']).starts_with('[')
    }

    /// The index of the line that holds the byte at `offset`.
    fn line_of(&self, offset: usize) -> usize {
        self.lines.partition_point(|&start| start <= offset).saturating_sub(1)
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.line_of(offset);
        let start = self.lines.get(line).copied().unwrap_or(0);
        let before = self.text.as_bytes().get(start..offset).unwrap_or_default();
        // A character is counted by its first byte.
        let column = before.iter().filter(|&&byte| byte & 0xC0 != 0x80).count() + 1;
        Place::At {
            file: Arc::clone(&self.file),
            line: line + 1,
            column,
        }
    }

    /// Where a value stands.
    pub(super) fn place_of<T>(&self, value: &Spanned<T>) -> Place {
        self.place(value.span().start)
    }

    /// Notes a mistake at `value`.
    pub(super) fn error<T>(&mut self, value: &Spanned<T>, message: impl Into<String>) {
        self.error_at(value.span().start, value.span().is_empty(), message);
    }

    fn error_at(&mut self, offset: usize, made_up: bool, message: impl Into<String>) {
        // The parser fills a missing value in with one that spans nothing.
        let doubtful = made_up && !self.is_whole();
        if !doubtful && !self.is_broken(offset) {
            self.notes.error(self.place(offset), message);
        }
    }

    /// Whether the tree is all that the user wrote.
    pub(super) fn is_whole(&self) -> bool {
        self.broken.is_empty()
    }

    fn is_broken(&self, offset: usize) -> bool {
        let next = self.broken.partition_point(|range| range.start <= offset);
        next.checked_sub(1)
            .and_then(|last| self.broken.get(last))
            .is_some_and(|range| range.contains(&offset))
    }

    /// Notes that a section lacks what it needs.
    pub(super) fn missing(&mut self, section: &Section<'_>, message: impl Into<String>) {
        if self.is_whole() {
            self.notes.error(self.place(section.at), message);
        }
    }

    /// The document as a section, its unknown fields noted.
    pub(super) fn root<'a>(&mut self, schema: &'static Schema, tree: &'a DeTable<'a>) -> Section<'a> {
        self.open(schema, tree, 0)
    }

    /// The table called `field`, its unknown fields noted; an empty section when there is none.
    pub(super) fn section<'a>(&mut self, root: &Section<'a>, field: &str, schema: &'static Schema) -> Section<'a> {
        let nothing = Section {
            schema,
            table: None,
            at: 0,
        };
        let Some(value) = root.get(field) else { return nothing };
        match value.get_ref() {
            DeValue::Table(table) => self.open(schema, table, value.span().start),
            other => {
                self.error(
                    value,
                    format!("{field} must be a table, not {}; write {}", kind(other), schema.name),
                );
                nothing
            }
        }
    }

    /// The tables called `field`, in the order of the file.
    pub(super) fn sections<'a>(
        &mut self,
        root: &Section<'a>,
        field: &str,
        schema: &'static Schema,
    ) -> Vec<Section<'a>> {
        let Some(value) = root.get(field) else {
            return Vec::new();
        };
        let wrong = |other| {
            format!(
                "{field} must be an array of tables, not {}; write {}",
                kind(other),
                schema.name
            )
        };
        match value.get_ref() {
            DeValue::Array(items) => {
                let mut sections = Vec::with_capacity(items.len());
                for item in items {
                    match item.get_ref() {
                        DeValue::Table(table) => sections.push(self.open(schema, table, item.span().start)),
                        other => self.error(item, wrong(other)),
                    }
                }
                sections
            }
            single => {
                self.error(value, wrong(single));
                match single {
                    DeValue::Table(table) => vec![self.open(schema, table, value.span().start)],
                    _ => Vec::new(),
                }
            }
        }
    }

    fn open<'a>(&mut self, schema: &'static Schema, table: &'a DeTable<'a>, at: usize) -> Section<'a> {
        for key in table.keys() {
            let name: &str = key.get_ref();
            if !schema.fields.contains(&name) {
                let hint = self.hint(schema, name);
                self.error(
                    key,
                    format!("unknown field {} {}; {hint}", quoted(name), schema.location()),
                );
            }
        }
        Section {
            schema,
            table: Some(table),
            at,
        }
    }

    /// What the user probably meant by a field that `schema` does not have.
    fn hint(&self, schema: &Schema, name: &str) -> String {
        if let Some(close) = closest(name, schema.fields) {
            return format!("did you mean \"{close}\"?");
        }
        let home = self.schemas.iter().find(|other| other.fields.contains(&name));
        match home {
            Some(home) => format!("it belongs {}", home.location()),
            None => format!("it may hold {}", schema.fields.join(", ")),
        }
    }

    /// The value of `field` as `parse` reads it; its error becomes "`field` error" at the value. `None` without a valid value.
    pub(super) fn read<'a, T>(
        &mut self,
        section: &Section<'a>,
        field: &str,
        parse: impl FnOnce(&'a DeValue<'a>) -> Result<T, String>,
    ) -> Option<T> {
        let value = section.get(field).filter(|value| !self.is_broken(value.span().start))?;
        match parse(value.get_ref()) {
            Ok(parsed) => Some(parsed),
            Err(problem) => {
                self.error(value, format!("{field} {problem}"));
                None
            }
        }
    }

    /// The items of a list, or a lone value where `alone` allows it, each with its place. `None` where nothing is written.
    pub(super) fn list<'a, T>(
        &mut self,
        section: &Section<'a>,
        field: &str,
        alone: bool,
        mut parse: impl FnMut(&'a DeValue<'a>) -> Result<T, String>,
    ) -> Option<Vec<(Place, T)>> {
        let value = section.get(field).filter(|value| !self.is_broken(value.span().start))?;
        let items = match value.get_ref() {
            DeValue::Array(items) => items.as_ref(),
            _ if alone => std::slice::from_ref(value),
            other => {
                self.error(
                    value,
                    format!("{field} must be an array, not {}; write [ … ]", kind(other)),
                );
                return None;
            }
        };
        let mut read = Vec::with_capacity(items.len());
        for item in items {
            match parse(item.get_ref()) {
                Ok(parsed) => read.push((self.place_of(item), parsed)),
                Err(problem) => self.error(item, format!("{field} {problem}")),
            }
        }
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn places_agree_with_counting(text in "[a\u{e9}\u{1F980}\r\n]{0,40}") {
            let (reader, _) = Reader::parse(&text, "f".into(), &[], Notes::default());
            for (offset, _) in text.char_indices() {
                let before = &text[..offset];
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
                prop_assert_eq!(reader.place(offset), Place::At { file: "f".into(), line, column });
            }
        }
    }
}

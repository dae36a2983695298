//! A TOML document with its syntax errors, and the positions of its values in lines and columns.
//!
//! The parser recovers from syntax errors, and so does the reader. But a recovered tree lacks the content of the broken
//! lines. A syntax error may therefore cause other problems. If the document has a syntax error, these problems are not
//! reported: problems on a broken line, problems below a broken table header, and missing fields or tables.

use std::{ops::Range, sync::Arc};

use toml::{Spanned, de::DeTable};

use super::{
    errors::{Location, ProblemList},
    schema::ConfigTable,
    values::quoted,
};

/// A document, and the problems that were found in it so far.
pub(super) struct DocumentReader<'t> {
    file: Arc<str>,
    text: &'t str,
    /// The byte offset at which each line starts.
    lines: Vec<usize>,
    /// The byte ranges in which the tree may differ from the user's text. They are in ascending order and disjoint.
    broken: Vec<Range<usize>>,
    /// The tables in which a misplaced field is looked for.
    pub(super) tables: &'static [&'static ConfigTable],
    pub(super) problems: ProblemList,
}

impl<'t> DocumentReader<'t> {
    /// Parses `text`, which came from `file`. The tree contains what could be parsed. A misplaced field is looked for in
    /// `tables`, and the problems are added to `problems`.
    pub(super) fn parse(
        text: &'t str,
        file: Arc<str>,
        tables: &'static [&'static ConfigTable],
        problems: ProblemList,
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
            tables,
            problems,
        };
        let (tree, errors) = DeTable::parse_recoverable(text);
        reader.syntax_errors(&errors);
        (reader, tree.into_inner())
    }

    /// Reports the syntax errors, except those that another syntax error has caused: the later errors of a line, and
    /// the errors in the text that the parser takes for the content of an unclosed array or inline table.
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
            if !follows {
                self.syntax_error(message, &span);
            }
            self.mark_broken(&span);
            last_line = line;
        }
    }

    fn syntax_error(&mut self, message: &str, span: &Range<usize>) {
        let message = match (message, self.text.get(span.clone())) {
            ("duplicate key", Some(key)) => format!("{} is written twice; keep one", quoted(key.trim_matches('"'))),
            (
                "string values must be quoted, expected literal string" | "invalid literal string, expected `'`",
                Some(nothing),
            ) if nothing.trim().is_empty() => "a value is missing".to_owned(),
            (message, _) => message.to_owned(),
        };
        self.problems.error(self.location(span.start), message);
    }

    /// Marks the lines of `span` as broken; after a broken table header, also the lines up to the next header.
    fn mark_broken(&mut self, span: &Range<usize>) {
        let start = self.line_start(self.line_of(span.start));
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

    /// Whether the line that starts at `start` is a table header.
    fn is_header(&self, start: usize) -> bool {
        let rest = self.text.get(start..).expect("a line starts within the text");
        rest.trim_start_matches([' ', '\t']).starts_with('[')
    }

    /// The index of the line that contains the byte at `offset`.
    fn line_of(&self, offset: usize) -> usize {
        let started = self.lines.partition_point(|&start| start <= offset);
        started.checked_sub(1).expect("the first line starts at offset 0")
    }

    /// The byte offset at which the line with this index starts.
    fn line_start(&self, line: usize) -> usize {
        *self.lines.get(line).expect("the index is that of a line")
    }

    /// The position of the byte at `offset`.
    pub(super) fn location(&self, offset: usize) -> Location {
        let line = self.line_of(offset);
        let before = self.text.as_bytes().get(self.line_start(line)..offset);
        let before = before.expect("spans are within the text");
        // Each character is counted by its first byte.
        let column = before.iter().filter(|&&byte| byte & 0xC0 != 0x80).count() + 1;
        Location::At {
            file: Arc::clone(&self.file),
            line: line + 1,
            column,
        }
    }

    /// The position of a value.
    pub(super) fn location_of<T>(&self, value: &Spanned<T>) -> Location {
        self.location(value.span().start)
    }

    /// Adds an error at `value`, unless a syntax error may be its cause.
    pub(super) fn error<T>(&mut self, value: &Spanned<T>, message: impl Into<String>) {
        let span = value.span();
        // The parser replaces a missing value by one with an empty span.
        let is_doubtful = span.is_empty() && !self.is_whole();
        if !is_doubtful && !self.is_broken(span.start) {
            self.problems.error(self.location(span.start), message);
        }
    }

    /// Adds a warning at `value`.
    pub(super) fn warn<T>(&mut self, value: &Spanned<T>, message: impl Into<String>) {
        self.problems.warn(self.location_of(value), message);
    }

    /// Whether the text has no syntax error, so that the tree contains everything that the user wrote.
    pub(super) fn is_whole(&self) -> bool {
        self.broken.is_empty()
    }

    /// Whether the byte at `offset` is in a range in which the tree may differ from what the user meant.
    pub(super) fn is_broken(&self, offset: usize) -> bool {
        let next = self.broken.partition_point(|range| range.start <= offset);
        let (before, _) = self.broken.split_at(next);
        before.last().is_some_and(|range| range.contains(&offset))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn locations_agree_with_counting(text in "[a\u{e9}\u{1F980}\r\n]{0,40}") {
            let (reader, _) = DocumentReader::parse(&text, "f".into(), &[], ProblemList::default());
            for (offset, _) in text.char_indices() {
                let before = &text[..offset];
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
                prop_assert_eq!(reader.location(offset), Location::At { file: "f".into(), line, column });
            }
        }
    }
}

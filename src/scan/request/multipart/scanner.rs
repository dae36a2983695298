//! Divides a form into its parts, and reads the facts of the request from the parts.

use memchr::memmem::Finder;

use super::{
    boundary::{Boundary, is_utf8},
    error::{MultipartError, MultipartErrorKind as Kind},
    fields::FieldUses,
    media,
    part_content::{PartContent, PartRole, checked_text},
    part_head::PartHead,
};
use crate::{
    ids::ObjectId,
    scan::request::{
        facts::{NamedObject, RequestFacts},
        rules::RequestScanRules,
    },
};

/// How much of a form is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormExtent {
    /// The whole form.
    Whole,
    /// The parts before the first file, which is a part with the name of a file, or a part called `file` or `data`. What
    /// follows is not read, so it may be anything.
    BeforeFiles,
}

/// Reads a form as it arrives, in pieces of any size. No result depends on where the pieces are cut.
///
/// The body is not kept: the memory is bounded by the head of one part, the text of one field, and the facts.
pub struct MultipartScanner<'r> {
    rules: RequestScanRules<'r>,
    extent: FormExtent,
    /// Finds two hyphens and the boundary.
    finder: Finder<'static>,
    state: ScanState,
    /// The offset of the first byte that has not been used.
    offset: u64,
    /// Bytes that have been received and not used. They are too few to decide what they are.
    held: Vec<u8>,
    parts: u32,
    /// The fields that have been read.
    seen: Vec<Box<str>>,
    facts: RequestFacts,
    /// The error that every later call returns.
    failed: Option<MultipartError>,
}

enum ScanState {
    /// Before the first boundary.
    Start,
    /// In the head of a part, of which these bytes have arrived.
    Head(Vec<u8>),
    /// In the content of a part.
    Content(PartContent),
    /// After the last boundary.
    Epilogue,
    /// After the line end that follows the last boundary.
    Done,
    /// In the first file of a form that is read [before its files](FormExtent::BeforeFiles).
    AtFile,
}

/// The number of bytes of a piece that are joined with the bytes that are held. It is more than any decision needs.
const JOINED: usize = 256;
/// The number of bytes after a boundary that decide what follows.
const AFTER: usize = 2;

impl<'r> MultipartScanner<'r> {
    /// A scanner of a form with this boundary.
    pub fn new(rules: RequestScanRules<'r>, boundary: &Boundary, extent: FormExtent) -> Self {
        let dashed = [b"--", boundary.as_bytes()].concat();
        Self {
            rules,
            extent,
            finder: Finder::new(&dashed).into_owned(),
            state: ScanState::Start,
            offset: 0,
            held: Vec::new(),
            parts: 0,
            seen: Vec::new(),
            facts: RequestFacts::default(),
            failed: None,
        }
    }

    /// Whether the rest of the body is not read.
    pub fn is_at_file(&self) -> bool {
        matches!(self.state, ScanState::AtFile)
    }

    /// Reads the next piece of the body.
    ///
    /// # Errors
    /// Returns a [`MultipartError`] as soon as the form is known to be invalid or ambiguous. Every later call returns it again.
    pub fn feed(&mut self, chunk: &[u8]) -> Result<(), MultipartError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let result = self.take(chunk);
        if let Err(error) = &result {
            self.failed = Some(error.clone());
        }
        result
    }

    /// Ends the body and returns its facts.
    ///
    /// # Errors
    /// Returns a [`MultipartError`] if the form is invalid, ambiguous or incomplete.
    pub fn finish(self) -> Result<RequestFacts, MultipartError> {
        let end = self.offset + self.held.len() as u64;
        match (self.failed, self.state) {
            (Some(error), _) => Err(error),
            (None, ScanState::Done | ScanState::AtFile) => Ok(self.facts),
            (None, ScanState::Epilogue) if self.held.is_empty() => Ok(self.facts),
            (None, ScanState::Epilogue) => Err(MultipartError::new(Kind::Epilogue, self.offset)),
            (None, ScanState::Start | ScanState::Head(_) | ScanState::Content(_)) => {
                Err(MultipartError::new(Kind::MissingEnd, end))
            }
        }
    }

    /// The facts in the part of the body that has been read.
    pub fn into_facts(self) -> RequestFacts {
        self.facts
    }

    fn take(&mut self, mut chunk: &[u8]) -> Result<(), MultipartError> {
        while !self.held.is_empty() && !chunk.is_empty() {
            let before = self.held.len();
            let mut joined = std::mem::take(&mut self.held);
            let (head, rest) = chunk.split_at(chunk.len().min(JOINED));
            joined.extend_from_slice(head);
            let used = self.advance(&joined)?;
            match used.checked_sub(before) {
                Some(of_chunk) => chunk = chunk.get(of_chunk..).expect("only bytes of the piece are used"),
                None => {
                    joined.drain(..used);
                    self.held = joined;
                    chunk = rest;
                }
            }
        }
        if !chunk.is_empty() {
            let used = self.advance(chunk)?;
            self.held.extend_from_slice(chunk.get(used..).unwrap_or_default());
        }
        Ok(())
    }

    /// Uses as many bytes of `data` as possible, and returns their number.
    fn advance(&mut self, data: &[u8]) -> Result<usize, MultipartError> {
        let mut used = 0;
        loop {
            let rest = data.get(used..).expect("a step uses no more than its input");
            let step = match &self.state {
                ScanState::Start => self.begin(rest),
                ScanState::Head(_) => self.read_head(rest),
                ScanState::Content(_) => self.read_content(rest),
                ScanState::Epilogue => self.end(rest),
                ScanState::Done if rest.is_empty() => Ok(0),
                ScanState::Done => Err(self.error(Kind::Epilogue, 0)),
                ScanState::AtFile => Ok(rest.len()),
            }?;
            self.offset += step as u64;
            used += step;
            if step == 0 {
                return Ok(used);
            }
        }
    }

    /// An error at `index` bytes after the current offset.
    fn error(&self, kind: Kind, index: usize) -> MultipartError {
        MultipartError::new(kind, self.offset + index as u64)
    }

    /// Reads the first boundary. One empty line may stand before it.
    fn begin(&mut self, data: &[u8]) -> Result<usize, MultipartError> {
        let blank = match data {
            [b'\r', b'\n', ..] => 2,
            [b'\r'] | [] => return Ok(0),
            _ => 0,
        };
        let rest = data.get(blank..).unwrap_or_default();
        let dashed = self.finder.needle();
        if let Some(index) = rest.iter().zip(dashed).position(|(found, expected)| found != expected) {
            return Err(self.error(Kind::Preamble, blank + index));
        }
        let end = blank + dashed.len();
        match data.get(end..end + AFTER) {
            Some(after) => self.pass_boundary(after, end),
            None => Ok(0),
        }
    }

    /// Goes on after a boundary that ends at `end`, by the bytes that follow it.
    fn pass_boundary(&mut self, after: &[u8], end: usize) -> Result<usize, MultipartError> {
        self.state = match after {
            b"\r\n" if self.parts == Kind::MAX_PARTS => return Err(self.error(Kind::TooManyParts, end)),
            b"\r\n" => ScanState::Head(Vec::new()),
            b"--" => ScanState::Epilogue,
            _ => return Err(self.error(Kind::AfterBoundary, end)),
        };
        self.parts += 1;
        Ok(end + AFTER)
    }

    /// Reads the rest of the body: one line end, or nothing.
    fn end(&mut self, data: &[u8]) -> Result<usize, MultipartError> {
        match data {
            [] | [b'\r'] => Ok(0),
            b"\r\n" => {
                self.state = ScanState::Done;
                Ok(2)
            }
            [b'\r', b'\n', ..] => Err(self.error(Kind::Epilogue, 2)),
            _ => Err(self.error(Kind::Epilogue, 0)),
        }
    }

    fn read_head(&mut self, data: &[u8]) -> Result<usize, MultipartError> {
        let ScanState::Head(head) = &mut self.state else {
            unreachable!("the state is that of a head")
        };
        let before = head.len();
        let (taken, _) = data.split_at(data.len().min(Kind::MAX_HEAD - before));
        head.extend_from_slice(taken);
        let start = self.offset - before as u64;
        // An empty line at the beginning ends an empty head.
        let searched = before.saturating_sub(3);
        let found = match head.starts_with(b"\r\n") {
            true => Some(0),
            false => {
                let fresh = head.get(searched..).unwrap_or_default();
                memchr::memmem::find(fresh, b"\r\n\r\n").map(|index| searched + index + 2)
            }
        };
        match found {
            None if head.len() == Kind::MAX_HEAD => Err(MultipartError::new(Kind::HeadTooLarge, start)),
            None => Ok(taken.len()),
            Some(length) => {
                let mut head = std::mem::take(head);
                head.truncate(length);
                self.state = self.begin_part(&head, start)?;
                Ok(length + 2 - before)
            }
        }
    }

    /// The state after the head of a part, which begins at the offset `at`.
    fn begin_part(&mut self, head: &[u8], at: u64) -> Result<ScanState, MultipartError> {
        self.check_lines(head, at)?;
        let part = PartHead::read(head, at)?;
        let role = self.role(&part).map_err(|kind| MultipartError::new(kind, at))?;
        let is_file = match &role {
            PartRole::File(_) => true,
            PartRole::Wanted { .. } => false,
            // The API takes uploads under these names, and some clients send no name of the file.
            PartRole::Ignored => matches!(part.name, b"file" | b"data"),
        };
        if is_file && self.extent == FormExtent::BeforeFiles {
            return Ok(ScanState::AtFile);
        }
        let start = at + head.len() as u64 + 2;
        Ok(ScanState::Content(PartContent { start, role }))
    }

    /// Refuses a head in which a line begins with the boundary.
    fn check_lines(&self, head: &[u8], at: u64) -> Result<(), MultipartError> {
        let begins_line = |index: usize| match index.checked_sub(1) {
            None => true,
            Some(before) => head.get(before).is_some_and(|byte| b"\r\n".contains(byte)),
        };
        match self.finder.find_iter(head).find(|index| begins_line(*index)) {
            None => Ok(()),
            Some(index) => Err(MultipartError::new(Kind::MisplacedBoundary, at + index as u64)),
        }
    }

    /// What is done with the content of a part.
    fn role(&mut self, part: &PartHead<'_>) -> Result<PartRole, Kind> {
        let paths = self.rules.paths;
        let name = String::from_utf8_lossy(part.name);
        if let Some(field) = FieldUses::disguised(&name, paths) {
            return Err(Kind::FieldInOtherForm(field));
        }
        let Some(uses) = FieldUses::of(&name, paths) else {
            return Ok(match part.file_name {
                Some(_) => PartRole::File(media::kind_of(part)),
                None => PartRole::Ignored,
            });
        };
        let is_list = name.contains("[]");
        if self.seen.iter().any(|seen| **seen == *name) && !is_list {
            return Err(Kind::DuplicateField(name.into()));
        }
        if part.file_name.is_some() {
            return Err(Kind::FieldIsFile(name.into()));
        }
        if !part.is_plain_text() {
            return Err(Kind::FieldEncoded(name.into()));
        }
        if !is_list {
            self.seen.push((&*name).into());
        }
        Ok(PartRole::Wanted {
            name: name.into(),
            uses,
            text: Vec::new(),
        })
    }

    fn read_content(&mut self, data: &[u8]) -> Result<usize, MultipartError> {
        let length = self.finder.needle().len();
        let ScanState::Content(content) = &mut self.state else {
            unreachable!("the state is that of a content")
        };
        let is_begun = self.offset > content.start;
        // The end of the data may be the beginning of a boundary with its line end. It is decided with the data that follow.
        let mut used = data.len().saturating_sub(length + 1);
        let mut searched = 0;
        while let Some(found) = self.finder.find(data.get(searched..).unwrap_or_default()) {
            let index = searched + found;
            let before = data.get(..index).unwrap_or_default();
            if before.ends_with(b"\r\n") {
                let end = index - 2;
                content.role.keep(data.get(..end).unwrap_or_default(), content.start)?;
                return match data.get(index + length..index + length + AFTER) {
                    None => Ok(end),
                    Some(after) => self.end_part(after, index),
                };
            }
            // After the use of a boundary inside a line, the byte before the next one is a hyphen or a part of the boundary.
            let begins_line = before.ends_with(b"\n") || before.ends_with(b"\r") || index == 0 && !is_begun;
            if begins_line {
                content.role.keep(before, content.start)?;
                return Err(self.error(Kind::MisplacedBoundary, index));
            }
            searched = index + 1;
        }
        used = used.max(searched);
        content.role.keep(data.get(..used).unwrap_or_default(), content.start)?;
        Ok(used)
    }

    /// Ends a part before the boundary at `index`, which is followed by the bytes `after`.
    fn end_part(&mut self, after: &[u8], index: usize) -> Result<usize, MultipartError> {
        let end = self.offset + index as u64 - 2;
        if let ScanState::Content(content) = std::mem::replace(&mut self.state, ScanState::Epilogue) {
            match content.role {
                PartRole::Ignored => {}
                PartRole::File(kind) => self.facts.media.add(kind, end - content.start),
                PartRole::Wanted { name, uses, text } => {
                    let text = checked_text(text, &name, content.start)?;
                    if uses.model.is_some() {
                        self.facts.model_at = Some(content.start..end);
                    }
                    self.store(uses, text, content.start)?;
                }
            }
        }
        self.pass_boundary(after, index + self.finder.needle().len())
    }

    fn store(&mut self, uses: FieldUses, text: String, at: u64) -> Result<(), MultipartError> {
        if uses.charset.is_some() && !is_utf8(text.as_bytes()) {
            return Err(MultipartError::new(Kind::DefaultCharset, at));
        }
        if let Some(kind) = uses.reference {
            let id = ObjectId::from_text(text.as_bytes());
            self.facts.named.push(NamedObject { kind, id });
        }
        if uses.model.is_some() {
            self.facts.model = Some(text.clone());
        }
        if let Some(index) = uses.text {
            self.facts.texts.set(index, text);
        }
        Ok(())
    }
}

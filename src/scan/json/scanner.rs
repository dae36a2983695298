//! The entry of the JSON scanner: it turns chunks into blocks of 64 bytes and drives the other layers.

use super::{
    capture::StreamSlice,
    dispatch::FieldDispatcher,
    error::{JsonError, JsonErrorKind},
    grammar::Grammar,
    lexer::{BATCH, BlockTokens, InstructionSet, Lexer},
    visitor::FieldVisitor,
};

/// The size of a block in bytes.
const BLOCK: usize = 64;

/// A resumable scan of a JSON object, which reports fields to `V`.
///
/// Blocks lie at multiples of 64 bytes from the beginning of the stream. An unfinished block waits for the next chunk, so
/// a stream is read in the same blocks wherever it is cut.
pub(in crate::scan) struct Scanner<V: FieldVisitor> {
    instructions: InstructionSet,
    lexer: Lexer,
    grammar: Grammar,
    dispatcher: FieldDispatcher<V>,
    /// The unfinished block, of which the first `filled` bytes are valid.
    pending: [u8; BLOCK],
    /// The number of valid bytes in `pending`.
    filled: usize,
    /// The number of bytes of the stream before the unfinished block.
    done: u64,
    /// The error that ended the scan.
    error: Option<JsonError>,
}

impl<V: FieldVisitor> Scanner<V> {
    pub fn new(instructions: InstructionSet, visitor: V) -> Self {
        Self {
            instructions,
            lexer: Lexer::default(),
            grammar: Grammar::new(),
            dispatcher: FieldDispatcher::new(visitor),
            pending: [0; BLOCK],
            filled: 0,
            done: 0,
            error: None,
        }
    }

    /// The visitor, with the fields that it has read so far.
    pub fn visitor(&self) -> &V {
        &self.dispatcher.visitor
    }

    /// The visitor, from which the fields that it has read so far can be taken.
    pub fn visitor_mut(&mut self) -> &mut V {
        &mut self.dispatcher.visitor
    }

    /// Reads the next chunk of the stream.
    ///
    /// # Errors
    ///
    /// The first error of the stream. It may be reported up to 63 bytes after it occurs, and every later call returns it
    /// again.
    pub fn feed(&mut self, mut chunk: &[u8]) -> Result<(), JsonError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.filled > 0 {
            let (head, rest) = chunk.split_at(chunk.len().min(BLOCK - self.filled));
            self.hold(head);
            chunk = rest;
            if self.filled < BLOCK {
                return Ok(());
            }
            let block = self.pending;
            self.filled = 0;
            self.scan(&block)?;
        }
        let (blocks, rest) = chunk.split_at(chunk.len() - chunk.len() % BLOCK);
        if !blocks.is_empty() {
            self.scan(blocks)?;
        }
        self.hold(rest);
        Ok(())
    }

    /// Ends the stream and returns the visitor.
    ///
    /// # Errors
    ///
    /// The first error of the stream, which may be that it ends too early.
    pub fn finish(mut self) -> Result<V, JsonError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let total = self.done + self.filled as u64;
        // The rest is padded with spaces. They end an open number, literal or UTF-8 sequence, and are otherwise ignored.
        let mut block = [b' '; BLOCK];
        block[..self.filled].copy_from_slice(&self.pending[..self.filled]);
        match self.scan(&block) {
            Err(error) if error.offset < total => Err(error),
            Ok(()) if self.grammar.is_complete() => Ok(self.dispatcher.visitor),
            Ok(()) | Err(_) => Err(JsonError::new(JsonErrorKind::UnexpectedEnd, total)),
        }
    }

    /// Appends `bytes` to the unfinished block. They must fit into it.
    fn hold(&mut self, bytes: &[u8]) {
        let end = self.filled + bytes.len();
        self.pending
            .get_mut(self.filled..end)
            .expect("the caller passes at most the rest of a block")
            .copy_from_slice(bytes);
        self.filled = end;
    }

    /// Scans whole blocks.
    fn scan(&mut self, bytes: &[u8]) -> Result<(), JsonError> {
        let result = self.scan_slice(&StreamSlice { bytes, base: self.done });
        self.error = result.err();
        self.done += bytes.len() as u64;
        result
    }

    fn scan_slice(&mut self, slice: &StreamSlice<'_>) -> Result<(), JsonError> {
        self.grammar.resume(slice, &mut self.dispatcher)?;
        let mut tokens = [BlockTokens::default(); BATCH];
        let (blocks, _) = slice.bytes.as_chunks::<BLOCK>();
        for (index, batch) in blocks.chunks(BATCH).enumerate() {
            let start = index * BATCH * BLOCK;
            let lexical_error = self.lexer.read(self.instructions, batch, &mut tokens);
            let tokens = tokens
                .get(..batch.len())
                .expect("a chunk of `BATCH` is no longer than it");
            self.grammar.read(slice, start, tokens, &mut self.dispatcher)?;
            if let Some(error) = lexical_error {
                let offset = (slice.base + start as u64).saturating_add_signed(error.offset as i64);
                return Err(JsonError::new(error.kind, offset));
            }
        }
        self.dispatcher.suspend(slice);
        Ok(())
    }
}

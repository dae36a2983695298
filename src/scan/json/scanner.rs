//! From chunks to blocks: the part of the machine that knows how the stream was cut, so that no other part has to.

use super::{
    capture::Run,
    error::{Problem, Refusal},
    grammar::Grammar,
    lexer::{BATCH, Lexer, Path, Tokens},
    visitor::{Ear, Reader},
};

/// A resumable scan of a JSON object, of which `R` hears.
///
/// Blocks lie at multiples of 64 bytes from the beginning of the stream; what a chunk has of an unfinished block waits for
/// the next chunk. So the same stream is read in the same blocks however it is cut.
pub(in crate::scan) struct Scanner<R: Reader> {
    path: Path,
    lexer: Lexer,
    grammar: Grammar,
    ear: Ear<R>,
    /// The unfinished block.
    pending: [u8; 64],
    filled: usize,
    /// Bytes of the stream before the unfinished block.
    done: u64,
    refusal: Option<Refusal>,
}

impl<R: Reader> Scanner<R> {
    pub fn new(path: Path, reader: R) -> Self {
        Self {
            path,
            lexer: Lexer::default(),
            grammar: Grammar::new(),
            ear: Ear::new(reader),
            pending: [0; 64],
            filled: 0,
            done: 0,
            refusal: None,
        }
    }

    /// What has been read so far.
    pub fn reader(&self) -> &R {
        &self.ear.reader
    }

    /// The same, to take something out.
    pub fn reader_mut(&mut self) -> &mut R {
        &mut self.ear.reader
    }

    /// Reads on. What is wrong may be told as late as 63 bytes after it; once told, it is told again.
    pub fn feed(&mut self, mut chunk: &[u8]) -> Result<(), Refusal> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        if self.filled > 0 {
            let (head, rest) = chunk.split_at(chunk.len().min(64 - self.filled));
            self.hold(head);
            chunk = rest;
            if self.filled < 64 {
                return Ok(());
            }
            let block = self.pending;
            self.filled = 0;
            self.run(&block)?;
        }
        let (blocks, rest) = chunk.split_at(chunk.len() - chunk.len() % 64);
        if !blocks.is_empty() {
            self.run(blocks)?;
        }
        self.hold(rest);
        Ok(())
    }

    /// Ends the stream.
    pub fn finish(mut self) -> Result<R, Refusal> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let total = self.done + self.filled as u64;
        // Blanks end whatever number, literal or UTF-8 sequence is open, and mean nothing by themselves. There are at least
        // nine of them, as the other half of a surrogate pair is due that far on.
        let mut blocks = [b' '; 128];
        let length = if self.filled + 9 > 64 { 128 } else { 64 };
        for (to, from) in blocks.iter_mut().zip(self.pending.iter().take(self.filled)) {
            *to = *from;
        }
        match self.run(blocks.get(..length).unwrap_or_default()) {
            Err(refusal) if refusal.offset < total => Err(refusal),
            Ok(()) if self.grammar.is_complete() => Ok(self.ear.reader),
            Ok(()) | Err(_) => Err(Refusal::new(Problem::UnexpectedEnd, total)),
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        let end = self.filled + bytes.len();
        if let Some(room) = self.pending.get_mut(self.filled..end) {
            room.copy_from_slice(bytes);
            self.filled = end;
        }
    }

    /// Reads a run of whole blocks.
    fn run(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        let result = self.run_blocks(&Run { bytes, base: self.done });
        self.refusal = result.err();
        self.done += bytes.len() as u64;
        result
    }

    fn run_blocks(&mut self, run: &Run<'_>) -> Result<(), Refusal> {
        self.grammar.resume(run, &mut self.ear)?;
        let mut tokens = [Tokens::default(); BATCH];
        let (blocks, _) = run.bytes.as_chunks::<64>();
        for (index, batch) in blocks.chunks(BATCH).enumerate() {
            let start = index * BATCH * 64;
            let flaw = self.lexer.read(self.path, batch, &mut tokens);
            let tokens = tokens.get(..batch.len()).unwrap_or_default();
            self.grammar.read(run, start, tokens, &mut self.ear)?;
            if let Some(flaw) = flaw {
                let offset = (run.base + start as u64).saturating_add_signed(flaw.offset as i64);
                return Err(Refusal::new(flaw.problem, offset));
            }
        }
        self.ear.suspend(run);
        Ok(())
    }
}

//! From tokens to structure: a pushdown automaton with one bit of stack a level.

use super::{
    capture::Run,
    lexer::Tokens,
    reader::{Ear, Reader},
    refusal::{Problem, Refusal},
    scalar::Scalar,
};

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// The root object.
    Root,
    /// A key or `}`.
    FirstKey,
    /// A key.
    Key,
    /// `:`.
    Colon,
    /// A value.
    Value,
    /// A value or `]`.
    FirstItem,
    /// `,` or the end of the container.
    Comma,
    /// Nothing.
    End,
}

/// A string whose end the reader waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Key,
    Value,
}

/// Where in a JSON text the stream is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grammar {
    expect: Expect,
    /// How many containers are open.
    depth: u32,
    /// For each of them, innermost lowest: 1 for an object, 0 for an array.
    objects: u128,
    awaited: Option<Awaited>,
    /// A number or literal that the last run cut in two.
    scalar: Option<Scalar>,
}

impl Grammar {
    pub fn new() -> Self {
        Self {
            expect: Expect::Root,
            depth: 0,
            objects: 0,
            awaited: None,
            scalar: None,
        }
    }

    /// Whether the root object has ended.
    pub fn is_complete(&self) -> bool {
        self.expect == Expect::End
    }

    /// Goes on at the beginning of `run`.
    pub fn resume<R: Reader>(&mut self, run: &Run<'_>, ear: &mut Ear<R>) -> Result<(), Refusal> {
        match self.scalar.take() {
            Some(scalar) => self.scalar(scalar, 0, run, ear),
            None => Ok(()),
        }
    }

    /// Reads the tokens of the blocks of `run` that begin at index `start`.
    pub fn read<R: Reader>(
        &mut self,
        run: &Run<'_>,
        start: usize,
        tokens: &[Tokens],
        ear: &mut Ear<R>,
    ) -> Result<(), Refusal> {
        for (index, block) in tokens.iter().enumerate() {
            let start = start + 64 * index;
            if self.awaited.is_some() && block.closes != 0 {
                self.string_end(run, start + block.closes.trailing_zeros() as usize, ear)?;
            }
            let mut begins = block.begins;
            while begins != 0 {
                let bit = begins.trailing_zeros();
                begins &= begins - 1;
                self.token(run, start + bit as usize, ear)?;
                if self.awaited.is_some() {
                    let closes = block.closes & (u64::MAX << bit);
                    if closes != 0 {
                        self.string_end(run, start + closes.trailing_zeros() as usize, ear)?;
                    }
                }
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn token<R: Reader>(&mut self, run: &Run<'_>, index: usize, ear: &mut Ear<R>) -> Result<(), Refusal> {
        let Some(&byte) = run.bytes.get(index) else {
            return Ok(());
        };
        let at = run.base + index as u64;
        match byte {
            b'"' => match self.expect {
                Expect::FirstKey | Expect::Key => {
                    self.expect = Expect::Colon;
                    if self.depth <= ear.reader.depth() {
                        ear.key(at);
                        self.awaited = Some(Awaited::Key);
                    }
                    Ok(())
                }
                Expect::Value | Expect::FirstItem => {
                    self.expect = Expect::Comma;
                    if self.depth <= ear.reader.depth() {
                        ear.value(self.depth, byte, at)?;
                        self.awaited = Some(Awaited::Value);
                    }
                    Ok(())
                }
                _ => Err(self.unexpected(run, index)),
            },
            b':' if self.expect == Expect::Colon => {
                self.expect = Expect::Value;
                Ok(())
            }
            b',' if self.expect == Expect::Comma => {
                self.expect = if self.objects & 1 == 1 {
                    Expect::Key
                } else {
                    Expect::Value
                };
                Ok(())
            }
            b'{' | b'[' => self.open(byte, run, index, ear),
            b'}' | b']' => self.close(byte, run, index, ear),
            _ => match (self.expect, Scalar::beginning_with(byte)) {
                (Expect::Value | Expect::FirstItem, Some(scalar)) => {
                    if self.depth <= ear.reader.depth() {
                        ear.value(self.depth, byte, at)?;
                    }
                    self.scalar(scalar, index, run, ear)
                }
                _ => Err(self.unexpected(run, index)),
            },
        }
    }

    fn string_end<R: Reader>(&mut self, run: &Run<'_>, index: usize, ear: &mut Ear<R>) -> Result<(), Refusal> {
        let at = run.base + index as u64;
        match self.awaited.take() {
            Some(Awaited::Key) => ear.key_end(self.depth, run, at),
            Some(Awaited::Value) => ear.value_end(self.depth, run, at + 1),
            None => Ok(()),
        }
    }

    /// Reads a number or literal on from `index`.
    fn scalar<R: Reader>(
        &mut self,
        mut scalar: Scalar,
        index: usize,
        run: &Run<'_>,
        ear: &mut Ear<R>,
    ) -> Result<(), Refusal> {
        let at = run.base + index as u64;
        match scalar.read(run.bytes.get(index..).unwrap_or_default()) {
            Ok(Some(length)) => {
                self.expect = Expect::Comma;
                self.value_end(run, at + length as u64, ear)
            }
            Ok(None) => {
                self.scalar = Some(scalar);
                Ok(())
            }
            Err((problem, place)) => Err(Refusal::new(problem, at + place as u64)),
        }
    }

    #[inline(always)]
    fn open<R: Reader>(&mut self, byte: u8, run: &Run<'_>, index: usize, ear: &mut Ear<R>) -> Result<(), Refusal> {
        let at = run.base + index as u64;
        match self.expect {
            Expect::Value | Expect::FirstItem if self.depth < Problem::MAX_DEPTH => {
                if self.depth <= ear.reader.depth() {
                    ear.value(self.depth, byte, at)?;
                }
            }
            Expect::Value | Expect::FirstItem => return Err(Refusal::new(Problem::TooDeep, at)),
            Expect::Root if byte == b'{' => {}
            _ => return Err(self.unexpected(run, index)),
        }
        self.depth += 1;
        self.objects = self.objects << 1 | u128::from(byte == b'{');
        self.expect = if byte == b'{' {
            Expect::FirstKey
        } else {
            Expect::FirstItem
        };
        Ok(())
    }

    #[inline(always)]
    fn close<R: Reader>(&mut self, byte: u8, run: &Run<'_>, index: usize, ear: &mut Ear<R>) -> Result<(), Refusal> {
        let is_object = self.objects & 1 == 1;
        match self.expect {
            Expect::FirstKey if byte == b'}' => {}
            Expect::FirstItem if byte == b']' => {}
            Expect::Comma if is_object == (byte == b'}') => {}
            _ => return Err(self.unexpected(run, index)),
        }
        self.depth -= 1;
        self.objects >>= 1;
        if self.depth == 0 {
            self.expect = Expect::End;
            return Ok(());
        }
        self.expect = Expect::Comma;
        self.value_end(run, run.base + index as u64 + 1, ear)
    }

    #[inline(always)]
    fn value_end<R: Reader>(&mut self, run: &Run<'_>, at: u64, ear: &mut Ear<R>) -> Result<(), Refusal> {
        if self.depth <= ear.reader.depth() {
            ear.value_end(self.depth, run, at)?;
        }
        Ok(())
    }

    /// What is wrong with the token at `index`, which cannot stand there.
    #[cold]
    fn unexpected(&self, run: &Run<'_>, index: usize) -> Refusal {
        let at = run.base + index as u64;
        let problem = match self.expect {
            Expect::Root if at == 0 && run.bytes.starts_with(b"\xef\xbb\xbf") => Problem::ByteOrderMark,
            Expect::Root => Problem::RootNotObject,
            Expect::FirstKey | Expect::Key => Problem::ExpectedKey,
            Expect::Colon => Problem::ExpectedColon,
            Expect::Value | Expect::FirstItem => Problem::ExpectedValue,
            Expect::Comma if self.objects & 1 == 1 => Problem::ExpectedCommaOrBrace,
            Expect::Comma => Problem::ExpectedCommaOrBracket,
            Expect::End => Problem::TextAfterRoot,
        };
        Refusal::new(problem, at)
    }
}

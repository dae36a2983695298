//! From tokens to structure: a pushdown automaton with one bit of stack a level.
//!
//! Which token may follow which is a table; the code is for what happens besides.

use super::{
    capture::Run,
    encrypted,
    error::{Problem, Refusal},
    lexer::Tokens,
    scalar::Scalar,
    visitor::{Ear, Reader},
};

/// What may come next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing: the last token could not follow.
    Refused,
    /// The root object.
    Root,
    /// A key or `}`.
    FirstKey,
    /// A key.
    Key,
    /// `:`.
    Colon,
    /// A member's value.
    Value,
    /// `,` or `}`.
    MemberEnd,
    /// An item or `]`.
    FirstItem,
    /// An item.
    Item,
    /// `,` or `]`.
    ItemEnd,
    /// A container has ended: the one around it tells.
    Closed,
    /// Blanks.
    End,
}

/// Kinds of tokens; those that change nothing but the state come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum Token {
    Colon,
    Comma,
    Quote,
    Scalar,
    OpenBrace,
    OpenBracket,
    CloseBrace,
    CloseBracket,
}

const TOKEN_OF: [Token; 256] = {
    let mut table = [Token::Scalar; 256];
    table[b':' as usize] = Token::Colon;
    table[b',' as usize] = Token::Comma;
    table[b'"' as usize] = Token::Quote;
    table[b'{' as usize] = Token::OpenBrace;
    table[b'[' as usize] = Token::OpenBracket;
    table[b'}' as usize] = Token::CloseBrace;
    table[b']' as usize] = Token::CloseBracket;
    table
};

/// The grammar of RFC 8259, but that the root is an object.
const fn next(state: State, token: Token) -> State {
    use State::*;
    match (state, token) {
        (Root, Token::OpenBrace) => FirstKey,
        (FirstKey | Key, Token::Quote) => Colon,
        (Colon, Token::Colon) => Value,
        (Value, Token::Quote | Token::Scalar) => MemberEnd,
        (FirstItem | Item, Token::Quote | Token::Scalar) => ItemEnd,
        (Value | FirstItem | Item, Token::OpenBrace) => FirstKey,
        (Value | FirstItem | Item, Token::OpenBracket) => FirstItem,
        (MemberEnd, Token::Comma) => Key,
        (ItemEnd, Token::Comma) => Item,
        (FirstKey | MemberEnd, Token::CloseBrace) => Closed,
        (FirstItem | ItemEnd, Token::CloseBracket) => Closed,
        _ => Refused,
    }
}

/// [`next`] for every state and token, in the order of their definitions.
const NEXT: [[State; 8]; 12] = {
    use State::*;
    const STATES: [State; 12] = [
        Refused, Root, FirstKey, Key, Colon, Value, MemberEnd, FirstItem, Item, ItemEnd, Closed, End,
    ];
    use Token::{CloseBrace, CloseBracket, Comma, OpenBrace, OpenBracket, Quote, Scalar};
    const TOKENS: [Token; 8] = [
        Token::Colon,
        Comma,
        Quote,
        Scalar,
        OpenBrace,
        OpenBracket,
        CloseBrace,
        CloseBracket,
    ];
    let mut table = [[Refused; 8]; 12];
    let mut state = 0;
    while state < 12 {
        let mut token = 0;
        while token < 8 {
            table[STATES[state] as usize][TOKENS[token] as usize] = next(STATES[state], TOKENS[token]);
            token += 1;
        }
        state += 1;
    }
    table
};

/// A string whose end the reader waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Key,
    Value,
}

/// Where in a JSON text the stream is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grammar {
    state: State,
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
            state: State::Root,
            depth: 0,
            objects: 0,
            awaited: None,
            scalar: None,
        }
    }

    /// Whether the root object has ended.
    pub fn is_complete(&self) -> bool {
        self.state == State::End
    }

    /// Goes on at the beginning of `run`.
    pub fn resume<R: Reader>(&mut self, run: &Run<'_>, ear: &mut Ear<R>) -> Result<(), Refusal> {
        match self.scalar.take() {
            Some(scalar) => self.scalar_on(scalar, run, 0, ear),
            None => Ok(()),
        }
    }

    /// Reads the tokens of the blocks of `run` that begin at index `start`.
    pub fn read<R: Reader>(
        &mut self,
        run: &Run<'_>,
        mut start: usize,
        tokens: &[Tokens],
        ear: &mut Ear<R>,
    ) -> Result<(), Refusal> {
        for (number, block) in tokens.iter().enumerate() {
            if self.awaited.is_some() && block.closes != 0 {
                self.string_end(run, start + block.closes.trailing_zeros() as usize, ear)?;
            }
            if block.begins != 0 {
                ear.stir(|| encrypted::may_begin(run, start, block, tokens.get(number + 1)));
                self.block(run, start, block, ear)?;
            }
            start += 64;
        }
        Ok(())
    }

    /// Reads the tokens of a block that begins at index `start`.
    fn block<R: Reader>(
        &mut self,
        run: &Run<'_>,
        start: usize,
        block: &Tokens,
        ear: &mut Ear<R>,
    ) -> Result<(), Refusal> {
        let mut state = self.state;
        let mut quiet = self.quiet(ear);
        let mut begins = block.begins;
        while begins != 0 {
            let bit = begins.trailing_zeros();
            begins &= begins - 1;
            let index = start + bit as usize;
            let Some(&byte) = run.bytes.get(index) else {
                break;
            };
            let token = TOKEN_OF[usize::from(byte)];
            let next = NEXT[state as usize][token as usize];
            if next == State::Refused {
                self.state = state;
                return Err(self.unexpected(run, index));
            }
            if token < quiet {
                state = next;
                continue;
            }
            self.state = next;
            self.event(token, byte, run, index, ear)?;
            if self.awaited.is_some() {
                let closes = block.closes & (u64::MAX << bit);
                if closes != 0 {
                    self.string_end(run, start + closes.trailing_zeros() as usize, ear)?;
                }
            }
            state = self.state;
            quiet = self.quiet(ear);
        }
        self.state = state;
        Ok(())
    }

    /// Tokens below this one change nothing but the state.
    #[inline(always)]
    fn quiet<R: Reader>(&self, ear: &Ear<R>) -> Token {
        if self.is_heard(ear) {
            Token::Quote
        } else {
            Token::Scalar
        }
    }

    /// Whether the reader wants to hear of members at the present depth.
    #[inline(always)]
    fn is_heard<R: Reader>(&self, ear: &Ear<R>) -> bool {
        ear.hears(self.depth)
    }

    /// A token that may stand where it does, and that changes more than the state, which is already the one after it.
    #[inline(always)]
    fn event<R: Reader>(
        &mut self,
        token: Token,
        byte: u8,
        run: &Run<'_>,
        index: usize,
        ear: &mut Ear<R>,
    ) -> Result<(), Refusal> {
        let at = run.base + index as u64;
        match token {
            Token::Quote if self.state == State::Colon => {
                ear.key(at);
                self.awaited = Some(Awaited::Key);
            }
            Token::Quote => {
                ear.value(self.depth, byte, at)?;
                self.awaited = Some(Awaited::Value);
            }
            Token::Scalar => return self.scalar(byte, run, index, ear),
            Token::OpenBrace | Token::OpenBracket => {
                if self.depth == Problem::MAX_DEPTH {
                    return Err(Refusal::new(Problem::TooDeep, at));
                }
                if self.depth > 0 && self.is_heard(ear) {
                    ear.value(self.depth, byte, at)?;
                }
                self.depth += 1;
                self.objects = self.objects << 1 | u128::from(token == Token::OpenBrace);
            }
            Token::CloseBrace | Token::CloseBracket => {
                self.depth -= 1;
                self.objects >>= 1;
                self.state = match self.objects & 1 {
                    _ if self.depth == 0 => State::End,
                    0 => State::ItemEnd,
                    _ => State::MemberEnd,
                };
                return self.value_end(run, at + 1, ear);
            }
            Token::Colon | Token::Comma => {}
        }
        Ok(())
    }

    fn string_end<R: Reader>(&mut self, run: &Run<'_>, index: usize, ear: &mut Ear<R>) -> Result<(), Refusal> {
        let at = run.base + index as u64;
        match self.awaited.take() {
            Some(Awaited::Key) => ear.key_end(self.depth, run, at),
            Some(Awaited::Value) => ear.value_end(self.depth, run, at + 1),
            None => Ok(()),
        }
    }

    /// A number or literal begins at `index`.
    #[inline(always)]
    fn scalar<R: Reader>(&mut self, first: u8, run: &Run<'_>, index: usize, ear: &mut Ear<R>) -> Result<(), Refusal> {
        let at = run.base + index as u64;
        let Some(scalar) = Scalar::beginning_with(first) else {
            return Err(Refusal::new(Problem::ExpectedValue, at));
        };
        if self.is_heard(ear) {
            ear.value(self.depth, first, at)?;
        }
        match run.bytes.get(index..).and_then(Scalar::common) {
            Some(length) => self.value_end(run, at + length as u64, ear),
            None => self.scalar_on(scalar, run, index, ear),
        }
    }

    /// Reads a number or literal on from `index`.
    fn scalar_on<R: Reader>(
        &mut self,
        mut scalar: Scalar,
        run: &Run<'_>,
        index: usize,
        ear: &mut Ear<R>,
    ) -> Result<(), Refusal> {
        let at = run.base + index as u64;
        match scalar.read(run.bytes.get(index..).unwrap_or_default()) {
            Ok(Some(length)) => self.value_end(run, at + length as u64, ear),
            Ok(None) => {
                self.scalar = Some(scalar);
                Ok(())
            }
            Err((problem, place)) => Err(Refusal::new(problem, at + place as u64)),
        }
    }

    #[inline(always)]
    fn value_end<R: Reader>(&mut self, run: &Run<'_>, at: u64, ear: &mut Ear<R>) -> Result<(), Refusal> {
        if self.depth > 0 && self.is_heard(ear) {
            ear.value_end(self.depth, run, at)?;
        }
        Ok(())
    }

    /// What is wrong with the token at `index`, which cannot stand there.
    #[cold]
    fn unexpected(&self, run: &Run<'_>, index: usize) -> Refusal {
        let at = run.base + index as u64;
        let problem = match self.state {
            State::Root if at == 0 && run.bytes.starts_with(b"\xef\xbb\xbf") => Problem::ByteOrderMark,
            State::Root => Problem::RootNotObject,
            State::FirstKey | State::Key => Problem::ExpectedKey,
            State::Colon => Problem::ExpectedColon,
            State::MemberEnd => Problem::ExpectedCommaOrBrace,
            State::ItemEnd => Problem::ExpectedCommaOrBracket,
            State::End => Problem::TextAfterRoot,
            State::Value | State::FirstItem | State::Item | State::Closed | State::Refused => Problem::ExpectedValue,
        };
        Refusal::new(problem, at)
    }
}

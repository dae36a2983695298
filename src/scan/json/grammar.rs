//! Checks the structure of the JSON text, as a pushdown automaton with a stack of one bit per level.
//!
//! The table [`NEXT`] says which token may follow which. The code handles the other effects of a token: it changes the
//! depth, reports keys and values to the [`FieldDispatcher`], or begins a number or literal.

use super::{
    capture::StreamSlice,
    dispatch::FieldDispatcher,
    error::{JsonError, JsonErrorKind},
    lexer::BlockTokens,
    scalar::Scalar,
    visitor::FieldVisitor,
};

/// What the grammar expects next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GrammarState {
    /// The last token was not allowed.
    Invalid,
    /// The root object.
    Root,
    /// A key or `}`.
    FirstKey,
    /// A key.
    Key,
    /// `:`.
    Colon,
    /// The value of a member.
    Value,
    /// `,` or `}`.
    MemberEnd,
    /// An item or `]`.
    FirstItem,
    /// An item.
    Item,
    /// `,` or `]`.
    ItemEnd,
    /// A container has ended. The enclosing container decides what follows.
    Closed,
    /// Only whitespace may follow.
    End,
}

/// The kinds of tokens. The order matters: kinds before `Quote` only change the state, and so does `Quote` where the visitor
/// wants no members (see [`Grammar::first_relevant`]).
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

/// The kind of token that begins with each byte.
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

/// The grammar of RFC 8259, except that the root must be an object.
const fn next(state: GrammarState, token: Token) -> GrammarState {
    use GrammarState::*;
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
        _ => Invalid,
    }
}

/// The result of [`next`] for every state and token, indexed by their discriminants.
const NEXT: [[GrammarState; 8]; 12] = {
    use GrammarState::*;
    const STATES: [GrammarState; 12] = [
        Invalid, Root, FirstKey, Key, Colon, Value, MemberEnd, FirstItem, Item, ItemEnd, Closed, End,
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
    let mut table = [[Invalid; 8]; 12];
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

/// A string that is being read. The grammar reports its end to the dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PendingString {
    Key,
    Value,
}

/// The position in the grammar.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grammar {
    state: GrammarState,
    /// The number of open containers.
    depth: u32,
    /// One bit for each open container, the innermost lowest: 1 for an object, 0 for an array.
    objects: u128,
    /// The string that is being read, if its end is to be reported.
    pending: Option<PendingString>,
    /// The number or literal that the end of the last slice has cut.
    scalar: Option<Scalar>,
}

impl Grammar {
    pub fn new() -> Self {
        Self {
            state: GrammarState::Root,
            depth: 0,
            objects: 0,
            pending: None,
            scalar: None,
        }
    }

    /// Whether the root object has ended.
    pub fn is_complete(&self) -> bool {
        self.state == GrammarState::End
    }

    /// Continues at the beginning of `slice`.
    pub fn resume<V: FieldVisitor>(
        &mut self,
        slice: &StreamSlice<'_>,
        dispatcher: &mut FieldDispatcher<V>,
    ) -> Result<(), JsonError> {
        match self.scalar.take() {
            Some(scalar) => self.continue_scalar(scalar, slice, 0, dispatcher),
            None => Ok(()),
        }
    }

    /// Reads the tokens of the blocks of `slice` that begin at index `start`.
    pub fn read<V: FieldVisitor>(
        &mut self,
        slice: &StreamSlice<'_>,
        mut start: usize,
        tokens: &[BlockTokens],
        dispatcher: &mut FieldDispatcher<V>,
    ) -> Result<(), JsonError> {
        for (number, block) in tokens.iter().enumerate() {
            dispatcher.read_long_strings(slice, start, block);
            if let Some(pending) = self.pending
                && block.closes != 0
            {
                let index = start + block.closes.trailing_zeros() as usize;
                self.end_string(pending, slice, index, dispatcher)?;
            }
            if block.begins != 0 {
                dispatcher.begin_block(slice, start, block, tokens.get(number + 1));
                self.read_block(slice, start, block, dispatcher)?;
            }
            start += 64;
        }
        Ok(())
    }

    /// Reads the tokens of the block that begins at index `start`.
    fn read_block<V: FieldVisitor>(
        &mut self,
        slice: &StreamSlice<'_>,
        start: usize,
        block: &BlockTokens,
        dispatcher: &mut FieldDispatcher<V>,
    ) -> Result<(), JsonError> {
        let mut state = self.state;
        let mut first_relevant = self.first_relevant(dispatcher);
        let mut begins = block.begins;
        while begins != 0 {
            let bit = begins.trailing_zeros();
            begins &= begins - 1;
            let index = start + bit as usize;
            let byte = *slice.bytes.get(index).expect("the block lies in the slice");
            let token = TOKEN_OF[usize::from(byte)];
            let next = NEXT[state as usize][token as usize];
            if next == GrammarState::Invalid {
                self.state = state;
                return Err(self.unexpected(slice, index));
            }
            if token < first_relevant {
                state = next;
                continue;
            }
            self.state = next;
            self.handle(token, byte, slice, index, dispatcher)?;
            if let Some(pending) = self.pending {
                let closes = block.closes & (u64::MAX << bit);
                if closes != 0 {
                    let index = start + closes.trailing_zeros() as usize;
                    self.end_string(pending, slice, index, dispatcher)?;
                }
            }
            state = self.state;
            first_relevant = self.first_relevant(dispatcher);
        }
        self.state = state;
        Ok(())
    }

    /// The first kind of token, in the order of [`Token`], that changes more than the state at the current depth.
    #[inline(always)]
    fn first_relevant<V: FieldVisitor>(&self, dispatcher: &FieldDispatcher<V>) -> Token {
        if self.is_wanted(dispatcher) {
            Token::Quote
        } else {
            Token::Scalar
        }
    }

    /// Whether the visitor wants members at the current depth.
    #[inline(always)]
    fn is_wanted<V: FieldVisitor>(&self, dispatcher: &FieldDispatcher<V>) -> bool {
        dispatcher.wants(self.depth)
    }

    /// Handles a token that changes more than the state. The token is allowed, and `self.state` is the state after it.
    #[inline(always)]
    fn handle<V: FieldVisitor>(
        &mut self,
        token: Token,
        byte: u8,
        slice: &StreamSlice<'_>,
        index: usize,
        dispatcher: &mut FieldDispatcher<V>,
    ) -> Result<(), JsonError> {
        let at = slice.base + index as u64;
        match token {
            Token::Quote if self.state == GrammarState::Colon => {
                dispatcher.begin_key(at);
                self.pending = Some(PendingString::Key);
            }
            Token::Quote => {
                dispatcher.begin_value(self.depth, byte, at)?;
                self.pending = Some(PendingString::Value);
            }
            Token::Scalar => return self.begin_scalar(byte, slice, index, dispatcher),
            Token::OpenBrace | Token::OpenBracket => {
                if self.depth == JsonErrorKind::MAX_DEPTH {
                    return Err(JsonError::new(JsonErrorKind::TooDeep, at));
                }
                if self.depth > 0 && self.is_wanted(dispatcher) {
                    dispatcher.begin_value(self.depth, byte, at)?;
                }
                self.depth += 1;
                self.objects = self.objects << 1 | u128::from(token == Token::OpenBrace);
            }
            Token::CloseBrace | Token::CloseBracket => {
                self.depth -= 1;
                self.objects >>= 1;
                self.state = match self.objects & 1 {
                    _ if self.depth == 0 => GrammarState::End,
                    0 => GrammarState::ItemEnd,
                    _ => GrammarState::MemberEnd,
                };
                return self.end_value(slice, at + 1, dispatcher);
            }
            Token::Colon | Token::Comma => {}
        }
        Ok(())
    }

    /// Reports the end of the pending string, whose closing quote is at `index`.
    fn end_string<V: FieldVisitor>(
        &mut self,
        pending: PendingString,
        slice: &StreamSlice<'_>,
        index: usize,
        dispatcher: &mut FieldDispatcher<V>,
    ) -> Result<(), JsonError> {
        let at = slice.base + index as u64;
        self.pending = None;
        match pending {
            PendingString::Key => dispatcher.end_key(self.depth, slice, at),
            PendingString::Value => dispatcher.end_value(self.depth, slice, at + 1),
        }
    }

    /// A number or literal begins at `index` with the byte `first`.
    #[inline(always)]
    fn begin_scalar<V: FieldVisitor>(
        &mut self,
        first: u8,
        slice: &StreamSlice<'_>,
        index: usize,
        dispatcher: &mut FieldDispatcher<V>,
    ) -> Result<(), JsonError> {
        let at = slice.base + index as u64;
        let Some(scalar) = Scalar::beginning_with(first) else {
            return Err(JsonError::new(JsonErrorKind::ExpectedValue, at));
        };
        if self.is_wanted(dispatcher) {
            dispatcher.begin_value(self.depth, first, at)?;
        }
        match slice.bytes.get(index..).and_then(Scalar::common_length) {
            Some(length) => self.end_value(slice, at + length as u64, dispatcher),
            None => self.continue_scalar(scalar, slice, index, dispatcher),
        }
    }

    /// Continues a number or literal at `index`.
    fn continue_scalar<V: FieldVisitor>(
        &mut self,
        mut scalar: Scalar,
        slice: &StreamSlice<'_>,
        index: usize,
        dispatcher: &mut FieldDispatcher<V>,
    ) -> Result<(), JsonError> {
        let at = slice.base + index as u64;
        let bytes = slice.bytes.get(index..).expect("a scalar begins inside the slice");
        match scalar.read(bytes) {
            Ok(Some(length)) => self.end_value(slice, at + length as u64, dispatcher),
            Ok(None) => {
                self.scalar = Some(scalar);
                Ok(())
            }
            Err((kind, place)) => Err(JsonError::new(kind, at + place as u64)),
        }
    }

    /// A value has ended before `at`.
    #[inline(always)]
    fn end_value<V: FieldVisitor>(
        &mut self,
        slice: &StreamSlice<'_>,
        at: u64,
        dispatcher: &mut FieldDispatcher<V>,
    ) -> Result<(), JsonError> {
        if self.depth > 0 && self.is_wanted(dispatcher) {
            dispatcher.end_value(self.depth, slice, at)?;
        }
        Ok(())
    }

    /// The error of the token at `index`, which is not allowed there.
    #[cold]
    fn unexpected(&self, slice: &StreamSlice<'_>, index: usize) -> JsonError {
        let at = slice.base + index as u64;
        let kind = match self.state {
            GrammarState::Root if at == 0 && slice.bytes.starts_with(b"\xef\xbb\xbf") => JsonErrorKind::ByteOrderMark,
            GrammarState::Root => JsonErrorKind::RootNotObject,
            GrammarState::FirstKey | GrammarState::Key => JsonErrorKind::ExpectedKey,
            GrammarState::Colon => JsonErrorKind::ExpectedColon,
            GrammarState::MemberEnd => JsonErrorKind::ExpectedCommaOrBrace,
            GrammarState::ItemEnd => JsonErrorKind::ExpectedCommaOrBracket,
            GrammarState::End => JsonErrorKind::TrailingCharacters,
            GrammarState::Value
            | GrammarState::FirstItem
            | GrammarState::Item
            | GrammarState::Closed
            | GrammarState::Invalid => JsonErrorKind::ExpectedValue,
        };
        JsonError::new(kind, at)
    }
}

//! Finds the tokens of a JSON text: where strings begin and end, and which bytes outside of strings begin a token.
//!
//! Each step reads a block of 64 bytes and works on masks with one bit for each byte, without looking at single bytes.
//! A few words of state carry open strings, escapes and numbers from one block to the next. The lexer checks the
//! encoding of all bytes and the content of strings. The grammar checks the text outside of strings.

use super::{
    error::JsonErrorKind,
    simd::{Block, Portable, Simd, find_invalid_utf8},
};

#[cfg(target_arch = "x86_64")]
use super::simd::Avx2;

/// The number of blocks that are read in one call. Their masks fit into the first-level cache.
pub(in crate::scan) const BATCH: usize = 32;

/// The tokens of a block, as masks with one bit for each byte.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::scan) struct BlockTokens {
    /// Opening quotes, operators, and the first bytes of numbers, literals and other words outside of strings.
    pub begins: u64,
    /// Closing quotes.
    pub closes: u64,
}

impl BlockTokens {
    /// The tokens before byte `index`.
    fn before(self, index: u32) -> Self {
        let mask = (1 << index) - 1;
        Self {
            begins: self.begins & mask,
            closes: self.closes & mask,
        }
    }
}

/// An error that does not depend on the structure of the JSON text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scan) struct LexicalError {
    /// The kind of the error.
    pub kind: JsonErrorKind,
    /// The offset from the beginning of the batch in bytes. It is negative if the error begins before the batch.
    pub offset: isize,
}

/// The processor instructions that the lexer uses.
#[derive(Clone, Copy)]
pub(in crate::scan) enum InstructionSet {
    /// Instructions that every processor has.
    Portable,
    /// x86-64 with AVX2 and PCLMULQDQ.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
}

impl InstructionSet {
    /// The fastest instruction set that this processor has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = Avx2::detect() {
            return Self::Avx2(avx2);
        }
        Self::Portable
    }
}

/// The state of the lexer between two blocks.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::scan) struct Lexer {
    /// All ones if the block ended inside a string, else 0.
    in_string: u64,
    /// 1 if the first byte of the next block is escaped, else 0.
    escaped: u64,
    /// 1 if the last byte belongs to a number or literal, else 0.
    in_scalar: u64,
    /// The last four bytes of the block; the last one is the most significant.
    tail: u32,
    /// The `u` of each `\u` escape of the block. Its top bits matter to the next block.
    unicode: u64,
}

/// The errors of a block, as masks.
#[derive(Default)]
struct ErrorMasks {
    /// Control characters inside strings.
    controls: u64,
    /// Bytes after a backslash that begin no escape.
    escapes: u64,
    /// Bytes in place of the digits of a `\u` escape that are no hexadecimal digits.
    digits: u64,
    /// Whether the block is not UTF-8.
    utf8: bool,
}

impl Lexer {
    /// Reads `blocks`, which are at most [`BATCH`], and writes the tokens of each to `tokens`. Returns the first error, if
    /// there is one. In that case `tokens` holds the tokens before the error, and all later masks are 0.
    pub fn read(
        &mut self,
        instructions: InstructionSet,
        blocks: &[Block],
        tokens: &mut [BlockTokens; BATCH],
    ) -> Option<LexicalError> {
        match instructions {
            InstructionSet::Portable => self.read_with(Portable, blocks, tokens),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: the value `avx2` proves that the processor has the instructions that the function is compiled for.
            InstructionSet::Avx2(avx2) => unsafe { self.read_avx2(avx2, blocks, tokens) },
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,pclmulqdq")]
    fn read_avx2(&mut self, avx2: Avx2, blocks: &[Block], tokens: &mut [BlockTokens; BATCH]) -> Option<LexicalError> {
        self.read_with(avx2, blocks, tokens)
    }

    #[inline(always)]
    fn read_with<S: Simd>(
        &mut self,
        simd: S,
        blocks: &[Block],
        tokens: &mut [BlockTokens; BATCH],
    ) -> Option<LexicalError> {
        // A local copy of the state is kept in registers.
        let mut state = *self;
        let mut has_error = false;
        for (block, entry) in blocks.iter().zip(tokens.iter_mut()) {
            let (found, errors) = state.step(simd, block);
            *entry = found;
            has_error |= errors.any();
        }
        if has_error {
            return Some(self.find_error(blocks, tokens));
        }
        *self = state;
        None
    }

    /// Reads `blocks` a second time to find their first error. The fast loop only detects that they contain one.
    #[cold]
    #[inline(never)]
    fn find_error(&mut self, blocks: &[Block], tokens: &mut [BlockTokens; BATCH]) -> LexicalError {
        *tokens = [BlockTokens::default(); BATCH];
        for (index, (block, entry)) in blocks.iter().zip(tokens.iter_mut()).enumerate() {
            let before = self.tail;
            let (found, errors) = self.step(Portable, block);
            if errors.any() {
                let (detected_at, mut error) = errors.first(block, before);
                *entry = found.before(detected_at);
                error.offset += (64 * index) as isize;
                return error;
            }
            *entry = found;
        }
        unreachable!("the fast loop has found an error in these blocks")
    }

    /// Reads a block.
    #[inline(always)]
    fn step<S: Simd>(&mut self, simd: S, block: &Block) -> (BlockTokens, ErrorMasks) {
        let bytes = simd.load(block);
        let mut errors = ErrorMasks::default();

        // UTF-8 is checked only where a byte of 0x80 or above is in the block or shortly before it.
        let before = self.tail;
        self.tail = u32::from_le_bytes([block[60], block[61], block[62], block[63]]);
        let mut controls = 0;
        let unusual = simd.unusual(bytes);
        if unusual | u64::from(before & 0x8080_8080) != 0 {
            controls = unusual & !simd.non_ascii(bytes);
            let ascii = before & 0x8080_8080 == 0 && controls == unusual;
            errors.utf8 = !ascii && !simd.is_utf8(block, before);
        }

        // A quote that a backslash escapes begins or ends no string.
        let backslashes = simd.equal(bytes, b'\\');
        let mut quotes = simd.equal(bytes, b'"');
        let mut unicode = 0;
        if backslashes | self.escaped != 0 {
            let escaped = self.escaped_bytes(backslashes);
            quotes &= !escaped;
            let others = escaped & !simd.simple_escapes(bytes);
            if others != 0 {
                unicode = others & simd.equal(bytes, b'u');
                errors.escapes = others ^ unicode;
            }
        }
        if unicode | self.unicode >> 60 != 0 {
            let digits = (1..=4).fold(0, |mask, count| mask | shift_in(unicode, self.unicode, count));
            errors.digits = digits & !simd.hex_digits(block);
        }
        self.unicode = unicode;

        // The bytes from each opening quote up to the byte before its closing quote.
        let in_string = simd.prefix_xor(quotes) ^ self.in_string;
        self.in_string = ((in_string as i64) >> 63) as u64;
        errors.controls = controls & in_string;

        // Outside of strings, every operator and the first byte of every other word is a token.
        let closes = quotes & !in_string;
        let outside = !(in_string | closes);
        let mut begins = quotes & in_string;
        let mut scalars = 0;
        if outside != 0 {
            let structure = simd.structure(bytes);
            let operators = structure.operators & !controls;
            scalars = outside & !(structure.whitespace | operators);
            begins |= outside & operators | scalars & !(scalars << 1 | self.in_scalar);
        }
        self.in_scalar = scalars >> 63;
        (BlockTokens { begins, closes }, errors)
    }

    /// The bytes that a backslash escapes: every second byte of a run of backslashes, and the byte after a run of odd length.
    /// As in simdjson, the borrows of one subtraction find the ends of all runs at once.
    #[inline(always)]
    fn escaped_bytes(&mut self, backslashes: u64) -> u64 {
        const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;
        let open = backslashes & !self.escaped;
        let followers = open << 1;
        let ends = (followers | ODD).wrapping_sub(open) ^ ODD;
        let escaped = ends ^ (backslashes | self.escaped);
        self.escaped = (ends & backslashes) >> 63;
        escaped
    }
}

/// Shifts `mask` up by `count` bits, and shifts in the top bits of `before`, the mask of the previous block.
#[inline(always)]
fn shift_in(mask: u64, before: u64, count: u32) -> u64 {
    mask << count | before >> (64 - count)
}

impl ErrorMasks {
    #[inline(always)]
    fn any(&self) -> bool {
        self.controls | self.escapes | self.digits != 0 || self.utf8
    }

    /// Returns the first error of the block, with an offset from the beginning of the block, and the index of the byte
    /// at which it is detected. `before` holds the four bytes before the block.
    #[cold]
    fn first(&self, block: &Block, before: u32) -> (u32, LexicalError) {
        let utf8 = find_invalid_utf8(block, before).filter(|_| self.utf8);
        let utf8_mask = utf8.map_or(0, |begin| 1 << begin.max(0));
        let all = self.controls | self.escapes | self.digits | utf8_mask;
        let detected_at = all.trailing_zeros().min(63);
        let at = detected_at as isize;
        let is_in = |mask: u64| mask >> detected_at & 1 == 1;
        let (kind, offset) = if let Some(begin) = utf8.filter(|_| is_in(utf8_mask)) {
            (JsonErrorKind::InvalidUtf8, begin)
        } else if is_in(self.escapes | self.digits) {
            (JsonErrorKind::InvalidEscape, at)
        } else {
            (JsonErrorKind::ControlCharacter, at)
        };
        (detected_at, LexicalError { kind, offset })
    }
}

#[cfg(test)]
mod tests;

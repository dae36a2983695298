//! From bytes to the few of them that matter: where strings begin and end, and what stands between them.
//!
//! Each step reads 64 bytes and works on masks with one bit a byte, without looking at single bytes. What one block leaves
//! open for the next is five words. Everything that can be wrong inside a string, and the encoding of all bytes, is checked
//! here; what stands outside strings is the grammar's to judge.

use super::{
    error::Problem,
    simd::{Block, Hex, Lanes, Portable, utf8_flaw},
};

#[cfg(target_arch = "x86_64")]
use super::simd::Avx2;

/// How many blocks are lexed in one go: their masks stay in the first-level cache.
pub(in crate::scan) const BATCH: usize = 32;

/// What a block has for the grammar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::scan) struct Tokens {
    /// Opening quotes, operators, and the first bytes of numbers, literals and whatever else is not a blank.
    pub begins: u64,
    /// Closing quotes.
    pub closes: u64,
}

impl Tokens {
    /// Those before byte `index`.
    fn before(self, index: u32) -> Self {
        let mask = (1 << index) - 1;
        Self {
            begins: self.begins & mask,
            closes: self.closes & mask,
        }
    }
}

/// The first thing in a block that is wrong whatever the structure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scan) struct Flaw {
    /// What.
    pub problem: Problem,
    /// Where, from the beginning of the batch; negative where it began before.
    pub offset: isize,
}

/// Which instructions to use.
#[derive(Clone, Copy)]
pub(in crate::scan) enum Path {
    /// Any processor's.
    Portable,
    /// Those of x86-64 with AVX2 and PCLMULQDQ.
    #[cfg(target_arch = "x86_64")]
    Avx2(Avx2),
}

impl Path {
    /// The fastest that this processor has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        if let Some(lanes) = Avx2::detect() {
            return Self::Avx2(lanes);
        }
        Self::Portable
    }
}

/// What a block leaves open for the next one.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::scan) struct Lexer {
    /// All ones inside a string.
    in_string: u64,
    /// 1 where the next byte is escaped.
    escaped: u64,
    /// 1 where the last byte belongs to a number or literal.
    in_scalar: u64,
    /// The last four bytes, the last one highest.
    tail: u32,
    unicode: Unicode,
}

/// What `\u` escapes leave open: masks of the last block, of which the top bits still matter.
#[derive(Clone, Copy, Debug, Default)]
struct Unicode {
    /// The `u` of each escape.
    begins: u64,
    /// First digits that are `d`.
    d: u64,
    /// Second digits of high surrogates.
    high: u64,
    /// Nonzero where an escape, or the second half of a pair, reaches into the next block.
    open: u64,
}

/// What was found wrong in a block, as masks.
#[derive(Default)]
struct Flaws {
    controls: u64,
    escapes: u64,
    digits: u64,
    /// Second digits where a low surrogate stands or should stand, but not both; and those where one stands.
    pairs: u64,
    low: u64,
    utf8: bool,
}

impl Lexer {
    /// Reads `blocks`, at most [`BATCH`] of them, into as many of `tokens`. Where something is wrong, the tokens before it
    /// are there and the masks after it are empty.
    pub fn read(&mut self, path: Path, blocks: &[Block], tokens: &mut [Tokens; BATCH]) -> Option<Flaw> {
        match path {
            Path::Portable => self.read_with(Portable, blocks, tokens),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: an `Avx2` proves that the processor has what the function is compiled for.
            Path::Avx2(lanes) => unsafe { self.read_avx2(lanes, blocks, tokens) },
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,pclmulqdq")]
    fn read_avx2(&mut self, lanes: Avx2, blocks: &[Block], tokens: &mut [Tokens; BATCH]) -> Option<Flaw> {
        self.read_with(lanes, blocks, tokens)
    }

    #[inline(always)]
    fn read_with<L: Lanes>(&mut self, lanes: L, blocks: &[Block], tokens: &mut [Tokens; BATCH]) -> Option<Flaw> {
        // In a local, the state lives in registers.
        let mut state = *self;
        let mut flawed = false;
        for (block, slot) in blocks.iter().zip(tokens.iter_mut()) {
            let (found, flaws) = state.step(lanes, block);
            *slot = found;
            flawed |= flaws.any();
        }
        if flawed {
            return self.explain(blocks, tokens);
        }
        *self = state;
        None
    }

    /// Reads `blocks`, in which something is wrong, again to find what: only here is it asked for each block.
    #[cold]
    #[inline(never)]
    fn explain(&mut self, blocks: &[Block], tokens: &mut [Tokens; BATCH]) -> Option<Flaw> {
        *tokens = [Tokens::default(); BATCH];
        for (index, (block, slot)) in blocks.iter().zip(tokens.iter_mut()).enumerate() {
            let before = self.tail;
            let (found, flaws) = self.step(Portable, block);
            if flaws.any() {
                let (trigger, mut flaw) = flaws.first(block, before);
                *slot = found.before(trigger);
                flaw.offset += (64 * index) as isize;
                return Some(flaw);
            }
            *slot = found;
        }
        None
    }

    #[inline(always)]
    fn step<L: Lanes>(&mut self, lanes: L, block: &Block) -> (Tokens, Flaws) {
        let bytes = lanes.load(block);
        let mut flaws = Flaws::default();

        let before = self.tail;
        self.tail = u32::from_le_bytes([block[60], block[61], block[62], block[63]]);
        let mut controls = 0;
        let unusual = lanes.unusual(bytes);
        if unusual | u64::from(before & 0x8080_8080) != 0 {
            controls = unusual & !lanes.non_ascii(bytes);
            let ascii = before & 0x8080_8080 == 0 && controls == unusual;
            flaws.utf8 = !ascii && !lanes.is_utf8(block, before);
        }

        let backslashes = lanes.equal(bytes, b'\\');
        let mut quotes = lanes.equal(bytes, b'"');
        let mut unicode = 0;
        if backslashes | self.escaped != 0 {
            let escaped = self.escaped_bytes(backslashes);
            quotes &= !escaped;
            let others = escaped & !lanes.simple_escapes(bytes);
            if others != 0 {
                unicode = others & lanes.equal(bytes, b'u');
                flaws.escapes = others ^ unicode;
            }
        }
        if unicode | self.unicode.open != 0 {
            self.unicode.step(&lanes.hex(block), unicode, &mut flaws);
        }

        // From each opening quote up to the byte before its closing quote.
        let in_string = lanes.prefix_xor(quotes) ^ self.in_string;
        self.in_string = ((in_string as i64) >> 63) as u64;
        flaws.controls = controls & in_string;

        let closes = quotes & !in_string;
        let outside = !(in_string | closes);
        let mut begins = quotes & in_string;
        let mut scalars = 0;
        if outside != 0 {
            let layout = lanes.layout(bytes);
            let operators = layout.operators & !controls;
            scalars = outside & !(layout.blanks | operators);
            begins |= outside & operators | scalars & !(scalars << 1 | self.in_scalar);
        }
        self.in_scalar = scalars >> 63;
        (Tokens { begins, closes }, flaws)
    }

    /// The bytes that a backslash escapes: every second one of a run of backslashes, and what follows a run of odd length.
    /// (simdjson's way, by the carries of a subtraction: all runs at once.)
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

/// `mask` moved up by `count` bytes, with the top of the block before coming in.
#[inline(always)]
fn shift_in(mask: u64, before: u64, count: u32) -> u64 {
    mask << count | before >> (64 - count)
}

impl Unicode {
    /// Checks that four digits follow each `u` of `begins`, and that surrogates stand in pairs. The second digit of an
    /// escape tells what it is: `d8`–`db` a high surrogate, `dc`–`df` a low one, six bytes after the high one's.
    #[inline(always)]
    fn step(&mut self, hex: &Hex, begins: u64, flaws: &mut Flaws) {
        let first = shift_in(begins, self.begins, 1);
        let second = shift_in(begins, self.begins, 2);
        let rest = shift_in(begins, self.begins, 3) | shift_in(begins, self.begins, 4);
        flaws.digits = (first | second | rest) & !hex.digits;
        let d = first & hex.d;
        let after_d = shift_in(d, self.d, 1);
        let high = after_d & hex.high;
        flaws.low = after_d & hex.low;
        flaws.pairs = flaws.low ^ shift_in(high, self.high, 6);
        let open = (begins >> 60) | (d >> 63) | (high >> 58);
        *self = Self { begins, d, high, open };
    }
}

impl Flaws {
    #[inline(always)]
    fn any(&self) -> bool {
        self.controls | self.escapes | self.digits | self.pairs != 0 || self.utf8
    }

    /// The first flaw of the block, from the block's beginning, and the index of the byte that shows it.
    #[cold]
    fn first(&self, block: &Block, before: u32) -> (u32, Flaw) {
        let utf8 = utf8_flaw(block, before).filter(|_| self.utf8);
        let shown = utf8.map_or(0, |begin| 1 << begin.max(0));
        let all = self.controls | self.escapes | self.digits | self.pairs | shown;
        let trigger = all.trailing_zeros().min(63);
        let at = trigger as isize;
        let is_in = |mask: u64| mask >> trigger & 1 == 1;
        let (problem, offset) = if let Some(begin) = utf8.filter(|_| is_in(shown)) {
            (Problem::InvalidUtf8, begin)
        } else if is_in(self.escapes | self.digits) {
            (Problem::BadEscape, at)
        } else if is_in(self.controls) {
            (Problem::ControlCharacter, at)
        } else {
            // A low surrogate without a high one; or a high one, nine bytes back, without the low one due here.
            (Problem::LoneSurrogate, at - if is_in(self.low) { 3 } else { 9 })
        };
        (trigger, Flaw { problem, offset })
    }
}

#[cfg(test)]
mod tests;

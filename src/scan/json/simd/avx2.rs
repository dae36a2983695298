//! Masks with AVX2, and running parity with a carry-less multiplication.

use std::arch::x86_64::*;

use super::{Block, Hex, Lanes, Layout};

/// Proof that this processor has AVX2 and PCLMULQDQ: the only way to a value is to have asked it.
#[derive(Clone, Copy)]
pub(in crate::scan) struct Avx2(());

impl Avx2 {
    /// Asks the processor; the answer is cached by the standard library.
    pub fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("pclmulqdq");
        present.then_some(Self(()))
    }
}

/// A block, or something made of each of its bytes, in two registers.
#[derive(Clone, Copy)]
pub(in crate::scan) struct Loaded(__m256i, __m256i);

impl Loaded {
    /// The top bit of each byte.
    #[inline(always)]
    fn mask(self) -> u64 {
        // SAFETY: whoever has a `Loaded` had an `Avx2`, so the instruction exists.
        let (low, high) = unsafe { (_mm256_movemask_epi8(self.0), _mm256_movemask_epi8(self.1)) };
        u64::from(low as u32) | u64::from(high as u32) << 32
    }
}

// No closures in this file: they would be compiled without AVX2, and the intrinsics in them as calls.

/// A table of sixteen bytes for `_mm256_shuffle_epi8`, which looks up in each half apart.
#[inline(always)]
fn table(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: reads 16 bytes, with no alignment asked for; called only by those who hold an `Avx2`.
    unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast())) }
}

/// The upper four bits of each byte.
#[inline(always)]
fn high_nibbles(lanes: __m256i) -> __m256i {
    // SAFETY: called only by those who hold an `Avx2`.
    unsafe { _mm256_and_si256(_mm256_srli_epi16::<4>(lanes), _mm256_set1_epi8(0x0f)) }
}

/// Classes of bytes, one bit a class: those that the byte's lower four bits and its upper four bits both allow. A byte of
/// 0x80 or above has none, as a shuffle gives zero for an index with the top bit set.
#[inline(always)]
fn classes(lanes: __m256i, by_low: &[u8; 16], by_high: &[u8; 16]) -> __m256i {
    // SAFETY: called only by those who hold an `Avx2`.
    unsafe {
        let low = _mm256_shuffle_epi8(table(by_low), lanes);
        _mm256_and_si256(low, _mm256_shuffle_epi8(table(by_high), high_nibbles(lanes)))
    }
}

/// 0xff where `lanes` has one of the bits of `bits`.
#[inline(always)]
fn any_of(lanes: __m256i, bits: u8) -> __m256i {
    // SAFETY: called only by those who hold an `Avx2`.
    unsafe {
        _mm256_cmpgt_epi8(
            _mm256_and_si256(lanes, _mm256_set1_epi8(bits as i8)),
            _mm256_setzero_si256(),
        )
    }
}

/// 0xff where a byte of `lanes` is what the table has for the lower four bits of the same byte of `index`.
#[inline(always)]
fn own_in(lanes: __m256i, index: __m256i, by_low: &[u8; 16]) -> __m256i {
    // SAFETY: called only by those who hold an `Avx2`.
    unsafe { _mm256_cmpeq_epi8(lanes, _mm256_shuffle_epi8(table(by_low), index)) }
}

impl Lanes for Avx2 {
    type Loaded = Loaded;

    #[inline(always)]
    fn load(self, block: &Block) -> Loaded {
        let start: *const __m256i = block.as_ptr().cast();
        // SAFETY: both loads lie within the 64 bytes and ask for no alignment; `self` proves AVX2.
        unsafe { Loaded(_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1))) }
    }

    #[inline(always)]
    fn equal(self, block: Loaded, byte: u8) -> u64 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let byte = _mm256_set1_epi8(byte as i8);
            Loaded(_mm256_cmpeq_epi8(block.0, byte), _mm256_cmpeq_epi8(block.1, byte)).mask()
        }
    }

    #[inline(always)]
    fn unusual(self, block: Loaded) -> u64 {
        // As signed numbers, bytes of 0x80 and above are negative.
        // SAFETY: `self` proves AVX2.
        unsafe {
            let space = _mm256_set1_epi8(0x20);
            Loaded(_mm256_cmpgt_epi8(space, block.0), _mm256_cmpgt_epi8(space, block.1)).mask()
        }
    }

    #[inline(always)]
    fn non_ascii(self, block: Loaded) -> u64 {
        block.mask()
    }

    #[inline(always)]
    fn simple_escapes(self, block: Loaded) -> u64 {
        // One bit a row of the ASCII table: 1 for `" /`, 2 for `\`, 4 for `b f n`, 8 for `r t`.
        const BY_LOW: [u8; 16] = [0, 0, 13, 0, 8, 0, 4, 0, 0, 0, 0, 0, 2, 0, 4, 1];
        const BY_HIGH: [u8; 16] = [0, 0, 1, 0, 0, 2, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        let half0 = any_of(classes(block.0, &BY_LOW, &BY_HIGH), 15);
        let half1 = any_of(classes(block.1, &BY_LOW, &BY_HIGH), 15);
        Loaded(half0, half1).mask()
    }

    #[inline(always)]
    fn layout(self, block: Loaded) -> Layout {
        // Each blank and each operator has lower four bits of its own: what the table has for them is the byte or not.
        // With bit 5 set, `[` and `]` fall on `{` and `}`.
        const BLANKS: [u8; 16] = [
            b' ', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, b'\t', b'\n', 0xff, 0xff, b'\r', 0xff, 0xff,
        ];
        const OPERATORS: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b':', b'{', b',', b'}', 0, 0];
        let blanks = Loaded(own_in(block.0, block.0, &BLANKS), own_in(block.1, block.1, &BLANKS)).mask();
        // SAFETY: `self` proves AVX2.
        let folded = unsafe {
            let bit5 = _mm256_set1_epi8(0x20);
            Loaded(_mm256_or_si256(block.0, bit5), _mm256_or_si256(block.1, bit5))
        };
        let operators = Loaded(
            own_in(folded.0, block.0, &OPERATORS),
            own_in(folded.1, block.1, &OPERATORS),
        )
        .mask();
        Layout { blanks, operators }
    }

    #[inline(always)]
    fn hex(self, block: &Block) -> Hex {
        // SAFETY: `self` proves AVX2.
        unsafe { hex(self, block) }
    }

    #[inline(always)]
    fn prefix_xor(self, mask: u64) -> u64 {
        // Multiplying by all ones without carries adds, modulo two, every bit to all the bits above it.
        // SAFETY: `self` proves PCLMULQDQ, and SSE2 is part of x86-64.
        unsafe {
            let product = _mm_clmulepi64_si128::<0>(_mm_set_epi64x(0, mask as i64), _mm_set1_epi8(-1));
            _mm_cvtsi128_si64(product) as u64
        }
    }

    #[inline(always)]
    fn is_utf8(self, block: &Block, before: u32) -> bool {
        // SAFETY: `self` proves AVX2.
        unsafe { is_utf8(self, block, before) }
    }
}

#[target_feature(enable = "avx2")]
#[inline(never)]
fn hex(lanes: Avx2, block: &Block) -> Hex {
    // 1 for `0` to `7`, 2 for `8 9`, 4 for `a b`, 8 for `c` to `f`.
    const BY_LOW: [u8; 16] = [1, 5, 5, 9, 9, 9, 9, 1, 2, 2, 0, 0, 0, 0, 0, 0];
    const BY_HIGH: [u8; 16] = [0, 0, 0, 3, 12, 0, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let block = lanes.load(block);
    let classed = Loaded(classes(block.0, &BY_LOW, &BY_HIGH), classes(block.1, &BY_LOW, &BY_HIGH));
    Hex {
        digits: Loaded(any_of(classed.0, 15), any_of(classed.1, 15)).mask(),
        d: lanes.equal(block, b'd') | lanes.equal(block, b'D'),
        high: Loaded(any_of(classed.0, 6), any_of(classed.1, 6)).mask(),
        low: Loaded(any_of(classed.0, 8), any_of(classed.1, 8)).mask(),
    }
}

#[target_feature(enable = "avx2")]
#[inline(never)]
fn is_utf8(lanes: Avx2, block: &Block, before: u32) -> bool {
    let block = lanes.load(block);
    let before = _mm256_insert_epi32::<7>(_mm256_setzero_si256(), before as i32);
    let flaws = _mm256_or_si256(utf8_flaws(block.0, before), utf8_flaws(block.1, block.0));
    _mm256_testz_si256(flaws, flaws) != 0
}

/// The lookup algorithm of Keiser and Lemire: nonzero where `lanes`, which follow `before`, cannot be UTF-8.
///
/// Three shuffles classify each pair of neighbouring bytes by the kinds of error that it could be part of; a kind that all
/// three allow is an error. Whether a third or fourth byte must be a continuation is seen two or three bytes back.
#[inline(always)]
fn utf8_flaws(lanes: __m256i, before: __m256i) -> __m256i {
    // A lead or ASCII after a lead; a continuation after ASCII; overlong in 3, beyond U+10FFFF, surrogate, overlong in 2;
    // overlong in 4, which shares its bit with beyond U+13FFFF; and two continuations, which is well only in 3 and 4.
    const SHORT: u8 = 1;
    const LONG: u8 = 2;
    const OVER3: u8 = 4;
    const LARGE: u8 = 8;
    const SURROGATE: u8 = 16;
    const OVER2: u8 = 32;
    const OVER4: u8 = 64;
    const TWO: u8 = 128;
    const CARRY: u8 = SHORT | LONG | TWO;
    const FIRST_HIGH: [u8; 16] = [
        LONG,
        LONG,
        LONG,
        LONG,
        LONG,
        LONG,
        LONG,
        LONG,
        TWO,
        TWO,
        TWO,
        TWO,
        SHORT | OVER2,
        SHORT,
        SHORT | OVER3 | SURROGATE,
        SHORT | LARGE | OVER4,
    ];
    const FIRST_LOW: [u8; 16] = [
        CARRY | OVER3 | OVER2 | OVER4,
        CARRY | OVER2,
        CARRY,
        CARRY,
        CARRY | LARGE,
        CARRY | LARGE | OVER4,
        CARRY | LARGE | OVER4,
        CARRY | LARGE | OVER4,
        CARRY | LARGE | OVER4,
        CARRY | LARGE | OVER4,
        CARRY | LARGE | OVER4,
        CARRY | LARGE | OVER4,
        CARRY | LARGE | OVER4,
        CARRY | LARGE | OVER4 | SURROGATE,
        CARRY | LARGE | OVER4,
        CARRY | LARGE | OVER4,
    ];
    const SECOND_HIGH: [u8; 16] = [
        SHORT,
        SHORT,
        SHORT,
        SHORT,
        SHORT,
        SHORT,
        SHORT,
        SHORT,
        LONG | OVER2 | TWO | OVER3 | OVER4,
        LONG | OVER2 | TWO | OVER3 | LARGE,
        LONG | OVER2 | TWO | SURROGATE | LARGE,
        LONG | OVER2 | TWO | SURROGATE | LARGE,
        SHORT,
        SHORT,
        SHORT,
        SHORT,
    ];
    // SAFETY: called only by those who hold an `Avx2`.
    unsafe {
        let joint = _mm256_permute2x128_si256::<0x21>(before, lanes);
        let back1 = _mm256_alignr_epi8::<15>(lanes, joint);
        let back2 = _mm256_alignr_epi8::<14>(lanes, joint);
        let back3 = _mm256_alignr_epi8::<13>(lanes, joint);
        let low = _mm256_and_si256(back1, _mm256_set1_epi8(0x0f));
        let pairs = _mm256_and_si256(
            _mm256_and_si256(
                _mm256_shuffle_epi8(table(&FIRST_HIGH), high_nibbles(back1)),
                _mm256_shuffle_epi8(table(&FIRST_LOW), low),
            ),
            _mm256_shuffle_epi8(table(&SECOND_HIGH), high_nibbles(lanes)),
        );
        let third = _mm256_subs_epu8(back2, _mm256_set1_epi8(0xe0u8.wrapping_sub(0x80) as i8));
        let fourth = _mm256_subs_epu8(back3, _mm256_set1_epi8(0xf0u8.wrapping_sub(0x80) as i8));
        let continued = _mm256_and_si256(_mm256_or_si256(third, fourth), _mm256_set1_epi8(TWO as i8));
        _mm256_xor_si256(pairs, continued)
    }
}

//! The mask operations with AVX2, and the running parity with a carry-less multiplication.
//!
//! This file has no closures: the compiler would compile them without AVX2, and the intrinsics in them as function calls.

use std::arch::x86_64::*;

use super::masks::{Block, Simd, StructureMasks};

/// Proof that this processor has AVX2 and PCLMULQDQ. A value can only be obtained from [`Avx2::detect`].
#[derive(Clone, Copy)]
pub(in crate::scan) struct Avx2(());

impl Avx2 {
    /// Returns the proof if the processor has these instructions. The standard library caches the check.
    pub fn detect() -> Option<Self> {
        let present = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("pclmulqdq");
        present.then_some(Self(()))
    }
}

/// A block, or a value for each of its bytes, in two registers.
#[derive(Clone, Copy)]
pub(in crate::scan) struct LoadedBlock(__m256i, __m256i);

impl LoadedBlock {
    /// The top bit of each byte.
    #[inline(always)]
    fn mask(self) -> u64 {
        // SAFETY: a `LoadedBlock` is made only with an `Avx2`, which proves AVX2.
        let (low, high) = unsafe { (_mm256_movemask_epi8(self.0), _mm256_movemask_epi8(self.1)) };
        u64::from(low as u32) | u64::from(high as u32) << 32
    }
}

/// A table of sixteen bytes for `_mm256_shuffle_epi8`, which looks up in each half of the register separately.
#[inline(always)]
fn table(bytes: &[u8; 16]) -> __m256i {
    // SAFETY: the load reads the 16 bytes and needs no alignment; the caller has an `Avx2`, which proves AVX2.
    unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(bytes.as_ptr().cast())) }
}

/// The upper four bits of each byte.
#[inline(always)]
fn high_nibbles(bytes: __m256i) -> __m256i {
    // SAFETY: the caller has an `Avx2`, which proves AVX2.
    unsafe { _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), _mm256_set1_epi8(0x0f)) }
}

/// Classifies bytes, with one bit for each class: a byte is in the classes that the tables of both its lower and its upper
/// four bits contain. A byte of 0x80 or above is in no class, because a shuffle gives zero for an index with the top bit set.
#[inline(always)]
fn classes(bytes: __m256i, by_low: &[u8; 16], by_high: &[u8; 16]) -> __m256i {
    // SAFETY: the caller has an `Avx2`, which proves AVX2.
    unsafe {
        let low = _mm256_shuffle_epi8(table(by_low), bytes);
        _mm256_and_si256(low, _mm256_shuffle_epi8(table(by_high), high_nibbles(bytes)))
    }
}

/// 0xff for each byte of `bytes` that has one of the bits `bits`.
#[inline(always)]
fn any_of(bytes: __m256i, bits: u8) -> __m256i {
    // SAFETY: the caller has an `Avx2`, which proves AVX2.
    unsafe {
        _mm256_cmpgt_epi8(
            _mm256_and_si256(bytes, _mm256_set1_epi8(bits as i8)),
            _mm256_setzero_si256(),
        )
    }
}

/// 0xff for each byte of `bytes` that equals the table entry for the lower four bits of the same byte of `index`.
#[inline(always)]
fn equals_entry(bytes: __m256i, index: __m256i, by_low: &[u8; 16]) -> __m256i {
    // SAFETY: the caller has an `Avx2`, which proves AVX2.
    unsafe { _mm256_cmpeq_epi8(bytes, _mm256_shuffle_epi8(table(by_low), index)) }
}

impl Simd for Avx2 {
    type Loaded = LoadedBlock;

    #[inline(always)]
    fn load(self, block: &Block) -> LoadedBlock {
        let start: *const __m256i = block.as_ptr().cast();
        // SAFETY: both loads lie within the 64 bytes and need no alignment; `self` proves AVX2.
        unsafe { LoadedBlock(_mm256_loadu_si256(start), _mm256_loadu_si256(start.add(1))) }
    }

    #[inline(always)]
    fn equal(self, block: LoadedBlock, byte: u8) -> u64 {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let byte = _mm256_set1_epi8(byte as i8);
            LoadedBlock(_mm256_cmpeq_epi8(block.0, byte), _mm256_cmpeq_epi8(block.1, byte)).mask()
        }
    }

    #[inline(always)]
    fn any_equal_both(self, one: LoadedBlock, byte: u8, other: LoadedBlock, others: u8) -> bool {
        // SAFETY: `self` proves AVX2.
        unsafe {
            let (byte, others) = (_mm256_set1_epi8(byte as i8), _mm256_set1_epi8(others as i8));
            let low = _mm256_and_si256(_mm256_cmpeq_epi8(one.0, byte), _mm256_cmpeq_epi8(other.0, others));
            let high = _mm256_and_si256(_mm256_cmpeq_epi8(one.1, byte), _mm256_cmpeq_epi8(other.1, others));
            _mm256_movemask_epi8(_mm256_or_si256(low, high)) != 0
        }
    }

    #[inline(always)]
    fn unusual(self, block: LoadedBlock) -> u64 {
        // As signed numbers, bytes of 0x80 and above are negative.
        // SAFETY: `self` proves AVX2.
        unsafe {
            let space = _mm256_set1_epi8(0x20);
            LoadedBlock(_mm256_cmpgt_epi8(space, block.0), _mm256_cmpgt_epi8(space, block.1)).mask()
        }
    }

    #[inline(always)]
    fn non_ascii(self, block: LoadedBlock) -> u64 {
        block.mask()
    }

    #[inline(always)]
    fn simple_escapes(self, block: LoadedBlock) -> u64 {
        // One bit for each row of the ASCII table: 1 for `" /`, 2 for `\`, 4 for `b f n`, 8 for `r t`.
        const BY_LOW: [u8; 16] = [0, 0, 13, 0, 8, 0, 4, 0, 0, 0, 0, 0, 2, 0, 4, 1];
        const BY_HIGH: [u8; 16] = [0, 0, 1, 0, 0, 2, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0];
        let half0 = any_of(classes(block.0, &BY_LOW, &BY_HIGH), 15);
        let half1 = any_of(classes(block.1, &BY_LOW, &BY_HIGH), 15);
        LoadedBlock(half0, half1).mask()
    }

    #[inline(always)]
    fn structure(self, block: LoadedBlock) -> StructureMasks {
        // The lower four bits of each whitespace character, and of each operator, are unique. So the byte is one of them if it
        // equals the table entry for its lower four bits. Setting bit 5 turns `[` and `]` into `{` and `}`.
        const WHITESPACE: [u8; 16] = [
            b' ', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, b'\t', b'\n', 0xff, 0xff, b'\r', 0xff, 0xff,
        ];
        const OPERATORS: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b':', b'{', b',', b'}', 0, 0];
        let whitespace = LoadedBlock(
            equals_entry(block.0, block.0, &WHITESPACE),
            equals_entry(block.1, block.1, &WHITESPACE),
        )
        .mask();
        // SAFETY: `self` proves AVX2.
        let folded = unsafe {
            let bit5 = _mm256_set1_epi8(0x20);
            LoadedBlock(_mm256_or_si256(block.0, bit5), _mm256_or_si256(block.1, bit5))
        };
        let operators = LoadedBlock(
            equals_entry(folded.0, block.0, &OPERATORS),
            equals_entry(folded.1, block.1, &OPERATORS),
        )
        .mask();
        StructureMasks { whitespace, operators }
    }

    #[inline(always)]
    fn hex_digits(self, block: &Block) -> u64 {
        // SAFETY: `self` proves AVX2.
        unsafe { hex_digits(self, block) }
    }

    #[inline(always)]
    fn prefix_xor(self, mask: u64) -> u64 {
        // A multiplication by all ones without carries adds every bit to all higher bits, modulo two.
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
fn hex_digits(simd: Avx2, block: &Block) -> u64 {
    // 1 for `0` to `9`, 2 for `a` to `f`.
    const BY_LOW: [u8; 16] = [1, 3, 3, 3, 3, 3, 3, 1, 1, 1, 0, 0, 0, 0, 0, 0];
    const BY_HIGH: [u8; 16] = [0, 0, 0, 1, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let block = simd.load(block);
    let classed = LoadedBlock(classes(block.0, &BY_LOW, &BY_HIGH), classes(block.1, &BY_LOW, &BY_HIGH));
    LoadedBlock(any_of(classed.0, 3), any_of(classed.1, 3)).mask()
}

#[target_feature(enable = "avx2")]
#[inline(never)]
fn is_utf8(simd: Avx2, block: &Block, before: u32) -> bool {
    let block = simd.load(block);
    let before = _mm256_insert_epi32::<7>(_mm256_setzero_si256(), before as i32);
    let errors = _mm256_or_si256(utf8_errors(block.0, before), utf8_errors(block.1, block.0));
    _mm256_testz_si256(errors, errors) != 0
}

/// The kinds of UTF-8 errors and the tables that classify pairs of bytes.
#[rustfmt::skip]
mod utf8 {
    /// A leading byte is followed by a leading byte or ASCII.
    const TOO_SHORT: u8 = 1;
    /// ASCII is followed by a continuation byte.
    const TOO_LONG: u8 = 2;
    /// A sequence of three bytes is overlong.
    const OVERLONG_3: u8 = 4;
    /// A code point is above U+10FFFF.
    const TOO_LARGE: u8 = 8;
    /// A code point is a surrogate.
    const SURROGATE: u8 = 16;
    /// A sequence of two bytes is overlong.
    const OVERLONG_2: u8 = 32;
    /// A sequence of four bytes is overlong, or its code point is above U+13FFFF.
    const OVERLONG_4: u8 = 64;
    /// Two continuation bytes follow each other, which is allowed only in sequences of three and four bytes.
    pub const TWO_CONTINUATIONS: u8 = 128;
    /// The kinds that do not depend on the lower four bits of the first byte.
    const CARRY: u8 = TOO_SHORT | TOO_LONG | TWO_CONTINUATIONS;

    /// The possible errors by the upper four bits of the first byte.
    pub const FIRST_HIGH: [u8; 16] = [
        // 0 to 7: ASCII.
        TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG, TOO_LONG,
        // 8 to b: continuation bytes.
        TWO_CONTINUATIONS, TWO_CONTINUATIONS, TWO_CONTINUATIONS, TWO_CONTINUATIONS,
        // c to f: leading bytes of two, two, three and four bytes.
        TOO_SHORT | OVERLONG_2,
        TOO_SHORT,
        TOO_SHORT | OVERLONG_3 | SURROGATE,
        TOO_SHORT | TOO_LARGE | OVERLONG_4,
    ];
    const LARGE: u8 = CARRY | TOO_LARGE | OVERLONG_4;
    /// The possible errors by the lower four bits of the first byte.
    pub const FIRST_LOW: [u8; 16] = [
        CARRY | OVERLONG_3 | OVERLONG_2 | OVERLONG_4,
        CARRY | OVERLONG_2,
        CARRY, CARRY,
        CARRY | TOO_LARGE,
        LARGE, LARGE, LARGE, LARGE, LARGE, LARGE, LARGE, LARGE,
        LARGE | SURROGATE,
        LARGE, LARGE,
    ];
    const CONTINUATION: u8 = TOO_LONG | OVERLONG_2 | TWO_CONTINUATIONS;
    /// The possible errors by the upper four bits of the second byte.
    pub const SECOND_HIGH: [u8; 16] = [
        // 0 to 7: ASCII.
        TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT,
        // 8 to b: continuation bytes.
        CONTINUATION | OVERLONG_3 | OVERLONG_4,
        CONTINUATION | OVERLONG_3 | TOO_LARGE,
        CONTINUATION | SURROGATE | TOO_LARGE,
        CONTINUATION | SURROGATE | TOO_LARGE,
        // c to f: leading bytes.
        TOO_SHORT, TOO_SHORT, TOO_SHORT, TOO_SHORT,
    ];
}

/// The lookup algorithm of Keiser and Lemire (<https://arxiv.org/abs/2010.03090>): nonzero for each byte of `bytes`, which
/// follow `before`, at which the text is not UTF-8.
///
/// Three shuffles classify each pair of neighbouring bytes by the kinds of error that the pair can be part of. A kind that
/// all three tables contain is an error. Whether a third or fourth byte must be a continuation byte is decided by the bytes
/// two and three positions before it.
#[inline(always)]
fn utf8_errors(bytes: __m256i, before: __m256i) -> __m256i {
    // SAFETY: the caller has an `Avx2`, which proves AVX2.
    unsafe {
        let joint = _mm256_permute2x128_si256::<0x21>(before, bytes);
        let back1 = _mm256_alignr_epi8::<15>(bytes, joint);
        let back2 = _mm256_alignr_epi8::<14>(bytes, joint);
        let back3 = _mm256_alignr_epi8::<13>(bytes, joint);
        let low = _mm256_and_si256(back1, _mm256_set1_epi8(0x0f));
        let pairs = _mm256_and_si256(
            _mm256_and_si256(
                _mm256_shuffle_epi8(table(&utf8::FIRST_HIGH), high_nibbles(back1)),
                _mm256_shuffle_epi8(table(&utf8::FIRST_LOW), low),
            ),
            _mm256_shuffle_epi8(table(&utf8::SECOND_HIGH), high_nibbles(bytes)),
        );
        let third = _mm256_subs_epu8(back2, _mm256_set1_epi8(0xe0u8.wrapping_sub(0x80) as i8));
        let fourth = _mm256_subs_epu8(back3, _mm256_set1_epi8(0xf0u8.wrapping_sub(0x80) as i8));
        let continued = _mm256_and_si256(
            _mm256_or_si256(third, fourth),
            _mm256_set1_epi8(utf8::TWO_CONTINUATIONS as i8),
        );
        _mm256_xor_si256(pairs, continued)
    }
}

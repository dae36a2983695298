//! The mask operations for every processor.

use super::{
    masks::{Block, Simd, StructureMasks},
    utf8::find_invalid_utf8,
};

/// The mask operations without intrinsics. The compiler turns the loops into the vector instructions that every processor
/// of the target has.
#[derive(Clone, Copy)]
pub(in crate::scan) struct Portable;

/// The bytes for which `test` is true.
#[inline(always)]
fn bytes_that(block: &Block, test: impl Fn(u8) -> bool) -> u64 {
    let passed: [u8; 64] = std::array::from_fn(|index| u8::from(test(block[index])));
    let mut mask = 0;
    for (index, word) in passed.as_chunks::<8>().0.iter().enumerate() {
        // Each of the eight bytes is 0 or 1. The multiplication moves them next to each other into the top byte.
        let bits = u64::from_le_bytes(*word).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask |= bits << (8 * index);
    }
    mask
}

impl Simd for Portable {
    type Loaded = Block;

    #[inline(always)]
    fn load(self, block: &Block) -> Block {
        *block
    }

    #[inline(always)]
    fn equal(self, block: Block, wanted: u8) -> u64 {
        bytes_that(&block, |byte| byte == wanted)
    }

    #[inline(always)]
    fn unusual(self, block: Block) -> u64 {
        bytes_that(&block, |byte| (byte as i8) < 0x20)
    }

    #[inline(always)]
    fn non_ascii(self, block: Block) -> u64 {
        bytes_that(&block, |byte| byte >= 0x80)
    }

    #[inline(always)]
    fn simple_escapes(self, block: Block) -> u64 {
        bytes_that(&block, |byte| {
            matches!(byte, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')
        })
    }

    #[inline(always)]
    fn structure(self, block: Block) -> StructureMasks {
        StructureMasks {
            whitespace: bytes_that(&block, |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')),
            operators: bytes_that(&block, |byte| matches!(byte, b'{' | b'}' | b'[' | b']' | b':' | b',')),
        }
    }

    fn hex_digits(self, block: &Block) -> u64 {
        bytes_that(block, |byte| byte.is_ascii_hexdigit())
    }

    #[inline(always)]
    fn prefix_xor(self, mut mask: u64) -> u64 {
        for shift in [1, 2, 4, 8, 16, 32] {
            mask ^= mask << shift;
        }
        mask
    }

    fn is_utf8(self, block: &Block, before: u32) -> bool {
        find_invalid_utf8(block, before).is_none()
    }
}

//! Sixty-four bytes at a time, as masks with one bit a byte: bit 0 is the first byte.

#[cfg(target_arch = "x86_64")]
mod avx2;

#[cfg(target_arch = "x86_64")]
pub(in crate::scan) use avx2::Avx2;

/// What the lexer looks at in one step.
pub(in crate::scan) type Block = [u8; 64];

/// Which bytes stand between other things outside strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scan) struct Layout {
    /// Space, tab, line feed, carriage return.
    pub blanks: u64,
    /// `{ } [ ] : ,`, and possibly control characters, which are none.
    pub operators: u64,
}

/// Which bytes are which hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scan) struct Hex {
    /// Any.
    pub digits: u64,
    /// `d`, the first digit of a surrogate.
    pub d: u64,
    /// `8 9 a b`, the second digit of a high surrogate.
    pub high: u64,
    /// `c d e f`, the second digit of a low surrogate.
    pub low: u64,
}

/// A way to make masks: with vector instructions, or without.
pub(in crate::scan) trait Lanes: Copy {
    /// A block in registers.
    type Loaded: Copy;
    /// Loads a block.
    fn load(self, block: &Block) -> Self::Loaded;
    /// The bytes equal to `byte`.
    fn equal(self, block: Self::Loaded, byte: u8) -> u64;
    /// The bytes below 0x20, and those that [`Lanes::non_ascii`] gives.
    fn unusual(self, block: Self::Loaded) -> u64;
    /// The bytes of 0x80 and above.
    fn non_ascii(self, block: Self::Loaded) -> u64;
    /// The bytes that may follow a backslash in a string, but `u`.
    fn simple_escapes(self, block: Self::Loaded) -> u64;
    /// Blanks and operators.
    fn layout(self, block: Self::Loaded) -> Layout;
    /// Hexadecimal digits. Seldom needed, so kept out of the loop, with registers of its own.
    fn hex(self, block: &Block) -> Hex;
    /// Each bit is the parity of the bits of `mask` up to and including it.
    fn prefix_xor(self, mask: u64) -> u64;
    /// Whether `block` goes on as UTF-8 after `before`, the four bytes that precede it, the last one highest. A sequence
    /// that the block does not finish is left to the next block.
    fn is_utf8(self, block: &Block, before: u32) -> bool;
}

/// Masks without intrinsics, in loops that compilers turn into whatever vector instructions every processor of the target
/// has.
#[derive(Clone, Copy)]
pub(in crate::scan) struct Portable;

/// The bytes that pass `test`.
#[inline(always)]
fn bytes_that(block: &Block, test: impl Fn(u8) -> bool) -> u64 {
    let passed: [u8; 64] = std::array::from_fn(|lane| u8::from(test(block[lane])));
    let mut mask = 0;
    for (index, word) in passed.as_chunks::<8>().0.iter().enumerate() {
        // Each of the eight bytes is 0 or 1; the product has them side by side in its top byte.
        let bits = u64::from_le_bytes(*word).wrapping_mul(0x0102_0408_1020_4080) >> 56;
        mask |= bits << (8 * index);
    }
    mask
}

impl Lanes for Portable {
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
    fn layout(self, block: Block) -> Layout {
        Layout {
            blanks: bytes_that(&block, |byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')),
            operators: bytes_that(&block, |byte| matches!(byte, b'{' | b'}' | b'[' | b']' | b':' | b',')),
        }
    }

    fn hex(self, block: &Block) -> Hex {
        Hex {
            digits: bytes_that(block, |byte| byte.is_ascii_hexdigit()),
            d: bytes_that(block, |byte| matches!(byte, b'd' | b'D')),
            high: bytes_that(block, |byte| matches!(byte, b'8' | b'9' | b'a' | b'b' | b'A' | b'B')),
            low: bytes_that(block, |byte| matches!(byte, b'c'..=b'f' | b'C'..=b'F')),
        }
    }

    #[inline(always)]
    fn prefix_xor(self, mut mask: u64) -> u64 {
        for shift in [1, 2, 4, 8, 16, 32] {
            mask ^= mask << shift;
        }
        mask
    }

    fn is_utf8(self, block: &Block, before: u32) -> bool {
        utf8_flaw(block, before).is_none()
    }
}

/// Where `block` stops to be UTF-8 after `before`, the four bytes that precede it: the index at which the broken sequence
/// begins, negative where that is before the block. A lead in the block's last byte is left to the next block, whatever
/// it is, because vectors look at pairs.
pub(in crate::scan) fn utf8_flaw(block: &Block, before: u32) -> Option<isize> {
    let before = before.to_le_bytes();
    let open = (1..=3)
        .find(|back| before[4 - back] >= 0xc0)
        .filter(|back| *back < sequence_length(before[4 - back]))
        .unwrap_or(0);
    let mut bytes = [0; 67];
    bytes[..open].copy_from_slice(&before[4 - open..]);
    bytes[open..open + 64].copy_from_slice(block);
    let error = std::str::from_utf8(&bytes[..open + 64]).err()?;
    error.error_len()?;
    let begin = error.valid_up_to() as isize - open as isize;
    (begin < 63 || block[63] < 0xc0).then_some(begin)
}

/// How many bytes the UTF-8 sequence that `lead` begins has.
fn sequence_length(lead: u8) -> usize {
    match lead {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slowly(block: &Block, test: impl Fn(u8) -> bool) -> u64 {
        (0..64).filter(|lane| test(block[*lane])).map(|lane| 1 << lane).sum()
    }

    /// Checks one kind of lanes against tests of single bytes.
    fn check(lanes: impl Lanes, block: &Block) {
        let loaded = lanes.load(block);
        for byte in [b'"', b'\\', b'u', 0, 0x80, 0xff] {
            assert_eq!(lanes.equal(loaded, byte), slowly(block, |b| b == byte));
        }
        assert_eq!(lanes.unusual(loaded), slowly(block, |b| !(0x20..0x80).contains(&b)));
        assert_eq!(lanes.non_ascii(loaded), slowly(block, |b| b >= 0x80));
        assert_eq!(
            lanes.simple_escapes(loaded),
            slowly(block, |b| b"\"\\/bfnrt".contains(&b))
        );
        let layout = lanes.layout(loaded);
        assert_eq!(layout.blanks, slowly(block, |b| b" \t\n\r".contains(&b)));
        let printable = slowly(block, |b| b >= 0x20);
        assert_eq!(layout.operators & printable, slowly(block, |b| b"{}[]:,".contains(&b)));
        assert_eq!(lanes.hex(block), Portable.hex(block));
    }

    fn check_all(block: &Block) {
        check(Portable, block);
        #[cfg(target_arch = "x86_64")]
        if let Some(lanes) = Avx2::detect() {
            check(lanes, block);
        }
    }

    #[test]
    fn masks_are_right_for_every_byte_in_every_lane() {
        for byte in 0..=255u8 {
            check_all(&[byte; 64]);
            check_all(&std::array::from_fn(|lane| byte.wrapping_add(lane as u8)));
        }
    }

    #[test]
    fn hexadecimal_digits_are_classed_for_surrogates() {
        for byte in 0..=255u8 {
            let hex = Portable.hex(&[byte; 64]);
            let value = (byte as char).to_digit(16);
            assert_eq!(hex.digits & 1 == 1, value.is_some());
            assert_eq!(hex.d & 1 == 1, value == Some(0xd));
            assert_eq!(hex.high & 1 == 1, value.is_some_and(|v| (0x8..0xc).contains(&v)));
            assert_eq!(hex.low & 1 == 1, value.is_some_and(|v| v >= 0xc));
        }
    }

    /// Bytes that make and break UTF-8 sequences far more often than chance would.
    fn tricky() -> impl Strategy<Value = u8> {
        prop::sample::select(vec![
            b'a', 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef,
            0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff,
        ])
    }

    /// Valid text of all sequence lengths with at most one byte exchanged.
    fn nearly_text() -> impl Strategy<Value = Vec<u8>> {
        let text = prop::collection::vec(
            prop::sample::select(vec!['a', 'é', '漢', '😀', '\u{7ff}', '\u{ffff}']),
            64,
        );
        (text, 0usize..128, prop::option::of(tricky())).prop_map(|(text, at, byte)| {
            let mut bytes = text.into_iter().collect::<String>().into_bytes();
            if let (Some(byte), Some(place)) = (byte, bytes.get_mut(at)) {
                *place = byte;
            }
            bytes
        })
    }

    /// Where `std` finds `bytes` broken, if not merely unfinished or at a lead in the last byte.
    fn broken(bytes: &[u8]) -> Option<usize> {
        let error = std::str::from_utf8(bytes).err()?;
        let last_lead = error.valid_up_to() + 1 == bytes.len() && bytes.last().is_some_and(|byte| *byte >= 0xc0);
        (error.error_len().is_some() && !last_lead).then_some(error.valid_up_to())
    }

    /// Checks two blocks in a row against `std`.
    fn check_utf8(lanes: impl Lanes, bytes: &[u8; 128]) {
        let (first, second) = (bytes[..64].try_into().unwrap(), bytes[64..].try_into().unwrap());
        assert_eq!(lanes.is_utf8(&first, 0), broken(&first).is_none());
        if broken(&first).is_none() {
            let before = u32::from_le_bytes(bytes[60..64].try_into().unwrap());
            assert_eq!(lanes.is_utf8(&second, before), broken(bytes).is_none());
            let flaw = utf8_flaw(&second, before).map(|begin| begin + 64);
            assert_eq!(flaw, broken(bytes).map(|begin| begin as isize));
        }
    }

    proptest! {
        #[test]
        fn masks_agree_on_random_blocks(block in prop::array::uniform32(any::<[u8; 2]>())) {
            check_all(block.as_flattened().try_into().unwrap());
        }

        #[test]
        fn utf8_agrees_with_std(mut bytes in prop_oneof![
            nearly_text(), prop::collection::vec(tricky(), 128), prop::collection::vec(prop_oneof![9 => Just(b'a'), 1 => tricky()], 128),
        ]) {
            bytes.resize(128, b'a');
            let bytes: [u8; 128] = bytes.try_into().unwrap();
            check_utf8(Portable, &bytes);
            #[cfg(target_arch = "x86_64")]
            if let Some(lanes) = Avx2::detect() {
                check_utf8(lanes, &bytes);
            }
        }

        #[test]
        fn prefix_xor_is_a_running_parity(mask: u64) {
            let expected = (0..64).fold(0u64, |all, bit| {
                let below = mask & (u64::MAX >> (63 - bit));
                all | u64::from(below.count_ones() % 2) << bit
            });
            prop_assert_eq!(Portable.prefix_xor(mask), expected);
            #[cfg(target_arch = "x86_64")]
            if let Some(lanes) = Avx2::detect() {
                prop_assert_eq!(lanes.prefix_xor(mask), expected);
            }
        }
    }
}

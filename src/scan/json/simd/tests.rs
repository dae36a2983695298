//! The mask operations, compared with checks of single bytes.

use proptest::prelude::*;

use super::{masks::Block, masks::Simd, portable::Portable, utf8::find_invalid_utf8};

#[cfg(target_arch = "x86_64")]
use super::avx2::Avx2;

fn mask_of(block: &Block, test: impl Fn(u8) -> bool) -> u64 {
    (0..64)
        .filter(|index| test(block[*index]))
        .map(|index| 1 << index)
        .sum()
}

/// Compares one implementation with checks of single bytes.
fn check(simd: impl Simd, block: &Block) {
    let loaded = simd.load(block);
    for byte in [b'"', b'\\', b'u', 0, 0x80, 0xff] {
        assert_eq!(simd.equal(loaded, byte), mask_of(block, |b| b == byte));
    }
    assert_eq!(simd.unusual(loaded), mask_of(block, |b| !(0x20..0x80).contains(&b)));
    assert_eq!(simd.non_ascii(loaded), mask_of(block, |b| b >= 0x80));
    assert_eq!(
        simd.simple_escapes(loaded),
        mask_of(block, |b| b"\"\\/bfnrt".contains(&b))
    );
    let structure = simd.structure(loaded);
    assert_eq!(structure.whitespace, mask_of(block, |b| b" \t\n\r".contains(&b)));
    let printable = mask_of(block, |b| b >= 0x20);
    assert_eq!(
        structure.operators & printable,
        mask_of(block, |b| b"{}[]:,".contains(&b))
    );
    assert_eq!(simd.hex_digits(block), Portable.hex_digits(block));
}

fn check_all(block: &Block) {
    check(Portable, block);
    #[cfg(target_arch = "x86_64")]
    if let Some(simd) = Avx2::detect() {
        check(simd, block);
    }
}

#[test]
fn masks_are_correct_for_every_byte_at_every_position() {
    for byte in 0..=255u8 {
        check_all(&[byte; 64]);
        check_all(&std::array::from_fn(|index| byte.wrapping_add(index as u8)));
    }
}

#[test]
fn hexadecimal_digits_are_found() {
    for byte in 0..=255 {
        let is_digit = char::from(byte).is_ascii_hexdigit();
        assert_eq!(Portable.hex_digits(&[byte; 64]), if is_digit { u64::MAX } else { 0 });
    }
}

/// Bytes that form valid and invalid UTF-8 sequences far more often than random bytes.
fn utf8_byte() -> impl Strategy<Value = u8> {
    prop::sample::select(vec![
        b'a', 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef,
        0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff,
    ])
}

/// Valid text with sequences of all lengths, of which at most one byte is replaced.
fn nearly_valid_text() -> impl Strategy<Value = Vec<u8>> {
    let text = prop::collection::vec(
        prop::sample::select(vec!['a', 'é', '漢', '😀', '\u{7ff}', '\u{ffff}']),
        64,
    );
    (text, 0usize..128, prop::option::of(utf8_byte())).prop_map(|(text, at, byte)| {
        let mut bytes = text.into_iter().collect::<String>().into_bytes();
        if let (Some(byte), Some(place)) = (byte, bytes.get_mut(at)) {
            *place = byte;
        }
        bytes
    })
}

/// The index of the first invalid sequence according to `std`. Unfinished sequences and a leading byte at the end do not count.
fn invalid_at(bytes: &[u8]) -> Option<usize> {
    let error = std::str::from_utf8(bytes).err()?;
    let last_lead = error.valid_up_to() + 1 == bytes.len() && bytes.last().is_some_and(|byte| *byte >= 0xc0);
    (error.error_len().is_some() && !last_lead).then_some(error.valid_up_to())
}

/// Checks two consecutive blocks against `std`.
fn check_utf8(simd: impl Simd, bytes: &[u8; 128]) {
    let (first, second) = (bytes[..64].try_into().unwrap(), bytes[64..].try_into().unwrap());
    assert_eq!(simd.is_utf8(&first, 0), invalid_at(&first).is_none());
    if invalid_at(&first).is_none() {
        let before = u32::from_le_bytes(bytes[60..64].try_into().unwrap());
        assert_eq!(simd.is_utf8(&second, before), invalid_at(bytes).is_none());
        let found = find_invalid_utf8(&second, before).map(|begin| begin + 64);
        assert_eq!(found, invalid_at(bytes).map(|begin| begin as isize));
    }
}

proptest! {
    #[test]
    fn masks_are_correct_for_random_blocks(block in prop::array::uniform32(any::<[u8; 2]>())) {
        check_all(block.as_flattened().try_into().unwrap());
    }

    #[test]
    fn utf8_validation_agrees_with_std(mut bytes in prop_oneof![
        nearly_valid_text(), prop::collection::vec(utf8_byte(), 128), prop::collection::vec(prop_oneof![9 => Just(b'a'), 1 => utf8_byte()], 128),
    ]) {
        bytes.resize(128, b'a');
        let bytes: [u8; 128] = bytes.try_into().unwrap();
        check_utf8(Portable, &bytes);
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = Avx2::detect() {
            check_utf8(simd, &bytes);
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
        if let Some(simd) = Avx2::detect() {
            prop_assert_eq!(simd.prefix_xor(mask), expected);
        }
    }
}

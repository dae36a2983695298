//! Hashing and arithmetic for picking an upstream, with the same result on every platform. Replicas and releases rely
//! on the results: the same input gives the same bits, so no session moves with an upgrade.

/// A key, prepared for hashing with many ids.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    key: u64,
    factor: u64,
}

impl Key {
    pub(super) fn new(key: u64) -> Self {
        // Any constant with about as many ones as zeros works; this is 2^64 / φ.
        Self {
            key,
            factor: key.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Returns the hash of the key and an id. Both are XXH3 hashes, so their bits are spread already.
    ///
    /// This is one full multiplication, folded, as in wyhash and rapidhash. Every bit of either half of the product
    /// depends on many bits of both factors, and both factors depend on the key, so two ids have no relation that
    /// holds over all keys.
    #[inline(always)]
    pub(super) fn hash(self, id: u64) -> u64 {
        let product = u128::from(self.key ^ id) * u128::from(self.factor);
        (product as u64) ^ (product >> 64) as u64
    }
}

/// Returns a uniform number in `0..bound` from 64 random bits (Lemire 2019, without the rejection step: the bias is
/// below `bound` / 2^64). Returns zero if `bound` is zero.
#[inline]
pub(super) fn below(bound: u64, random: u64) -> u64 {
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

/// Maps a hash to a number strictly between 0 and 1, in steps of 2^-52. Both the number and its complement are exact.
#[inline]
pub(super) fn unit(hash: u64) -> f64 {
    const STEP: f64 = 1.0 / (1u64 << 52) as f64;
    ((hash >> 12) as f64 + 0.5) * STEP
}

/// Returns the natural logarithm of a positive normal number, within one unit in the last place.
///
/// This is fdlibm's `log` (Sun Microsystems 1993). `f64::ln` may differ between platforms and compiler releases;
/// additions, multiplications and divisions may not.
pub(super) fn ln(x: f64) -> f64 {
    const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
    const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;
    const SERIES: [f64; 7] = [
        6.666_666_666_666_735e-1,
        3.999_999_999_940_942e-1,
        2.857_142_874_366_239e-1,
        2.222_219_843_214_978_4e-1,
        1.818_357_216_161_805e-1,
        1.531_383_769_920_937_3e-1,
        1.479_819_860_511_658_6e-1,
    ];
    const ONE: u64 = 0x3ff0_0000_0000_0000;
    const SQRT_HALF: u64 = 0x3fe6_a09e_0000_0000;

    // x = 2^k (1 + f), where 1 + f lies between √½ and √2.
    let shifted = x.to_bits().wrapping_add(ONE - SQRT_HALF);
    let k = ((shifted >> 52) as i64 - 1023) as f64;
    let f = f64::from_bits((shifted & ((1 << 52) - 1)) + SQRT_HALF) - 1.0;

    // ln(1 + f) = 2 artanh(f / (2 + f)), by a minimax polynomial in the argument's square.
    let half_square = 0.5 * f * f;
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let [l1, l2, l3, l4, l5, l6, l7] = SERIES;
    let even = w * (l2 + w * (l4 + w * l6));
    let odd = z * (l1 + w * (l3 + w * (l5 + w * l7)));
    s * (half_square + (even + odd)) + k * LN2_LOW - half_square + f + k * LN2_HIGH
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::UpstreamId;

    #[test]
    fn the_extreme_hashes_map_inside_the_unit_interval() {
        assert!(unit(0) > 0.0 && unit(u64::MAX) < 1.0);
        assert_eq!(1.0 - (1.0 - unit(u64::MAX)), unit(u64::MAX));
        assert!(ln(unit(0)).is_finite() && ln(unit(u64::MAX)) < 0.0);
    }

    #[test]
    fn ln_returns_the_same_bits_in_every_release() {
        assert_eq!(ln(0.5).to_bits(), (-std::f64::consts::LN_2).to_bits());
        assert_eq!(ln(1.0).to_bits(), 0);
        assert_eq!(ln(unit(0)).to_bits(), 13853739099206662138);
        assert_eq!(ln(unit(0x0123_4567_89ab_cdef)).to_bits(), 13841156042220455988);
        assert_eq!(ln(unit(u64::MAX)).to_bits(), 13591863675404156928);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn ln_agrees_with_std(hash in any::<u64>(), shift in 0u32..50) {
            // The hash is shifted both ways, so that numbers next to 0 and next to 1 are as likely as others.
            for x in [unit(hash), unit(hash >> shift), unit(!(hash >> shift))] {
                let (actual, expected) = (ln(x), x.ln());
                prop_assert!((actual - expected).abs() <= expected.abs() * 2.0 * f64::EPSILON, "{x}: {actual} {expected}");
            }
        }

        #[test]
        fn ln_is_monotonic(hash in any::<u64>(), shift in 0u32..50) {
            for hash in [hash, hash >> shift, !(hash >> shift)] {
                let hash = hash.min(u64::MAX - 4096);
                prop_assert!(ln(unit(hash)) <= ln(unit(hash + 4096)));
            }
        }

        #[test]
        fn below_stays_below(bound in 1u64.., random in any::<u64>()) {
            prop_assert!(below(bound, random) < bound);
        }
    }

    #[test]
    fn every_input_bit_changes_half_of_the_output_bits() {
        // Flipping one bit of the key or of the id flips each output bit about half of the time.
        const INPUTS: usize = 4_000;
        let input = |n: usize| UpstreamId::from_name(&n.to_string()).as_u64();
        for bit in 0..64 {
            let mut flips = [[0u32; 64]; 2];
            for n in 0..INPUTS {
                let (key, id) = (input(n), input(n + INPUTS));
                let hash = Key::new(key).hash(id);
                for (other, flips) in [Key::new(key ^ 1 << bit).hash(id), Key::new(key).hash(id ^ 1 << bit)]
                    .iter()
                    .zip(&mut flips)
                {
                    flips
                        .iter_mut()
                        .enumerate()
                        .for_each(|(at, flip)| *flip += ((hash ^ other) >> at & 1) as u32);
                }
            }
            for (at, flip) in flips.as_flattened().iter().enumerate() {
                let share = f64::from(*flip) / INPUTS as f64;
                assert!((0.3..0.7).contains(&share), "input bit {bit}, output bit {at}: {share}");
            }
        }
    }
}

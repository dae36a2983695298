//! The logarithm of a time, of which averages are taken.

use std::time::Duration;

/// The fractional bits of a [`LogTime`].
const FRACTION: u32 = 10;

/// The binary logarithm of a time in microseconds, in units of 1/1024. It is less than 2^16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogTime(u32);

impl LogTime {
    /// The logarithm as a number, in units of 1/1024.
    pub(super) const fn bits(self) -> u32 {
        self.0
    }

    /// The logarithm that [`LogTime::bits`] returned as `bits`, or an average of such numbers.
    pub(super) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// The logarithm of `time`. Between two powers of two it is interpolated linearly, which is cheap, and wrong by
    /// at most 6 % of the time.
    pub fn of(time: Duration) -> Self {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        let exponent = micros.ilog2();
        // The bits below the highest one, as a fraction.
        let fraction = (u128::from(micros) << FRACTION >> exponent) as u32 - (1 << FRACTION);
        Self((exponent << FRACTION) + fraction)
    }

    /// The time of this logarithm. It inverts the interpolation of [`LogTime::of`].
    pub fn time(self) -> Duration {
        let (exponent, fraction) = (self.0 >> FRACTION, self.0 & ((1 << FRACTION) - 1));
        let micros = (u128::from((1 << FRACTION) + fraction) << exponent) >> FRACTION;
        Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

//! Reads numbers and literals, and can be resumed at any byte.

use super::error::JsonErrorKind;

/// A number or literal that has begun and has not ended yet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scalar {
    /// `true`, `false` or `null`: the part that has not been read yet.
    Literal(&'static [u8]),
    /// A number.
    Number(Number),
}

impl Scalar {
    /// The scalar that the byte `first` begins, or `None` if `first` begins none. `first` itself has not been read yet.
    pub fn beginning_with(first: u8) -> Option<Self> {
        Some(match first {
            b't' => Self::Literal(b"true"),
            b'f' => Self::Literal(b"false"),
            b'n' => Self::Literal(b"null"),
            b'-' | b'0'..=b'9' => Self::Number(Number::default()),
            _ => return None,
        })
    }

    /// The length of the scalar at the beginning of `bytes` if it is a common one: a literal, or an integer of up to 18 digits
    /// without a sign, directly followed by `,`, `}` or `]`. This is the fast path of [`Scalar::read`].
    pub fn common_length(bytes: &[u8]) -> Option<usize> {
        let length = match bytes.first()? {
            b't' if bytes.starts_with(b"true") => 4,
            b'f' if bytes.starts_with(b"false") => 5,
            b'n' if bytes.starts_with(b"null") => 4,
            b'0' => 1,
            b'1'..=b'9' => bytes.iter().take(18).take_while(|byte| byte.is_ascii_digit()).count(),
            _ => return None,
        };
        matches!(bytes.get(length)?, b',' | b'}' | b']').then_some(length)
    }

    /// Continues with `bytes`. Returns how many of them belong to the scalar, or `None` if all of them do and more may follow.
    ///
    /// # Errors
    ///
    /// The kind of error, and the index of the byte at which it is detected.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, (JsonErrorKind, usize)> {
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(
                byte,
                b' ' | b'\t' | b'\n' | b'\r' | b',' | b'}' | b']' | b':' | b'"' | b'{' | b'['
            ) {
                return match self.check() {
                    Ok(()) => Ok(Some(index)),
                    Err(kind) => Err((kind, index)),
                };
            }
            match self {
                Self::Literal(rest) => match rest.split_first() {
                    Some((expected, after)) if expected == byte => *rest = after,
                    _ => return Err((JsonErrorKind::InvalidLiteral, index)),
                },
                Self::Number(number) => number.push(*byte).ok_or((JsonErrorKind::InvalidNumber, index))?,
            }
        }
        Ok(None)
    }

    /// Checks that the scalar is complete.
    fn check(&self) -> Result<(), JsonErrorKind> {
        match self {
            Self::Literal([]) => Ok(()),
            Self::Literal(_) => Err(JsonErrorKind::InvalidLiteral),
            Self::Number(number) => number.check(),
        }
    }
}

/// The part of a number, by the grammar of RFC 8259 §6, that was read last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum NumberPart {
    #[default]
    Start,
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

/// A number as far as it has been read: its last part, and its magnitude as a 64-bit integer times a power of ten.
///
/// The magnitude decides whether a double can hold the number. It is computed exactly as serde_json does, so that both
/// agree on every number near the largest double.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Number {
    part: NumberPart,
    /// The digits before the exponent, as far as they fit.
    significand: u64,
    /// The power of ten by which the significand is multiplied, without the exponent.
    scale: i32,
    /// An integer digit did not fit into the significand.
    integer_overflow: bool,
    /// A fraction digit did not fit into the significand.
    fraction_overflow: bool,
    /// The absolute value of the written exponent.
    exponent: i32,
    /// Whether the written exponent is negative.
    exponent_negative: bool,
    /// The written exponent does not fit into an `i32`.
    exponent_overflow: bool,
}

impl Number {
    /// Adds a byte. Returns `None` if the byte is not allowed here.
    fn push(&mut self, byte: u8) -> Option<()> {
        self.part = match (self.part, byte) {
            (NumberPart::Start, b'-') => NumberPart::Minus,
            (NumberPart::Start | NumberPart::Minus, b'0') => NumberPart::Zero,
            (NumberPart::Start | NumberPart::Minus | NumberPart::Integer, b'0'..=b'9') => {
                self.integer_digit(byte - b'0');
                NumberPart::Integer
            }
            (NumberPart::Zero | NumberPart::Integer, b'.') => NumberPart::Point,
            (NumberPart::Point | NumberPart::Fraction, b'0'..=b'9') => {
                self.fraction_digit(byte - b'0');
                NumberPart::Fraction
            }
            (NumberPart::Zero | NumberPart::Integer | NumberPart::Fraction, b'e' | b'E') => NumberPart::E,
            (NumberPart::E, b'+') => NumberPart::Sign,
            (NumberPart::E, b'-') => {
                self.exponent_negative = true;
                NumberPart::Sign
            }
            (NumberPart::E | NumberPart::Sign | NumberPart::Exponent, b'0'..=b'9') => {
                self.exponent_digit(byte - b'0');
                NumberPart::Exponent
            }
            _ => return None,
        };
        Some(())
    }

    fn integer_digit(&mut self, digit: u8) {
        match self.with_digit(digit).filter(|_| !self.integer_overflow) {
            Some(significand) => self.significand = significand,
            None => {
                self.integer_overflow = true;
                self.scale = self.scale.saturating_add(1);
            }
        }
    }

    fn fraction_digit(&mut self, digit: u8) {
        match self.with_digit(digit).filter(|_| !self.fraction_overflow) {
            Some(significand) => {
                self.significand = significand;
                self.scale = self.scale.saturating_sub(1);
            }
            None => self.fraction_overflow = true,
        }
    }

    fn exponent_digit(&mut self, digit: u8) {
        let exponent = self
            .exponent
            .checked_mul(10)
            .and_then(|e| e.checked_add(i32::from(digit)));
        match exponent {
            Some(exponent) => self.exponent = exponent,
            None => self.exponent_overflow = true,
        }
    }

    /// The significand with `digit` appended, or `None` if it does not fit.
    fn with_digit(&self, digit: u8) -> Option<u64> {
        self.significand.checked_mul(10)?.checked_add(u64::from(digit))
    }

    /// Checks that the number is complete and in range.
    fn check(&self) -> Result<(), JsonErrorKind> {
        match self.part {
            NumberPart::Start | NumberPart::Minus | NumberPart::Point | NumberPart::E | NumberPart::Sign => {
                Err(JsonErrorKind::InvalidNumber)
            }
            NumberPart::Zero | NumberPart::Integer | NumberPart::Fraction | NumberPart::Exponent if self.fits() => {
                Ok(())
            }
            NumberPart::Zero | NumberPart::Integer | NumberPart::Fraction | NumberPart::Exponent => {
                Err(JsonErrorKind::NumberOutOfRange)
            }
        }
    }

    /// Whether the number is in the range of a finite double.
    fn fits(&self) -> bool {
        if self.significand == 0 {
            return true;
        }
        if self.exponent_overflow {
            return self.exponent_negative;
        }
        let exponent = if self.exponent_negative {
            self.scale.saturating_sub(self.exponent)
        } else {
            self.scale.saturating_add(self.exponent)
        };
        const POWERS: [f64; 20] = [
            1e289, 1e290, 1e291, 1e292, 1e293, 1e294, 1e295, 1e296, 1e297, 1e298, 1e299, 1e300, 1e301, 1e302, 1e303,
            1e304, 1e305, 1e306, 1e307, 1e308,
        ];
        // The significand is below 1.9e19, so nothing overflows up to an exponent of 288.
        let Some(index) = exponent.checked_sub(289).and_then(|index| usize::try_from(index).ok()) else {
            return true;
        };
        POWERS
            .get(index)
            .is_some_and(|power| (self.significand as f64 * power).is_finite())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads `text` whole and cut in two at every byte, and returns whether it is accepted, which must not depend on the cut.
    fn is_accepted(text: &str) -> bool {
        let bytes = [text.as_bytes(), b","].concat();
        let whole = read_in_two(&bytes, 0);
        if let Some(length) = Scalar::common_length(&bytes) {
            assert!(whole && length == text.len(), "{text}");
        }
        for cut in 1..bytes.len() {
            assert_eq!(read_in_two(&bytes, cut), whole, "{text} cut at {cut}");
        }
        whole
    }

    fn read_in_two(bytes: &[u8], cut: usize) -> bool {
        let Some(mut scalar) = Scalar::beginning_with(bytes[0]) else {
            return false;
        };
        match scalar.read(&bytes[..cut]) {
            Ok(None) => matches!(scalar.read(&bytes[cut..]), Ok(Some(end)) if end + cut == bytes.len() - 1),
            Ok(Some(_)) | Err(_) => false,
        }
    }

    /// Numbers and literals, valid and invalid.
    const SCALARS: &[&str] = &[
        "0",
        "-0",
        "1",
        "-1",
        "10",
        "1.5",
        "1e5",
        "1E+5",
        "1e-5",
        "1.5e5",
        "01",
        "-01",
        "1.",
        ".5",
        "-",
        "+1",
        "1e",
        "1e+",
        "1.e5",
        "0e0",
        "00",
        "0x1",
        "1_0",
        "1.5.5",
        "1e5e5",
        "1e5.5",
        "--1",
        "-.5",
        "NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "1e308",
        "1e309",
        "-1e309",
        "0e999",
        "0.0e99999999999",
        "1e99999999999",
        "1e-99999999999",
        "1e-999",
        "1.7976931348623157e308",
        "1.7976931348623158e308",
        "1.7976931348623159e308",
        "1.8e308",
        "17976931348623157e292",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551616.5",
        "1844674407370955161.6e290",
        "18446744073709551619.9e288",
        "true",
        "false",
        "null",
        "tru",
        "truee",
        "nul",
        "nulL",
        "t",
        "True",
        "falsey",
    ];

    #[test]
    fn numbers_and_literals_are_accepted_as_by_serde_json() {
        let long_zeros = format!("0.{}1e330", "0".repeat(330));
        let long = "9".repeat(308);
        let too_long = "9".repeat(310);
        let long = [&*long_zeros, &long, &too_long];
        for text in SCALARS.iter().chain(&long) {
            assert_eq!(
                is_accepted(text),
                serde_json::from_str::<serde_json::Value>(text).is_ok(),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn numbers_near_the_largest_double_are_accepted_as_by_serde_json(text in "-?[0-9]{1,25}(\\.[0-9]{1,25})?[eE][+-]?(2[89][0-9]|3[0-4][0-9]|[0-9]{1,12})") {
            prop_assert_eq!(is_accepted(&text), serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }

        #[test]
        fn fragments_of_numbers_are_accepted_as_by_serde_json(text in "[-0-9][-+.eE0-9]{0,8}") {
            prop_assert_eq!(is_accepted(&text), serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}

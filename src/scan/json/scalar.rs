//! Numbers and literals, resumable at any byte.

use super::error::Problem;

/// A number or literal that has begun.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scalar {
    /// What is left of `true`, `false` or `null`.
    Literal(&'static [u8]),
    /// A number.
    Number(Number),
}

impl Scalar {
    /// What `first` begins; it is still to be read.
    pub fn beginning_with(first: u8) -> Option<Self> {
        Some(match first {
            b't' => Self::Literal(b"true"),
            b'f' => Self::Literal(b"false"),
            b'n' => Self::Literal(b"null"),
            b'-' | b'0'..=b'9' => Self::Number(Number::default()),
            _ => return None,
        })
    }

    /// The length of the scalar that `bytes` begin with, if it is a common one: a literal, or an integer of up to 18 digits.
    pub fn common(bytes: &[u8]) -> Option<usize> {
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

    /// Reads on. Gives how many of `bytes` belong to the scalar, or `None` where all do and more may follow.
    ///
    /// # Errors
    ///
    /// The problem, and the index of the byte that shows it.
    pub fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, (Problem, usize)> {
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(
                byte,
                b' ' | b'\t' | b'\n' | b'\r' | b',' | b'}' | b']' | b':' | b'"' | b'{' | b'['
            ) {
                return match self.check() {
                    Ok(()) => Ok(Some(index)),
                    Err(problem) => Err((problem, index)),
                };
            }
            match self {
                Self::Literal(rest) => match rest.split_first() {
                    Some((expected, after)) if expected == byte => *rest = after,
                    _ => return Err((Problem::BadLiteral, index)),
                },
                Self::Number(number) => number.push(*byte).ok_or((Problem::BadNumber, index))?,
            }
        }
        Ok(None)
    }

    /// Whether it may end here.
    fn check(&self) -> Result<(), Problem> {
        match self {
            Self::Literal([]) => Ok(()),
            Self::Literal(_) => Err(Problem::BadLiteral),
            Self::Number(number) => number.check(),
        }
    }
}

/// Where in the grammar of RFC 8259 §6 a number is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
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

/// A number's part so far, and its size as serde_json reckons it: an integer of 64 bits times a power of ten.
///
/// Only numbers near the largest double depend on how it is reckoned; following serde_json to the last digit there makes
/// the two agree on every body.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Number {
    part: Part,
    significand: u64,
    /// The power of ten that the digits before the exponent leave.
    scale: i32,
    /// Integer digits, or fraction digits, no longer fit in the significand.
    integer_full: bool,
    fraction_full: bool,
    exponent: i32,
    exponent_negative: bool,
    exponent_full: bool,
}

impl Number {
    /// Adds a byte; `None` where it cannot follow.
    fn push(&mut self, byte: u8) -> Option<()> {
        self.part = match (self.part, byte) {
            (Part::Start, b'-') => Part::Minus,
            (Part::Start | Part::Minus, b'0') => Part::Zero,
            (Part::Start | Part::Minus | Part::Integer, b'0'..=b'9') => {
                self.integer_digit(byte - b'0');
                Part::Integer
            }
            (Part::Zero | Part::Integer, b'.') => Part::Point,
            (Part::Point | Part::Fraction, b'0'..=b'9') => {
                self.fraction_digit(byte - b'0');
                Part::Fraction
            }
            (Part::Zero | Part::Integer | Part::Fraction, b'e' | b'E') => Part::E,
            (Part::E, b'+') => Part::Sign,
            (Part::E, b'-') => {
                self.exponent_negative = true;
                Part::Sign
            }
            (Part::E | Part::Sign | Part::Exponent, b'0'..=b'9') => {
                self.exponent_digit(byte - b'0');
                Part::Exponent
            }
            _ => return None,
        };
        Some(())
    }

    fn integer_digit(&mut self, digit: u8) {
        match self.with_digit(digit).filter(|_| !self.integer_full) {
            Some(significand) => self.significand = significand,
            None => {
                self.integer_full = true;
                self.scale = self.scale.saturating_add(1);
            }
        }
    }

    fn fraction_digit(&mut self, digit: u8) {
        match self.with_digit(digit).filter(|_| !self.fraction_full) {
            Some(significand) => {
                self.significand = significand;
                self.scale = self.scale.saturating_sub(1);
            }
            None => self.fraction_full = true,
        }
    }

    fn exponent_digit(&mut self, digit: u8) {
        let exponent = self
            .exponent
            .checked_mul(10)
            .and_then(|e| e.checked_add(i32::from(digit)));
        match exponent {
            Some(exponent) => self.exponent = exponent,
            None => self.exponent_full = true,
        }
    }

    fn with_digit(&self, digit: u8) -> Option<u64> {
        self.significand.checked_mul(10)?.checked_add(u64::from(digit))
    }

    fn check(&self) -> Result<(), Problem> {
        match self.part {
            Part::Start | Part::Minus | Part::Point | Part::E | Part::Sign => Err(Problem::BadNumber),
            Part::Zero | Part::Integer | Part::Fraction | Part::Exponent if self.fits() => Ok(()),
            Part::Zero | Part::Integer | Part::Fraction | Part::Exponent => Err(Problem::NumberOutOfRange),
        }
    }

    /// Whether a double can hold it, infinity aside.
    fn fits(&self) -> bool {
        if self.significand == 0 {
            return true;
        }
        if self.exponent_full {
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
        // A significand is below 1.9e19, so that up to 1e288 nothing overflows.
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

    /// Reads `text` whole and in two pieces, all ways, and gives the answer if it is the same.
    fn read(text: &str) -> bool {
        let bytes = [text.as_bytes(), b","].concat();
        let whole = read_in_two(&bytes, 0);
        if let Some(length) = Scalar::common(&bytes) {
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

    #[test]
    fn numbers_and_literals_are_those_of_serde_json() {
        let long_zeros = format!("0.{}1e330", "0".repeat(330));
        let long = "9".repeat(308);
        let too_long = "9".repeat(310);
        let cases = [
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
            &long_zeros,
            &long,
            &too_long,
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
        for text in cases {
            assert_eq!(
                read(text),
                serde_json::from_str::<serde_json::Value>(text).is_ok(),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn numbers_near_the_largest_agree_with_serde_json(text in "-?[0-9]{1,25}(\\.[0-9]{1,25})?[eE][+-]?(2[89][0-9]|3[0-4][0-9]|[0-9]{1,12})") {
            prop_assert_eq!(read(&text), serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }

        #[test]
        fn scraps_of_numbers_agree_with_serde_json(text in "[-0-9][-+.eE0-9]{0,8}") {
            prop_assert_eq!(read(&text), serde_json::from_str::<serde_json::Value>(&text).is_ok());
        }
    }
}

//! The kinds of values that a configuration field can hold: how each is read from TOML, and how a JSON Schema describes it.
//!
//! A kind also contains its range, so that the reader, the schema and the example file always have the same range.

use std::{ops::RangeInclusive, time::Duration};

use serde_json::{Value as Json, json};
use toml::de::DeValue;

use super::values::{boolean, duration, fraction, integer, show_duration, show_size, size};

/// The kind of the values that a field can hold.
pub(super) trait ValueKind: Sync {
    /// The JSON Schema (draft-07) that accepts the values of this kind. It may accept more than the reader, never less.
    fn schema(&self) -> Json;

    /// The smallest and the largest value, as a user would write them.
    fn range(&self) -> Option<[String; 2]> {
        None
    }
}

/// A kind whose values are read without any context.
pub(super) trait ScalarKind: ValueKind {
    /// The Rust type of a value.
    type Value;

    /// Reads a value.
    ///
    /// # Errors
    /// If the value is invalid. The message says what the value must be, as a predicate that follows the field's name.
    fn parse(&self, value: &DeValue<'_>) -> Result<Self::Value, String>;
}

/// `true` or `false`.
pub(super) struct Toggle;

impl ValueKind for Toggle {
    fn schema(&self) -> Json {
        json!({"type": "boolean"})
    }
}

impl ScalarKind for Toggle {
    type Value = bool;

    fn parse(&self, value: &DeValue<'_>) -> Result<bool, String> {
        boolean(value)
    }
}

/// An integer in a range.
pub(super) struct WholeNumber<T>(pub RangeInclusive<T>);

impl<T: Copy + Into<u64>> WholeNumber<T> {
    fn bounds(&self) -> RangeInclusive<u64> {
        (*self.0.start()).into()..=(*self.0.end()).into()
    }
}

impl<T: Copy + Into<u64> + Sync> ValueKind for WholeNumber<T> {
    fn schema(&self) -> Json {
        let bounds = self.bounds();
        json!({"type": "integer", "minimum": bounds.start(), "maximum": bounds.end()})
    }

    fn range(&self) -> Option<[String; 2]> {
        let bounds = self.bounds();
        Some([bounds.start(), bounds.end()].map(ToString::to_string))
    }
}

impl<T: Copy + Into<u64> + TryFrom<u64> + Sync> ScalarKind for WholeNumber<T> {
    type Value = T;

    fn parse(&self, value: &DeValue<'_>) -> Result<T, String> {
        let number = integer(value, self.bounds())?;
        let fits = T::try_from(number).ok();
        Ok(fits.expect("a number between two values of a type fits that type"))
    }
}

/// A number in a range, with or without a fractional part.
pub(super) struct Fraction(pub RangeInclusive<f64>);

impl ValueKind for Fraction {
    fn schema(&self) -> Json {
        json!({"type": "number", "minimum": self.0.start(), "maximum": self.0.end()})
    }

    fn range(&self) -> Option<[String; 2]> {
        Some([self.0.start(), self.0.end()].map(ToString::to_string))
    }
}

impl ScalarKind for Fraction {
    type Value = f64;

    fn parse(&self, value: &DeValue<'_>) -> Result<f64, String> {
        fraction(value, self.0.clone())
    }
}

/// A duration in a range, such as `"1h30m"`.
pub(super) struct TimeSpan(pub RangeInclusive<Duration>);

impl ValueKind for TimeSpan {
    fn schema(&self) -> Json {
        json!({
            "type": "string",
            "pattern": "^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$",
            "minLength": 2,
        })
    }

    fn range(&self) -> Option<[String; 2]> {
        Some([self.0.start(), self.0.end()].map(|bound| show_duration(*bound)))
    }
}

impl ScalarKind for TimeSpan {
    type Value = Duration;

    fn parse(&self, value: &DeValue<'_>) -> Result<Duration, String> {
        duration(value, self.0.clone())
    }
}

/// A number of bytes in a range, such as `"64MiB"`.
pub(super) struct ByteSize(pub RangeInclusive<u64>);

impl ValueKind for ByteSize {
    fn schema(&self) -> Json {
        json!({"anyOf": [
            {"type": "string", "pattern": "^[0-9]+ *([KMGT]i?)?B$"},
            {"type": "integer", "minimum": self.0.start(), "maximum": self.0.end()},
        ]})
    }

    fn range(&self) -> Option<[String; 2]> {
        Some([self.0.start(), self.0.end()].map(|bound| show_size(*bound)))
    }
}

impl ScalarKind for ByteSize {
    type Value = u64;

    fn parse(&self, value: &DeValue<'_>) -> Result<u64, String> {
        size(value, self.0.clone())
    }
}

/// A string. Its reader may be stricter than its pattern.
#[derive(Clone, Copy)]
pub(super) struct Text {
    /// The strings that editors should offer.
    pub choices: &'static [&'static str],
    /// The regular expression (ECMA 262, anchored) that other strings match.
    pub pattern: &'static str,
}

impl Text {
    /// A string that matches `pattern`.
    pub const fn matching(pattern: &'static str) -> Self {
        Self { choices: &[], pattern }
    }
}

impl ValueKind for Text {
    fn schema(&self) -> Json {
        let matching = json!({"type": "string", "pattern": self.pattern});
        if self.choices.is_empty() {
            matching
        } else {
            json!({"anyOf": [{"type": "string", "enum": self.choices}, matching]})
        }
    }
}

/// An array of strings with at least `.1` elements.
pub(super) struct ListOf(pub Text, pub usize);

impl ValueKind for ListOf {
    fn schema(&self) -> Json {
        json!({"type": "array", "items": self.0.schema(), "minItems": self.1})
    }
}

/// A string, or an array of strings with at least `.1` elements.
pub(super) struct OneOrMore(pub Text, pub usize);

impl ValueKind for OneOrMore {
    fn schema(&self) -> Json {
        json!({"anyOf": [
            self.0.schema(),
            {"type": "array", "items": self.0.schema(), "minItems": self.1},
        ]})
    }
}

/// An array of globs, or a table from the models' names for callers to their names at the upstream.
pub(super) struct ModelNames(pub Text);

impl ValueKind for ModelNames {
    fn schema(&self) -> Json {
        json!({"anyOf": [
            {"type": "array", "items": self.0.schema()},
            {
                "type": "object",
                "propertyNames": {"pattern": "^[^*?]+$"},
                "additionalProperties": {"type": "string", "minLength": 1},
                "minProperties": 1,
            },
        ]})
    }
}

/// A table from header names to values.
pub(super) struct HeaderTable;

impl ValueKind for HeaderTable {
    fn schema(&self) -> Json {
        json!({"type": "object", "additionalProperties": {"type": "string", "minLength": 1}})
    }
}

/// A date or a date with a time, as a TOML value or as a string.
pub(super) struct Moment;

impl ValueKind for Moment {
    fn schema(&self) -> Json {
        // TOML validators pass a date to the schema as a string.
        json!({"type": "string", "pattern": "^\\s*[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].*)?\\s*$"})
    }
}

//! A fast formatter for the lines of the access log, since each request writes one.
//!
//! The output is that of [`tracing_subscriber::fmt`](mod@tracing_subscriber::fmt), byte for byte. [`AccessLines`] formats the common case itself: an event of
//! the access log outside spans, without colours. It leaves every other event to the library's formatter.

#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    error::Error,
    fmt::{self, Write as _},
    time::UNIX_EPOCH,
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

use crate::app::cli::LogFormat;

/// The `tracing` target of the access log's events.
pub(super) const ACCESS: &str = "access";

/// The library's formatter `L` with a fast path for the access log.
pub(super) struct AccessLines<L> {
    pub format: LogFormat,
    pub library: L,
}

impl<S, N, L> FormatEvent<S, N> for AccessLines<L>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    L: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        thread_local! {
            static LINE: RefCell<(TimestampCache, String)> = const { RefCell::new((TimestampCache::EMPTY, String::new())) };
        }
        let is_plain = event.metadata().target() == ACCESS
            && *event.metadata().level() == Level::INFO
            && !out.has_ansi_escapes()
            && event.parent().is_none()
            && context.lookup_current().is_none();
        let written = is_plain
            && LINE.with(|line| {
                let Ok(mut line) = line.try_borrow_mut() else {
                    return false;
                };
                let (timestamps, text) = &mut *line;
                text.clear();
                format_plain(self.format, timestamps, text, event).is_ok() && out.write_str(text).is_ok()
            });
        if written {
            Ok(())
        } else {
            self.library.format_event(context, out, event)
        }
    }
}

/// Appends the line of an event.
///
/// # Errors
/// If a field needs the library's formatter.
fn format_plain(
    format: LogFormat,
    timestamps: &mut TimestampCache,
    text: &mut String,
    event: &Event<'_>,
) -> fmt::Result {
    let mut fields = FieldWriter {
        format,
        text,
        result: Ok(()),
    };
    match format {
        LogFormat::Text => {
            timestamps.append_now(fields.text)?;
            fields.text.push_str("  INFO access:");
        }
        LogFormat::Json => {
            fields.text.push_str("{\"timestamp\":\"");
            timestamps.append_now(fields.text)?;
            fields.text.push_str("\",\"level\":\"INFO\"");
        }
    }
    event.record(&mut fields);
    fields.result?;
    text.push_str(match format {
        LogFormat::Text => "\n",
        LogFormat::Json => ",\"target\":\"access\"}\n",
    });
    Ok(())
}

/// Appends the fields of an event to its line.
struct FieldWriter<'a> {
    format: LogFormat,
    /// The line.
    text: &'a mut String,
    /// `Err` as soon as a field needs the library's formatter.
    result: fmt::Result,
}

impl FieldWriter<'_> {
    /// Appends the name of a field.
    fn name(&mut self, field: &Field) {
        let name = field.name();
        debug_assert!(
            name.bytes().all(is_plain),
            "{name}: the names of the access log's fields need no escapes"
        );
        // The library prints a message without a name.
        if name == "message" {
            self.result = Err(fmt::Error);
        }
        let (before, after) = match self.format {
            LogFormat::Text => (" ", "="),
            LogFormat::Json => (",\"", "\":"),
        };
        self.text.push_str(before);
        self.text.push_str(name);
        self.text.push_str(after);
    }

    /// Appends `text` in quotes.
    fn quoted(&mut self, text: &str) {
        if text.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
            self.text.push('"');
            self.text.push_str(text);
            self.text.push('"');
            return;
        }
        match self.format {
            LogFormat::Text => self.formatted(format_args!("{text:?}")),
            LogFormat::Json => match serde_json::to_string(text) {
                Ok(escaped) => self.text.push_str(&escaped),
                Err(_) => self.result = Err(fmt::Error),
            },
        }
    }

    fn formatted(&mut self, value: fmt::Arguments<'_>) {
        if self.text.write_fmt(value).is_err() {
            self.result = Err(fmt::Error);
        }
    }
}

/// Whether both formats print `byte` of a string without an escape.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\')
}

impl Visit for FieldWriter<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.name(field);
        self.text.push_str(itoa::Buffer::new().format(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.name(field);
        self.text.push_str(itoa::Buffer::new().format(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.name(field);
        self.text.push_str(if value { "true" } else { "false" });
    }

    /// Formats a multiple of 0.001 as an integer number of thousandths. With at most 15 digits, no shorter decimal has the same
    /// value as a float, so the output is the shortest form, which the library prints.
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.name(field);
        let thousandths = (value * 1e3 + 0.5) as u64;
        let is_plain =
            value.is_sign_positive() && thousandths < 1_000_000_000_000_000 && thousandths as f64 / 1e3 == value;
        if !is_plain {
            self.result = Err(fmt::Error);
            return;
        }
        self.text.push_str(itoa::Buffer::new().format(thousandths / 1000));
        self.text.push('.');
        let rest = digits::<3>(thousandths % 1000);
        let rest = text_of(&rest);
        self.text.push_str(match rest.trim_end_matches('0') {
            "" => "0",
            rest => rest,
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        self.quoted(value);
    }

    fn record_error(&mut self, _field: &Field, _value: &(dyn Error + 'static)) {
        self.result = Err(fmt::Error);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.name(field);
        if self.format == LogFormat::Text {
            self.formatted(format_args!("{value:?}"));
            return;
        }
        self.text.push('"');
        let start = self.text.len();
        self.formatted(format_args!("{value:?}"));
        if self.text.bytes().skip(start).all(is_plain) {
            self.text.push('"');
        } else {
            self.result = Err(fmt::Error);
        }
    }
}

/// The last `N` decimal digits of `number`.
fn digits<const N: usize>(mut number: u64) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
    }
    digits
}

fn text_of(digits: &[u8]) -> &str {
    str::from_utf8(digits).expect("digits are ASCII")
}

/// The text of the current time. The date and the second are formatted once per second; only the digits after the decimal point
/// are formatted each time.
struct TimestampCache {
    /// The second whose text is cached, in Unix time.
    second: u64,
    /// The text of `second` up to and including the decimal point; empty if nothing is cached.
    text: String,
}

impl TimestampCache {
    const EMPTY: Self = Self {
        second: 0,
        text: String::new(),
    };

    /// Appends the current time.
    ///
    /// # Errors
    /// If the clock is before 1970.
    fn append_now(&mut self, out: &mut String) -> fmt::Result {
        let now = UNIX_EPOCH.elapsed().map_err(|_| fmt::Error)?;
        if now.as_secs() == self.second && !self.text.is_empty() {
            out.push_str(&self.text);
            out.push_str(text_of(&digits::<6>(now.subsec_micros().into())));
            out.push('Z');
            return Ok(());
        }
        self.text.clear();
        SystemTime.format_time(&mut Writer::new(&mut self.text))?;
        out.push_str(&self.text);
        // The library has read the clock itself. Its second is that of `now` only if no second has begun since.
        let is_same = UNIX_EPOCH.elapsed().is_ok_and(|later| later.as_secs() == now.as_secs());
        match self.text.find('.') {
            Some(point) if is_same => {
                self.second = now.as_secs();
                self.text.truncate(point + 1);
            }
            _ => self.text.clear(),
        }
        Ok(())
    }
}

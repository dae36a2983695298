//! The access log's lines, without the detours: one a request is too many for a formatter that is made for anything.
//!
//! What is printed is what [`tracing_subscriber::fmt`] prints, byte for byte. [`AccessLines`] knows the plain case: an event
//! of the access log, outside spans, without colours. Whatever is not plain it leaves to the library's own format.

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

/// The target of the access log's events.
pub(super) const ACCESS: &str = "access";

/// The library's format `L` with a faster way for the access log.
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
            static LINE: RefCell<(Clock, String)> = const { RefCell::new((Clock::UNREAD, String::new())) };
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
                let (clock, text) = &mut *line;
                text.clear();
                format_plain(self.format, clock, text, event).is_ok() && out.write_str(text).is_ok()
            });
        if written {
            Ok(())
        } else {
            self.library.format_event(context, out, event)
        }
    }
}

/// Appends the line of a plain event.
///
/// # Errors
/// A field that is not plain.
fn format_plain(format: LogFormat, clock: &mut Clock, text: &mut String, event: &Event<'_>) -> fmt::Result {
    let mut fields = Fields {
        format,
        text,
        result: Ok(()),
    };
    match format {
        LogFormat::Text => {
            clock.read_into(fields.text)?;
            fields.text.push_str("  INFO access:");
        }
        LogFormat::Json => {
            fields.text.push_str("{\"timestamp\":\"");
            clock.read_into(fields.text)?;
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

/// Appends fields as it visits them.
struct Fields<'a> {
    format: LogFormat,
    text: &'a mut String,
    result: fmt::Result,
}

impl Fields<'_> {
    fn name(&mut self, field: &Field) {
        let name = field.name();
        debug_assert!(
            name.bytes().all(is_plain),
            "{name}: the fields of the access log are words"
        );
        // The library prints a message without its name.
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
            LogFormat::Text => self.shown(format_args!("{text:?}")),
            LogFormat::Json => match serde_json::to_string(text) {
                Ok(escaped) => self.text.push_str(&escaped),
                Err(_) => self.result = Err(fmt::Error),
            },
        }
    }

    fn shown(&mut self, value: fmt::Arguments<'_>) {
        if self.text.write_fmt(value).is_err() {
            self.result = Err(fmt::Error);
        }
    }
}

/// Whether both formats print `byte` of a string as it is.
fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\')
}

impl Visit for Fields<'_> {
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

    /// A number of thousandths is printed from its whole number: with at most 15 digits no other decimal reads as the same
    /// float, so this is also its shortest form.
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
            self.shown(format_args!("{value:?}"));
            return;
        }
        self.text.push('"');
        let start = self.text.len();
        self.shown(format_args!("{value:?}"));
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
    // Digits are text.
    str::from_utf8(digits).unwrap_or_default()
}

/// The wall clock as text. The calendar is asked once a second; in between only the digits behind the point change.
struct Clock {
    second: u64,
    /// The text of `second`, with the point; empty before the first reading.
    text: String,
}

impl Clock {
    const UNREAD: Self = Self {
        second: 0,
        text: String::new(),
    };

    fn read_into(&mut self, out: &mut String) -> fmt::Result {
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
        // The library has read the clock itself: its second is `now`'s only if it has not passed meanwhile.
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

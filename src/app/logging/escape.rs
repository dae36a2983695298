//! Escapes the characters of log lines that a terminal does not print as they are.
//!
//! Clients and upstreams choose a part of what is logged. Control characters (C0, DEL and C1) can move the cursor, change
//! the terminal or begin a line that looks like another one. Bidirectional and invisible characters change how a line
//! reads. All of them are escaped in the last step before a line is written, so that no field and no message is left out.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

/// The form of the lines, which decides how a character is escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineForm {
    /// Text without colours: `\u{202e}`.
    Plain,
    /// Text for a terminal, as `Plain`. The sequences that set colours are kept: the formatter has written them, and it
    /// has escaped those in values.
    Coloured,
    /// JSON: `\u202e`.
    Json,
}

/// Makes writers that escape lines and pass them on to those of `M`.
pub(super) struct EscapedLines<M> {
    pub form: LineForm,
    pub lines: M,
}

/// A writer of escaped lines. Each call of `write` gets whole lines.
pub(super) struct EscapedLine<W> {
    form: LineForm,
    line: W,
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for EscapedLines<M> {
    type Writer = EscapedLine<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        EscapedLine {
            form: self.form,
            line: self.lines.make_writer(),
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Self::Writer {
        EscapedLine {
            form: self.form,
            line: self.lines.make_writer_for(metadata),
        }
    }
}

impl<W: Write> Write for EscapedLine<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if is_plain(text) {
            return self.line.write(line);
        }
        let mut escaped = escape(&String::from_utf8_lossy(text), self.form);
        escaped.push_str(if text.len() < line.len() { "\n" } else { "" });
        self.line.write_all(escaped.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.line.flush()
    }
}

/// Whether `text` is printable ASCII. There is no branch for each byte, so that the compiler can use vector instructions.
fn is_plain(text: &[u8]) -> bool {
    text.iter().fold(true, |is_plain, byte| {
        is_plain & (byte.wrapping_sub(b' ') <= b'~' - b' ')
    })
}

/// `text` with escapes for all characters that are not [shown](is_shown).
fn escape(text: &str, form: LineForm) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let kept = match colour_length(rest) {
            Some(length) if form == LineForm::Coloured => length,
            _ if is_shown(next) => next.len_utf8(),
            _ => 0,
        };
        escaped.push_str(&rest[..kept]);
        rest = &rest[kept.max(next.len_utf8())..];
        if kept > 0 {
            continue;
        }
        if form == LineForm::Json {
            for unit in next.encode_utf16(&mut [0; 2]) {
                write!(escaped, "\\u{unit:04x}").expect("a string takes any text");
            }
        } else {
            escaped.extend(next.escape_debug());
        }
    }
    escaped
}

/// Whether a terminal prints `next` as it is. Other characters are those that Rust escapes in strings (`{:?}`): control
/// characters, separators other than the space, and characters of the Unicode categories Cf (formats, for example
/// bidirectional ones), Co (private use) and Cn (unassigned).
fn is_shown(next: char) -> bool {
    if next.is_ascii() {
        return matches!(next, ' '..='~');
    }
    // At the beginning of a string, Rust also escapes the characters that combine with the one before.
    let mut text = *b"a\0\0\0\0";
    let length = 1 + next.encode_utf8(&mut text[1..]).len();
    let text = str::from_utf8(&text[..length]).expect("two characters");
    text.escape_debug().nth(1) == Some(next)
}

/// The length of the sequence at the beginning of `text` that sets a colour or a style (`ESC [ 1 ; 3 1 m`, ECMA-48 section
/// 8.3.117).
fn colour_length(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let rest = parameters.trim_start_matches(|next: char| next.is_ascii_digit() || next == ';');
    rest.starts_with('m').then(|| text.len() - rest.len() + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(line: &str, form: LineForm) -> String {
        let mut writer = EscapedLine { form, line: Vec::new() };
        assert_eq!(writer.write(line.as_bytes()).expect("written"), line.len());
        String::from_utf8(writer.line).expect("text")
    }

    #[test]
    fn characters_that_change_how_a_line_reads_are_escaped() {
        let hostile = [
            '\0',
            '\u{7}',
            '\u{8}',
            '\t',
            '\n',
            '\r',
            '\u{1b}',
            '\u{7f}',
            '\u{80}',
            '\u{85}',
            '\u{9b}',
            '\u{9f}',
            '\u{ad}',
            '\u{61c}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{2028}',
            '\u{2029}',
            '\u{202a}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2069}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e0041}',
        ];
        for next in hostile {
            let line = format!("a {next} b\n");
            for form in [LineForm::Plain, LineForm::Coloured] {
                assert_eq!(
                    written(&line, form),
                    format!("a {} b\n", next.escape_debug()),
                    "{form:?}"
                );
            }
            let json = written(&line, LineForm::Json);
            let text: String = serde_json::from_str(&format!("\"{}\"", json.trim_end())).expect("a JSON string");
            assert_eq!(text, line.trim_end_matches('\n'), "the value stays the same");
            assert!(
                json.trim_end().bytes().all(|byte| (b' '..=b'~').contains(&byte)),
                "{json}"
            );
        }
    }

    #[test]
    fn other_characters_stay_as_they_are() {
        for line in ["", "\n", "plain", "é ü 語 🙂 e\u{301}\n", "\"quoted\" \\u{202e}\n"] {
            for form in [LineForm::Plain, LineForm::Coloured, LineForm::Json] {
                assert_eq!(written(line, form), line, "{form:?}");
            }
        }
    }

    #[test]
    fn only_colours_are_kept_and_only_for_a_terminal() {
        let line = "\u{1b}[2mtime\u{1b}[0m \u{1b}[1;32mINFO\u{1b}[m \u{1b}[2J \u{1b}]0;title\u{7}\n";
        assert_eq!(
            written(line, LineForm::Coloured),
            "\u{1b}[2mtime\u{1b}[0m \u{1b}[1;32mINFO\u{1b}[m \\u{1b}[2J \\u{1b}]0;title\\u{7}\n"
        );
        assert!(!written(line, LineForm::Plain).contains('\u{1b}'));
    }

    proptest! {
        /// The oracle looks at each character alone.
        #[test]
        fn the_fast_check_agrees_with_the_slow_one(text in prop_oneof!["[ -~]{0,80}", "\\PC{0,40}", any::<String>()]) {
            let slow: String = text.chars().map(|next| match is_shown(next) {
                true => next.to_string(),
                false => next.escape_debug().to_string(),
            }).collect();
            prop_assert_eq!(written(&format!("{text}\n"), LineForm::Plain), format!("{slow}\n"));
        }
    }
}

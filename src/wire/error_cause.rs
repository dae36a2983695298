//! The innermost cause of an error. It is the part that helps an operator.

use std::error::Error;

/// The text of the innermost error: "Connection refused" rather than "tcp connect error". It contains no text that an
/// HTTP/2 peer has sent.
pub(in crate::wire) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    without_debug_data(cause.to_string())
}

/// Removes the debug data of a `GOAWAY` frame (RFC 9113 section 6.8), because an upstream may quote the request in it.
/// The h2 library shows it after the reason, as a byte string literal in parentheses.
fn without_debug_data(mut text: String) -> String {
    if let Some(at) = text.find(" (b\"") {
        text.truncate(at);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{fmt, io};

    use super::*;

    #[derive(Debug)]
    struct Outer(io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("outer")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn the_innermost_text_is_shown() {
        assert_eq!(root_cause(&Outer(io::Error::other("inner"))), "inner");
        assert_eq!(root_cause(&io::Error::other("alone")), "alone");
    }

    #[test]
    fn the_debug_data_of_a_goaway_frame_is_not_shown() {
        let shown = |text: &str| root_cause(&io::Error::other(text));
        assert_eq!(
            shown("connection error received: not a result of an error (b\"your key is sk-1\")"),
            "connection error received: not a result of an error"
        );
        assert_eq!(shown("broken pipe"), "broken pipe");
    }
}

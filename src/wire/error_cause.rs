//! The innermost cause of an error. It is the part that helps an operator.

use std::error::Error;

/// The text of the innermost error: "Connection refused" rather than "tcp connect error".
pub(in crate::wire) fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
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
}

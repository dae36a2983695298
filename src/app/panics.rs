//! What a panic prints: where, and never with what.
//!
//! A panic ends one connection, for the runtime catches it; the process goes on. But the message that goes with it may quote
//! what was worked on: slicing text at a wrong place prints the text, `expect` prints the error that it met. So a message is
//! printed only where the program holds it as a literal.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, Write as _},
    panic::{self, PanicHookInfo},
};

/// Replaces the message that panics print in this process.
pub(super) fn keep_quiet() {
    panic::set_hook(Box::new(report));
}

fn report(info: &PanicHookInfo<'_>) {
    let message = literal(info.payload());
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or_default();
    // Only where RUST_BACKTRACE asks for one. It names functions, and no values.
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then_some(&backtrace);
    if tracing::dispatcher::has_been_set() {
        let backtrace = backtrace.map(tracing::field::display);
        tracing::error!(
            place,
            thread,
            backtrace,
            "panicked: {message}; this is a bug, please report it"
        );
    } else {
        // Where even standard error is gone there is nobody to tell.
        let _ = writeln!(
            io::stderr(),
            "panicked at {place}: {message}; this is a bug, please report it"
        );
        if let Some(backtrace) = backtrace {
            let _ = writeln!(io::stderr(), "{backtrace}");
        }
    }
}

/// The message where it is a literal of the program; what was formatted comes as a `String`.
fn literal(payload: &(dyn Any + Send)) -> &'static str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("(the message is withheld: it may quote a request)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(panics: impl FnOnce() + panic::UnwindSafe) -> Box<dyn Any + Send> {
        panic::catch_unwind(panics).expect_err("it panics")
    }

    #[test]
    fn only_literals_are_shown() {
        assert_eq!(literal(&*payload(|| panic!("a literal"))), "a literal");
        let secret = "sk-canaré".to_owned();
        for payload in [
            payload(|| panic!("with {secret}")),
            payload(|| {
                let _ = &secret[..secret.len() - 1];
            }),
            payload(|| {
                secret.parse::<u32>().map_err(|_| &secret).expect("a number");
            }),
            payload(|| panic::panic_any(secret.clone())),
        ] {
            assert!(!literal(&*payload).contains("canar"), "{}", literal(&*payload));
        }
    }
}

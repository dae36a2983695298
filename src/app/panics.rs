//! The panic hook. It prints the place of a panic, but no data of a request.
//!
//! The runtime catches a panic, so that only one connection ends and the process continues. The panic's message may
//! contain data of a request: slicing a string at a wrong index prints the string, and `expect` prints the error. A
//! message is therefore printed only if it is a string literal of the program.

use std::{
    any::Any,
    backtrace::{Backtrace, BacktraceStatus},
    io::{self, Write as _},
    panic::{self, PanicHookInfo},
};

/// Installs the panic hook of this process.
pub(super) fn install_hook() {
    panic::set_hook(Box::new(report));
}

fn report(info: &PanicHookInfo<'_>) {
    let message = literal(info.payload());
    let place = info
        .location()
        .map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    // A backtrace is captured only if RUST_BACKTRACE is set. It contains names of functions, but no values.
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
        // If standard error is closed, the message is lost.
        let _ = writeln!(
            io::stderr(),
            "panicked at {place}: {message}; this is a bug, please report it"
        );
        if let Some(backtrace) = backtrace {
            let _ = writeln!(io::stderr(), "{backtrace}");
        }
    }
}

/// The message of a panic if it is a string literal of the program. A formatted message is a `String`, and is replaced.
fn literal(payload: &(dyn Any + Send)) -> &'static str {
    payload
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("(the message is not printed, because it may quote a request)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(panics: impl FnOnce() + panic::UnwindSafe) -> Box<dyn Any + Send> {
        panic::catch_unwind(panics).expect_err("it panics")
    }

    #[test]
    fn only_literal_messages_are_printed() {
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

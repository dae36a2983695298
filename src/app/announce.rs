//! The text that `serve` prints on standard output when it has started.
//!
//! The text is no condition for serving. If standard output is closed, full or not read, the log names the addresses
//! instead, in one line.

use std::{
    fmt::{self, Write as _},
    fs, io,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::{
    config::Config,
    sim::Sim,
    wire::{Address, Listener},
};

/// The maximum time to wait until the text is written. A pipe that is full and not read would block for ever.
const WRITE_LIMIT: Duration = Duration::from_secs(1);

/// Prints the addresses and the upstreams on standard output. For simulated upstreams it also prints a request to try.
pub(super) fn announce(public: &[Listener], admin: &[Listener], sims: &[Sim], config: &Config) {
    let text = greeting(public, admin, sims, config).expect("a string takes any text");
    let urls = |listeners: &[Listener]| listeners.iter().map(url).collect::<Vec<_>>().join(", ");
    let (listen, admin) = (urls(public), urls(admin));
    match print(text) {
        Err(problem) => tracing::warn!(
            listen,
            admin,
            "cannot write to standard output: {problem}; the program serves without it"
        ),
        Ok(()) if is_discarded() => tracing::info!(listen, admin, "listening; standard output is closed or discarded"),
        Ok(()) => {}
    }
}

/// Writes `text` to standard output. The write continues in its thread after [`WRITE_LIMIT`].
///
/// # Errors
/// The reason why the text is not written.
fn print(text: String) -> Result<(), String> {
    let (sender, written) = mpsc::channel();
    let write = move || {
        let mut out = io::stdout().lock();
        let result = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        // The receiver is gone if the write has taken too long.
        let _ = sender.send(result);
    };
    let thread = thread::Builder::new().name("stdout".to_owned()).spawn(write);
    thread.map_err(|error| error.to_string())?;
    match written.recv_timeout(WRITE_LIMIT) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("it is full and not read".to_owned()),
    }
}

/// Whether standard output is the null device. The standard library opens it in place of a closed standard output.
fn is_discarded() -> bool {
    let device = |path: &str| fs::metadata(path).map(|metadata| metadata.rdev());
    matches!((device("/dev/fd/1"), device("/dev/null")), (Ok(output), Ok(null)) if output == null)
}

/// The text on standard output.
fn greeting(public: &[Listener], admin: &[Listener], sims: &[Sim], config: &Config) -> Result<String, fmt::Error> {
    let mut text = String::new();
    for listener in public {
        writeln!(text, "Steadfast listens on {}", url(listener))?;
    }
    for listener in admin {
        writeln!(text, "The admin listener is on {}", url(listener))?;
    }
    if sims.is_empty() {
        let names: Vec<&str> = config.upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
        writeln!(text, "Upstreams: {}", names.join(", "))?;
    } else {
        let names: Vec<&str> = sims.iter().map(Sim::name).collect();
        writeln!(
            text,
            "The upstreams are simulated: {} run inside this process, without a model.",
            names.join(" and ")
        )?;
        if let Some(address) = public.first().map(Listener::address) {
            let target = match address {
                Address::Tcp(address) => format!("http://{address}"),
                Address::Unix(path) => format!("--unix-socket '{}' http://localhost", path.display()),
            };
            writeln!(
                text,
                "\nRun this command twice. Then change the key and run it again:\n"
            )?;
            writeln!(
                text,
                "  curl -i {target}/v1/responses -H 'content-type: application/json' \\"
            )?;
            writeln!(
                text,
                r#"    -d '{{"model":"gpt-5.2","input":"Hello, which account answers?","prompt_cache_key":"session-1"}}'"#
            )?;
            writeln!(text)?;
        }
    }
    Ok(text)
}

fn url(listener: &Listener) -> String {
    let scheme = if listener.is_secure() { "https" } else { "http" };
    match listener.address() {
        Address::Tcp(address) => format!("{scheme}://{address}"),
        address @ Address::Unix(_) => address.to_string(),
    }
}

//! The oracle is the library's own format, beside which every line is printed a second time.

use std::{io, sync::Arc};

use parking_lot::Mutex;
use proptest::prelude::*;
use tracing_subscriber::{Layer, fmt::MakeWriter, layer::SubscriberExt as _, registry::Registry};

use super::*;

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).expect("text")
    }
}

impl io::Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Memory {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

type Boxed = Box<dyn Layer<Registry> + Send + Sync>;

/// A layer that prints to `memory`: with [`AccessLines`], or without.
fn layer(format: LogFormat, ansi: bool, memory: &Memory, ours: bool) -> Boxed {
    let layer = tracing_subscriber::fmt::layer().with_writer(memory.clone());
    match (format, ours) {
        (LogFormat::Text, false) => layer.with_ansi(ansi).boxed(),
        (LogFormat::Text, true) => layer
            .with_ansi(ansi)
            .map_event_format(|library| AccessLines { format, library })
            .boxed(),
        (LogFormat::Json, false) => layer.json().flatten_event(true).with_ansi(ansi).boxed(),
        (LogFormat::Json, true) => layer
            .json()
            .flatten_event(true)
            .with_ansi(ansi)
            .map_event_format(|library| AccessLines { format, library })
            .boxed(),
    }
}

/// What is printed of `events` by [`AccessLines`] and by the library, the digits of the timestamps made zeros.
fn both(format: LogFormat, ansi: bool, events: impl FnOnce()) -> (String, String) {
    let printed = [true, false].map(|ours| (ours, Memory::default()));
    let layers: Vec<Boxed> = printed
        .iter()
        .map(|(ours, memory)| layer(format, ansi, memory, *ours))
        .collect();
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layers), events);
    let [ours, library] = printed.map(|(_, memory)| {
        let lines = memory.text();
        let lines = lines.split_inclusive('\n').map(|line| {
            let (head, rest) = line.split_at(line.find('Z').expect("a timestamp") + 1);
            head.replace(|digit: char| digit.is_ascii_digit(), "0") + rest
        });
        lines.collect()
    });
    (ours, library)
}

/// Events as the proxy makes them, and others that may come by.
fn events() {
    tracing::info!(
        target: "access",
        request_id = "req_1",
        path = %"/v1/responses",
        endpoint = Some("responses"),
        status = Some(200u16),
        reason = None::<&str>,
        signed = -7i64,
        flag = true,
        huge = u64::MAX,
        wide = u128::MAX,
        first_byte_ms = Some(12.5),
        duration_ms = 0.0,
    );
    tracing::info!(target: "access", status = 400u16, peer = Some(tracing::field::display("[::1]:80")));
    tracing::info!(target: "access", path = ?"quo\"ted", name = "back\\slash");
    tracing::info!(target: "access", "a message");
    tracing::info!(target: "access", status = 1, "a \u{1b}[31mmessage with a {}", "field");
    tracing::warn!(target: "access", status = 1, "no access line");
    tracing::info!(target: "steadfast::app", waited = 0.25, "drained");
    let error = io::Error::other("broken");
    tracing::info!(target: "access", error = &error as &dyn Error);
    tracing::info!(target: "access", nothing = f64::NAN, below = -0.0, tiny = 1e-9, large = 1e300);
    tracing::info_span!("span", field = 3).in_scope(|| tracing::info!(target: "access", status = 1));
    let span = tracing::info_span!("parent");
    tracing::info!(target: "access", parent: &span, status = 1);
}

#[test]
fn prints_what_the_library_prints() {
    for format in [LogFormat::Text, LogFormat::Json] {
        for ansi in [false, true] {
            let (ours, library) = both(format, ansi, events);
            assert_eq!(ours, library, "{format:?}, colours: {ansi}");
            assert_eq!(ours.lines().count(), 11);
        }
    }
}

/// Stands where the library's format does, to show which events come to it.
struct Elsewhere;

impl<S, N> FormatEvent<S, N> for Elsewhere
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, _: &Event<'_>) -> fmt::Result {
        writeln!(out, "elsewhere")
    }
}

#[test]
fn the_plain_case_takes_the_short_way() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let memory = Memory::default();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(memory.clone())
            .with_ansi(false)
            .event_format(AccessLines {
                format,
                library: Elsewhere,
            });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), events);
        let text = memory.text();
        let elsewhere: Vec<bool> = text.lines().map(|line| line == "elsewhere").collect();
        assert!(!elsewhere[0] && !elsewhere[1], "{text}");
        assert!(elsewhere[3..].iter().all(|elsewhere| *elsewhere), "{text}");
    }
}

fn access_line(text: &str, shown: &str, number: u64, float: f64, maybe: Option<u16>) {
    tracing::info!(target: "access", text, path = %shown, number, float, maybe);
}

proptest! {
    #[test]
    fn any_values_are_printed_as_the_library_does(
        text in prop_oneof!["\\PC{0,20}", any::<String>()],
        shown in prop_oneof!["[ -~]{0,20}", any::<String>()],
        number: u64,
        float in prop_oneof![
            (0..100_000_000u64).prop_map(|micros| micros as f64 / 1e3),
            (0..u64::MAX / 8).prop_map(|micros| micros as f64 / 1e3),
            any::<f64>(),
        ],
        maybe: Option<u16>,
    ) {
        for format in [LogFormat::Text, LogFormat::Json] {
            let (ours, library) = both(format, false, || access_line(&text, &shown, number, float, maybe));
            prop_assert_eq!(&ours, &library);
            if format == LogFormat::Json {
                let line: serde_json::Value = serde_json::from_str(&ours).expect("an object");
                prop_assert_eq!(line["text"].as_str(), Some(&*text));
                prop_assert_eq!(line["path"].as_str(), Some(&*shown));
                prop_assert_eq!(line["number"].as_u64(), Some(number));
                prop_assert_eq!(line["float"].is_number(), float.is_finite());
                prop_assert_eq!(line.get("maybe").and_then(|maybe| maybe.as_u64()), maybe.map(u64::from));
            }
        }
    }
}

#[test]
fn the_clock_never_leaves_the_library_s() {
    let library = || {
        let mut text = String::new();
        SystemTime.format_time(&mut Writer::new(&mut text)).expect("a time");
        text
    };
    let mut clock = Clock::UNREAD;
    for round in 0..2_000 {
        if round % 100 == 99 {
            // As if the second had passed.
            clock = Clock {
                second: clock.second.saturating_sub(1),
                text: "a second ago.".to_owned(),
            };
        }
        let (mut read, before) = (String::new(), library());
        clock.read_into(&mut read).expect("a time");
        let after = library();
        assert!(before <= read && read <= after, "{before} {read} {after}");
        assert_eq!(read.len(), after.len());
    }
}

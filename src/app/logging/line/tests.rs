//! The oracle is the library's formatter: every event is formatted by both.

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Colours {
    On,
    Off,
}

/// A layer that prints to `memory` by [`AccessLines`].
fn own_layer(format: LogFormat, colours: Colours, memory: &Memory) -> Boxed {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(memory.clone())
        .with_ansi(colours == Colours::On);
    match format {
        LogFormat::Text => layer
            .map_event_format(|library| AccessLines { format, library })
            .boxed(),
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .map_event_format(|library| AccessLines { format, library })
            .boxed(),
    }
}

/// A layer that prints to `memory` by the library's formatter.
fn library_layer(format: LogFormat, colours: Colours, memory: &Memory) -> Boxed {
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(memory.clone())
        .with_ansi(colours == Colours::On);
    match format {
        LogFormat::Text => layer.boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// The lines of `events` as printed by [`AccessLines`] and by the library, with zeros for the digits of the timestamps.
fn both(format: LogFormat, colours: Colours, events: impl FnOnce()) -> (String, String) {
    let printed = [Memory::default(), Memory::default()];
    let [ours, library] = &printed;
    let layers = vec![
        own_layer(format, colours, ours),
        library_layer(format, colours, library),
    ];
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layers), events);
    let [ours, library] = printed.map(|memory| {
        let lines = memory.text();
        let lines = lines.split_inclusive('\n').map(|line| {
            let (head, rest) = line.split_at(line.find('Z').expect("a timestamp") + 1);
            head.replace(|digit: char| digit.is_ascii_digit(), "0") + rest
        });
        lines.collect()
    });
    (ours, library)
}

/// Events of the proxy, and others that the formatter may meet.
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
fn both_formatters_print_the_same() {
    for format in [LogFormat::Text, LogFormat::Json] {
        for colours in [Colours::Off, Colours::On] {
            let (ours, library) = both(format, colours, events);
            assert_eq!(ours, library, "{format:?}, colours: {colours:?}");
            assert_eq!(ours.lines().count(), 11);
        }
    }
}

/// A formatter in place of the library's, which shows the events that are left to it.
struct LeftToLibrary;

impl<S, N> FormatEvent<S, N> for LeftToLibrary
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, _: &Event<'_>) -> fmt::Result {
        writeln!(out, "left to the library")
    }
}

#[test]
fn only_access_events_outside_spans_take_the_fast_path() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let memory = Memory::default();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(memory.clone())
            .with_ansi(false)
            .event_format(AccessLines {
                format,
                library: LeftToLibrary,
            });
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), events);
        let text = memory.text();
        let is_left: Vec<bool> = text.lines().map(|line| line == "left to the library").collect();
        assert!(!is_left[0] && !is_left[1], "{text}");
        assert!(is_left[3..].iter().all(|is_left| *is_left), "{text}");
    }
}

fn access_line(text: &str, shown: &str, number: u64, float: f64, maybe: Option<u16>) {
    tracing::info!(target: "access", text, path = %shown, number, float, maybe);
}

proptest! {
    #[test]
    fn any_value_is_printed_as_by_the_library(
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
            let (ours, library) = both(format, Colours::Off, || access_line(&text, &shown, number, float, maybe));
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
fn cached_timestamps_are_those_of_the_library() {
    let library = || {
        let mut text = String::new();
        SystemTime.format_time(&mut Writer::new(&mut text)).expect("a time");
        text
    };
    let mut timestamps = TimestampCache::EMPTY;
    for round in 0..2_000 {
        if round % 100 == 99 {
            // This simulates that a new second has begun.
            timestamps = TimestampCache {
                second: timestamps.second.saturating_sub(1),
                text: "a second ago.".to_owned(),
            };
        }
        let (mut read, before) = (String::new(), library());
        timestamps.append_now(&mut read).expect("a time");
        let after = library();
        assert!(before <= read && read <= after, "{before} {read} {after}");
        assert_eq!(read.len(), after.len());
    }
}

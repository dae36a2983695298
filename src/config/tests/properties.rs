//! Every text is read or refused: no text causes a panic, every error has a position, and every accepted configuration
//! is valid.

use std::collections::HashSet;

use proptest::{prelude::*, sample::Index};

use super::{super::values, *};

/// Reads `text` and checks the properties of the result.
fn check(text: &str) -> Result<(), TestCaseError> {
    let seen = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<_> = seen.split('\n').map(|line| line.chars().count()).collect();
    match read(text) {
        Ok(config) => {
            let names: HashSet<_> = config.upstreams.iter().map(|upstream| &upstream.name).collect();
            prop_assert!(!names.is_empty() && names.len() == config.upstreams.len());
            prop_assert!(!config.server.listen.is_empty() && !config.affinity.sources.is_empty());
            prop_assert!(config.server.max_body <= config.server.buffered_bodies);
            prop_assert!(config.affinity.wait <= config.affinity.wait_max);
            prop_assert!((0.0..=1.0).contains(&config.retry.budget) && (1..=10).contains(&config.retry.attempts));
        }
        Err(errors) => {
            let problems = errors.problems();
            prop_assert!(!problems.is_empty());
            prop_assert!(problems.is_sorted_by_key(|problem| &problem.location));
            for ConfigProblem { location, message } in problems {
                prop_assert!(!message.chars().any(char::is_control), "{:?}", message);
                if let Location::At { line, column, .. } = location {
                    let length = lines.get(line - 1);
                    prop_assert!(length.is_some_and(|length| *column <= length + 1), "{}", location);
                }
            }
        }
    }
    Ok(())
}

/// Pieces of configurations, valid and invalid.
const PIECES: &[&str] = &[
    "[server]\n",
    "[admin]\n",
    "[affinity]\n",
    "[retry]\n",
    "[timeouts]\n",
    "[[upstream]]\n",
    "[upstream]\n",
    "[[server]]\n",
    "[",
    "]",
    "\n",
    "listen",
    "max_body",
    "buffered_bodies",
    "grace",
    "token",
    "sources",
    "idle",
    "wait",
    "wait_max",
    "reread_rate",
    "attempts",
    "budget",
    "connect",
    "name",
    "base_url",
    "api_key",
    "weight",
    "models",
    "headers",
    "ca",
    "http2",
    "max_in_flight",
    "organization",
    "tls",
    "cert",
    "key",
    "upstream",
    "server",
    " = ",
    "=",
    ".",
    ",",
    "{",
    "}",
    "\"",
    "\"\"\"",
    "'''",
    "\\u00",
    "\"127.0.0.1:1\"",
    "\"unix:x\"",
    "\"64MiB\"",
    "\"5s\"",
    "\"owner\"",
    "\"a\"",
    "\"https://a/v1\"",
    "\"env:KEY\"",
    "\"gpt*\"",
    "1",
    "-1",
    "0x",
    "1e9",
    "0.5",
    "999999999999999999999999",
    "true",
    "1979-05-27",
    "nan",
    "é",
    "\u{feff}",
    "\r",
    "\0",
    "#",
    "\t",
];

/// Text that resembles a configuration closely enough to reach every reader.
fn pieces() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        check(&text)?;
    }

    #[test]
    fn pieces_of_configurations_are_read_or_refused(text in pieces()) {
        check(&text)?;
    }

    #[test]
    fn the_example_with_a_replaced_part_is_read_or_refused(from: Index, length in 0..60usize, patch in pieces()) {
        let characters: Vec<char> = EXAMPLE.chars().collect();
        let from = from.index(characters.len());
        let to = (from + length).min(characters.len());
        let text: String = characters[..from].iter().copied().chain(patch.chars()).chain(characters[to..].iter().copied()).collect();
        check(&text)?;
    }

    #[test]
    fn written_values_are_read(
        max_body in 1u64 << 10..=3 << 30,
        more in 0u64..1 << 30,
        millis in 1u64..=86_400_000,
        capacity in 1usize..=100_000_000,
        weight in 1u32..=1_000_000,
        attempts in 1u32..=10,
        budget in 0.0..=1.0,
        waits in [0u64..=86_400_000, 0u64..=86_400_000],
        flags: [bool; 3],
        ports in prop::collection::hash_set(1u16.., 1..4),
        models in prop::collection::vec("[a-z*?.-]{1,10}", 0..3),
    ) {
        let listen: Vec<_> = ports.iter().map(|port| format!("[::1]:{port}")).collect();
        let buffered = max_body + more;
        let show = |millis| values::show_duration(Duration::from_millis(millis));
        let time = show(millis);
        let (wait, wait_max) = (waits[0].min(waits[1]), waits[0].max(waits[1]));
        let text = format!(
            "[server]\nlisten = {listen:?}\nmax_body = {max_body}\nbuffered_bodies = \"{}\"\ngrace = \"{time}\"\nforwarded = {}\nroute_headers = {}\n\
             [affinity]\ncapacity = {capacity}\nwait = \"{}\"\nwait_max = \"{}\"\n[retry]\nattempts = {attempts}\nbudget = {budget:?}\n\
             [timeouts]\nidle = \"{time}\"\n{UPSTREAM}weight = {weight}\nmodels = {models:?}\nmax_in_flight = {weight}\nhttp2 = {}\n",
            values::show_size(buffered), flags[0], flags[1], show(wait), show(wait_max), flags[2],
        );
        let config = read(&text).map_err(|errors| TestCaseError::fail(errors.to_string()))?;
        let read: Vec<_> = config.server.listen.iter().map(ToString::to_string).collect();
        prop_assert_eq!(read, listen);
        prop_assert_eq!((config.server.max_body, config.server.buffered_bodies), (max_body, buffered));
        prop_assert_eq!((config.server.grace, config.timeouts.idle), (Duration::from_millis(millis), Duration::from_millis(millis)));
        let upstream = &config.upstreams[0];
        prop_assert_eq!([config.server.forwarded, config.server.route_headers, upstream.http2], flags);
        prop_assert_eq!((config.affinity.capacity, upstream.weight.get()), (capacity, weight));
        prop_assert_eq!(upstream.max_in_flight, Some(weight));
        prop_assert_eq!(config.retry, RetrySettings { attempts, budget, ..RetrySettings::default() });
        prop_assert_eq!((config.affinity.wait, config.affinity.wait_max), (Duration::from_millis(wait), Duration::from_millis(wait_max)));
        prop_assert!(upstream.models.patterns().eq(models.iter().map(String::as_str)));
    }
}

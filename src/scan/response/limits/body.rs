//! The dialects of the body: members that name when a limit is reset.

use std::time::Duration;

use serde_json::{Map, Value};

use super::source::{LimitSource, number_of};

/// The maximum depth of objects in the error object that are read. Google writes `error.details[].metadata.quotaResetDelay`.
const MAX_DEPTH: usize = 3;
/// The maximum number of elements of an array that are read.
const MAX_ELEMENTS: usize = 16;
/// Longer names are not in the tables.
const MAX_NAME: usize = 32;

/// The objects that may be in an error object, or beside it, and that may name a reset. Names are compared as
/// [`normalized`] writes them.
const OBJECTS: [&str; 15] = [
    "data",
    "details",
    "error",
    "extra",
    "innererror",
    "limits",
    "metadata",
    "parameters",
    "primary",
    "primarywindow",
    "quota",
    "ratelimit",
    "ratelimits",
    "secondary",
    "secondarywindow",
];

/// Members that name a moment: a date, or a number since 1970 in seconds or milliseconds. Zero means that none was set.
const MOMENTS: [&str; 20] = [
    "availableat",
    "blockeduntil",
    "cooldownuntil",
    "nextavailableat",
    "nextresetat",
    "nextresettime",
    "quotaresettimestamp",
    "ratelimitreset",
    "ratelimitresetat",
    "ratelimitresetsat",
    "resetat",
    "resetatms",
    "resetdate",
    "resetsat",
    "resetsatms",
    "resettime",
    "resettimestamp",
    "retryat",
    "retryaftertimestamp",
    "xratelimitreset",
];

/// Members that name a delay in milliseconds.
const MILLISECONDS: [&str; 8] = [
    "cooldownms",
    "resetafterms",
    "resetinms",
    "resetsinms",
    "retryafterms",
    "retryaftermilliseconds",
    "retrydelayms",
    "waitms",
];

/// Members that name a delay: a number of seconds, or a text with units.
const DELAYS: [&str; 23] = [
    "cooldownseconds",
    "quotaresetdelay",
    "reset",
    "resetafter",
    "resetafterseconds",
    "resetin",
    "resetinseconds",
    "resets",
    "resetsin",
    "resetsinseconds",
    "retryafter",
    "retryaftersec",
    "retryafterseconds",
    "retryaftersecs",
    "retrydelay",
    "retrydelayseconds",
    "retryin",
    "retryinseconds",
    "secondsuntilreset",
    "timeuntilreset",
    "waitseconds",
    "waittime",
    "waittimeseconds",
];

/// Reads the members of the error object, of the objects in it, and of the object around it. The latest reset of them
/// counts: several objects name several limits, and all of them must be reset.
pub(super) fn members(source: &LimitSource<'_>) -> Option<Duration> {
    let error = source
        .error
        .members
        .and_then(|error| in_object(source, error, MAX_DEPTH));
    let around = || in_members(source, source.error.around?);
    error.filter(|reset| !reset.is_zero()).or_else(around).or(error)
}

/// The latest reset that `object` or an object in it names. A window that is not exhausted names none.
fn in_object(source: &LimitSource<'_>, object: &Map<String, Value>, depth: usize) -> Option<Duration> {
    if is_open(object) {
        return None;
    }
    let nested = object.iter().filter(|(name, _)| is_in(&OBJECTS, name));
    let nested = nested.flat_map(|(_, value)| match value {
        Value::Array(elements) => &elements[..elements.len().min(MAX_ELEMENTS)],
        other => std::slice::from_ref(other),
    });
    let resets = nested
        .filter(|_| depth > 0)
        .filter_map(|value| in_object(source, value.as_object()?, depth - 1));
    resets.chain(in_members(source, object)).max()
}

/// The reset that the members of `object` name, the most exact first.
fn in_members(source: &LimitSource<'_>, object: &Map<String, Value>) -> Option<Duration> {
    let latest = |names: &[&str], read: &dyn Fn(&Value) -> Option<Duration>| {
        let named = object.iter().filter(|(name, _)| is_in(names, name));
        named.filter_map(|(_, value)| read(value)).max()
    };
    let moment = |value: &Value| source.until_value(value).filter(|_| number_of(value) != Some(0.0));
    let milliseconds = |value: &Value| source.until_milliseconds(number_of(value)?);
    let moments = latest(&MOMENTS, &moment);
    if moments.is_some_and(|reset| !reset.is_zero()) {
        return moments;
    }
    let seconds = |value: &Value| {
        let seconds = || source.until_seconds(number_of(value)?);
        source.until_value(value).or_else(seconds)
    };
    let delays = latest(&MILLISECONDS, &milliseconds).or_else(|| latest(&DELAYS, &seconds));
    delays.or(moments)
}

/// Whether the object is a window that has capacity left, so that its reset says nothing about the limit that was hit.
fn is_open(object: &Map<String, Value>) -> bool {
    let number = |name: &str| object.get(name).and_then(Value::as_f64);
    let has_rest = number("remaining").is_some_and(|remaining| remaining > 0.0);
    has_rest || number("used_percent").is_some_and(|used| used < 100.0)
}

/// Whether `name` is in `names`, however it is written: `retryAfterMs`, `retry_after_ms` and `Retry-After-Ms` are equal.
fn is_in(names: &[&str], name: &str) -> bool {
    name.len() <= MAX_NAME && names.contains(&normalized(name).as_str())
}

/// `name` in lower-case letters, without `_` and `-`.
fn normalized(name: &str) -> String {
    let letters = name.chars().filter(|letter| !matches!(letter, '_' | '-'));
    letters.map(|letter| letter.to_ascii_lowercase()).collect()
}

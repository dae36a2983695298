//! Reads single values: durations, sizes, numbers, addresses.
//!
//! Errors are predicates that follow the field's name: `must be between 1 and 9`.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::RangeInclusive,
    os::unix::net::SocketAddr as UnixAddr,
    path::Path,
    time::Duration,
};

use toml::de::DeValue;

use super::Listen;

/// A value's type as a word with its article.
pub(super) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// What the credentials of most providers begin with, client keys of Steadfast among them.
pub(super) const CREDENTIAL: &str = "sk-";

/// What the user wrote, safe to print on a terminal and not too long. What looks like a credential in the place of
/// something else is not repeated.
pub(super) fn quoted(text: &str) -> String {
    const MOST: usize = 200;
    if text.starts_with(CREDENTIAL) {
        return format!("\"{CREDENTIAL}…\"");
    }
    match text.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{:?}…", text.get(..cut).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

pub(super) fn text<'a>(value: &'a DeValue<'_>) -> Result<&'a str, String> {
    value
        .as_str()
        .ok_or_else(|| format!("must be a string, not {}", kind(value)))
}

pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value
        .as_bool()
        .ok_or_else(|| format!("must be true or false, not {}", kind(value)))
}

/// An integer within `range`. Any width may be written; what does not fit 128 bits is out of every range.
pub(super) fn integer(value: &DeValue<'_>, range: RangeInclusive<u64>) -> Result<u64, String> {
    let DeValue::Integer(written) = value else {
        return Err(format!("must be an integer, not {}", kind(value)));
    };
    i128::from_str_radix(written.as_str(), written.radix())
        .ok()
        .and_then(|number| u64::try_from(number).ok())
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("must be between {} and {}", range.start(), range.end()))
}

/// A number within `range`, with or without a fraction.
pub(super) fn fraction(value: &DeValue<'_>, range: RangeInclusive<f64>) -> Result<f64, String> {
    let number = match value {
        DeValue::Float(written) => written.as_str().parse().ok(),
        DeValue::Integer(written) => i32::from_str_radix(written.as_str(), written.radix())
            .ok()
            .map(f64::from),
        other => return Err(format!("must be a number, not {}", kind(other))),
    };
    number
        .filter(|number| range.contains(number))
        .ok_or_else(|| format!("must be between {:?} and {:?}", range.start(), range.end()))
}

/// Units of time in milliseconds, largest first: the order in which they may be written.
const TIME_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A duration within `range`, such as `"1h30m"`.
pub(super) fn duration(value: &DeValue<'_>, range: RangeInclusive<Duration>) -> Result<Duration, String> {
    const WRITE: &str = "such as \"5s\", \"500ms\" or \"1h30m\"";
    let DeValue::String(written) = value else {
        return Err(format!("must be a duration {WRITE}, not {}", kind(value)));
    };
    let parsed =
        parse_duration(written).ok_or_else(|| format!("must be a duration {WRITE}, not {}", quoted(written)))?;
    if range.contains(&parsed) {
        Ok(parsed)
    } else {
        let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
        Err(format!("must be between {least} and {most}"))
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut units = TIME_UNITS.iter();
    let mut millis = 0u64;
    loop {
        let (number, after) = leading_number(rest)?;
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at_checked(letters)?;
        // The search goes on where the last one ended, so that units stand in order and once.
        let (_, scale) = units.find(|(name, _)| *name == unit)?;
        millis = millis.checked_add(number.checked_mul(*scale)?)?;
        rest = after;
        if rest.is_empty() {
            return Some(Duration::from_millis(millis));
        }
    }
}

/// A duration as the user would write it.
pub(super) fn show_duration(duration: Duration) -> String {
    let mut millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut shown = String::new();
    for (unit, scale) in TIME_UNITS {
        if millis >= scale {
            shown += &format!("{}{unit}", millis / scale);
            millis %= scale;
        }
    }
    if shown.is_empty() { "0s".to_owned() } else { shown }
}

/// Units of size in bytes. The binary ones come first, for [`show_size`].
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// A number of bytes within `range`: an integer, or a string such as `"64MiB"`.
pub(super) fn size(value: &DeValue<'_>, range: RangeInclusive<u64>) -> Result<u64, String> {
    const WRITE: &str = "such as \"64MiB\", \"1GiB\" or a number of bytes";
    let bytes = match value {
        DeValue::Integer(written) => u64::from_str_radix(written.as_str(), written.radix()).ok(),
        DeValue::String(written) => {
            let wrong = || format!("must be a size {WRITE}, not {}", quoted(written));
            let (number, unit) = leading_number(written).ok_or_else(wrong)?;
            let unit = unit.trim_start_matches(' ');
            let (_, scale) = SIZE_UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            number.checked_mul(*scale)
        }
        other => return Err(format!("must be a size {WRITE}, not {}", kind(other))),
    };
    bytes.filter(|bytes| range.contains(bytes)).ok_or_else(|| {
        format!(
            "must be between {} and {}",
            show_size(*range.start()),
            show_size(*range.end())
        )
    })
}

/// A size as the user would write it.
pub(super) fn show_size(bytes: u64) -> String {
    let whole = SIZE_UNITS
        .iter()
        .find(|(_, scale)| bytes >= *scale && bytes.is_multiple_of(*scale));
    match whole {
        Some((unit, scale)) => format!("{}{unit}", bytes / scale),
        None => format!("{bytes}B"),
    }
}

/// The number that `text` starts with, and the rest. Digits only; one that is too large is the largest.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at_checked(end)?;
    (!digits.is_empty()).then(|| (digits.parse().unwrap_or(u64::MAX), rest))
}

/// Where to listen: `IP:PORT`, `localhost:PORT`, or `unix:PATH` relative to `folder`.
pub(super) fn listen(text: &str, folder: &Path) -> Result<Listen, String> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = folder.join(path);
        return match UnixAddr::from_pathname(&path) {
            Ok(address) if !address.is_unnamed() && !text.ends_with(['/', ':']) => Ok(Listen::Unix(path)),
            Ok(_) => Err("must name a socket's path after \"unix:\"".to_owned()),
            Err(_) => Err("names a socket's path that is too long for this system; use a shorter one".to_owned()),
        };
    }
    socket_addr(text).map(Listen::Tcp)
}

/// An IP address and port; `localhost` is 127.0.0.1 without asking a resolver (RFC 6761 §6.3).
pub(super) fn socket_addr(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let wrong = || {
        format!(
            "must be an IP address and port such as \"127.0.0.1:8080\", not {}",
            quoted(text)
        )
    };
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port: u16 = port.parse().ok().filter(|_| digits).ok_or_else(wrong)?;
    match host {
        "localhost" => Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)),
        "" | "*" => Err(format!(
            "must name the address to listen on; write \"127.0.0.1:{port}\""
        )),
        _ => Err(wrong()),
    }
}

/// Whether only this machine can connect to `address`.
pub(super) fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANY_TIME: RangeInclusive<Duration> = Duration::ZERO..=Duration::MAX;

    fn string(text: &str) -> DeValue<'_> {
        DeValue::String(text.into())
    }

    #[test]
    fn durations() {
        for (written, millis) in [
            ("5s", Some(5_000)),
            ("500ms", Some(500)),
            ("10m", Some(600_000)),
            ("1h30m", Some(5_400_000)),
            ("1h2m3s4ms", Some(3_723_004)),
            ("0s", Some(0)),
            ("0h5s", Some(5_000)),
            ("", None),
            ("5", None),
            ("s", None),
            ("5 s", None),
            ("-5s", None),
            ("+5s", None),
            ("1.5s", None),
            ("5S", None),
            ("5s5s", None),
            ("5s1h", None),
            ("5sx", None),
            ("99999999999999999999h", None),
            ("٣s", None),
        ] {
            let expected = millis.map(Duration::from_millis);
            assert_eq!(duration(&string(written), ANY_TIME).ok(), expected, "{written}");
        }
    }

    #[test]
    fn sizes() {
        for (written, bytes) in [
            ("64MiB", Some(64 << 20)),
            ("64 MiB", Some(64 << 20)),
            ("1GiB", Some(1 << 30)),
            ("64KB", Some(64_000)),
            ("7B", Some(7)),
            ("0B", Some(0)),
            ("64", None),
            ("64mib", None),
            ("1.5GiB", None),
            ("MiB", None),
            ("", None),
            ("99999999999999999999B", Some(u64::MAX)),
            ("99999999999999999999KiB", None),
        ] {
            assert_eq!(size(&string(written), 0..=u64::MAX).ok(), bytes, "{written}");
        }
    }

    #[test]
    fn addresses() {
        for (written, read) in [
            ("127.0.0.1:8080", Some("127.0.0.1:8080")),
            ("[::1]:0", Some("[::1]:0")),
            ("localhost:80", Some("127.0.0.1:80")),
            ("localhost:+80", None),
            ("localhost", None),
            ("localhost:65536", None),
            (":8080", None),
            ("*:8080", None),
            ("8080", None),
            ("example.com:80", None),
            ("", None),
        ] {
            let expected = read.map(|address| address.parse().unwrap());
            assert_eq!(socket_addr(written).ok(), expected, "{written}");
        }
        let folder = Path::new("/etc/steadfast");
        assert_eq!(
            listen("unix:s.sock", folder),
            Ok(Listen::Unix("/etc/steadfast/s.sock".into()))
        );
        assert_eq!(
            listen("unix:/run/s.sock", folder),
            Ok(Listen::Unix("/run/s.sock".into()))
        );
        for wrong in ["unix:", "unix:/run/", "unix:a\0b", &format!("unix:{}", "x".repeat(200))] {
            assert!(listen(wrong, folder).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(millis in prop_oneof![0..100_000u64, any::<u64>()], bytes: u64) {
            let time = Duration::from_millis(millis);
            prop_assert_eq!(duration(&string(&show_duration(time)), ANY_TIME), Ok(time));
            prop_assert_eq!(size(&string(&show_size(bytes)), 0..=u64::MAX), Ok(bytes));
        }

        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = duration(&string(&text), ANY_TIME);
            let _ = size(&string(&text), 0..=u64::MAX);
            let _ = listen(&text, Path::new(""));
            prop_assert!(quoted(&text).chars().all(|c| !c.is_control()));
        }
    }
}

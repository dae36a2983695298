//! The origin of web pages, as a browser writes it into `Origin` (RFC 6454 section 6.2).

use http::uri::Authority;

/// Reads an origin such as `https://app.example`. Returns it as a browser writes it: in lower case, and without the
/// default port of its scheme.
///
/// # Errors
/// If the text is not an origin. The message is a predicate that follows the field's name.
pub(super) fn parse(text: &str) -> Result<String, String> {
    let bad = || {
        format!("must have origins such as \"https://app.example\" (a scheme, a host and perhaps a port), not {text:?}")
    };
    let (scheme, authority) = text.split_once("://").ok_or_else(bad)?;
    let mut letters = scheme.bytes();
    let is_scheme = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte));
    if !is_scheme {
        return Err(bad());
    }
    if let Some(origin) = text.strip_suffix('/').filter(|_| authority.ends_with('/')) {
        return Err(format!("must have origins without a path; write {origin:?}"));
    }
    let parsed: Authority = authority.parse().map_err(|_| bad())?;
    let port = parsed.as_str().strip_prefix(parsed.host()).ok_or_else(bad)?;
    let has_good_port = port.is_empty() || parsed.port_u16().is_some();
    if parsed.host().is_empty() || !has_good_port || authority.contains('@') {
        return Err(bad());
    }
    let origin = text.to_ascii_lowercase();
    let default_port = match scheme.to_ascii_lowercase().as_str() {
        "https" => ":443",
        "http" => ":80",
        _ => return Ok(origin),
    };
    Ok(origin.strip_suffix(default_port).unwrap_or(&origin).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_written_as_browsers_write_it() {
        for (text, expected) in [
            ("https://app.example", "https://app.example"),
            ("HTTPS://App.Example:443", "https://app.example"),
            ("http://localhost:80", "http://localhost"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
            ("app://obsidian.md", "app://obsidian.md"),
        ] {
            assert_eq!(parse(text).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn a_text_that_is_no_origin_is_refused_with_advice() {
        for text in [
            "",
            "*",
            "null",
            "app.example",
            "https://",
            "://app.example",
            "https://app.example/",
            "https://app.example/path",
            "https://user@app.example",
            "https://app.example:99999",
            "https://app example",
            "https://app.example:",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let advice = parse("https://app.example/").expect_err("a path");
        assert!(advice.contains("write \"https://app.example\""), "{advice}");
    }
}

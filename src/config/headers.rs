//! `headers` of an upstream: fields that every request to it carries.

use http::{HeaderName, header};
use toml::de::DeValue;

use super::{
    Headers,
    reader::{Reader, Section},
    secrets::{Surroundings, header_value},
    values::{kind, quoted, text},
};

/// What Steadfast sets itself, what frames the message, and what belongs to one connection (RFC 9110 §7.6.1).
fn reserved(name: &HeaderName) -> Option<&'static str> {
    const OWN: [HeaderName; 13] = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::CONTENT_ENCODING,
        header::TRANSFER_ENCODING,
        header::CONNECTION,
        header::UPGRADE,
        header::TE,
        header::TRAILER,
        header::EXPECT,
        header::ACCEPT_ENCODING,
        header::PROXY_AUTHORIZATION,
        header::PROXY_AUTHENTICATE,
    ];
    if name == header::AUTHORIZATION {
        Some("is set from api_key")
    } else if OWN.contains(name) || ["keep-alive", "proxy-connection", "http2-settings"].contains(&name.as_str()) {
        Some("belongs to the connection or the message")
    } else {
        None
    }
}

pub(super) fn read(reader: &mut Reader<'_>, section: &Section<'_>, around: Surroundings<'_>) -> Headers {
    let Some(value) = section.get("headers") else {
        return Vec::new();
    };
    let DeValue::Table(table) = value.get_ref() else {
        let problem = format!(
            "headers must be a table, not {}; write {{ \"name\" = \"value\" }}",
            kind(value.get_ref())
        );
        reader.error(value, problem);
        return Vec::new();
    };
    let mut headers = Headers::with_capacity(table.len());
    for (key, value) in table {
        let shown = quoted(key.get_ref());
        let Ok(name) = key.get_ref().parse::<HeaderName>() else {
            reader.error(key, format!("headers: {shown} is not a header's name"));
            continue;
        };
        if let Some(why) = reserved(&name) {
            reader.error(key, format!("headers: {shown} {why}; remove it"));
        } else if headers.iter().any(|(other, _)| *other == name) {
            reader.error(key, format!("headers: {shown} is written twice; keep one"));
        } else {
            match text(value.get_ref()).and_then(|text| header_value(text, around)) {
                Ok(value) => headers.push((name, value)),
                Err(problem) => reader.error(value, format!("headers: the value of {shown} {problem}")),
            }
        }
    }
    headers
}

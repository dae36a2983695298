//! `headers` of an upstream: the headers that are set on every request to it.

use http::{HeaderName, HeaderValue, header};
use toml::de::DeValue;

use super::{
    document::DocumentReader,
    fields::upstream::HEADERS,
    reader::Section,
    secrets::{ResolveContext, SecretForm, header_value},
    values::{kind, quoted, text},
};

/// Configured headers, in the order of their names.
pub(super) type Headers = Vec<(HeaderName, HeaderValue)>;

/// Why a header may not be configured: Steadfast sets it, or it frames the message, or it belongs to one connection
/// (RFC 9110 §7.6.1). `None` if it may be configured.
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
    } else if name.as_str() == "steadfast-hop" {
        Some("is set by Steadfast to find loops")
    } else if OWN.contains(name) || ["keep-alive", "proxy-connection", "http2-settings"].contains(&name.as_str()) {
        Some("belongs to the connection or the message")
    } else {
        None
    }
}

/// The headers of an upstream as they were read.
#[derive(Default)]
pub(super) struct ReadHeaders {
    pub(super) all: Headers,
    /// The names of those whose values were read from an environment variable or a file.
    pub(super) referenced: Vec<HeaderName>,
}

/// Reads `headers` of an upstream. Invalid entries are reported and left out.
pub(super) fn read(reader: &mut DocumentReader<'_>, section: &Section<'_>, context: ResolveContext<'_>) -> ReadHeaders {
    let Some(value) = section.get(&HEADERS) else {
        return ReadHeaders::default();
    };
    let DeValue::Table(table) = value.get_ref() else {
        let problem = format!(
            "headers must be a table, not {}; write {{ \"name\" = \"value\" }}",
            kind(value.get_ref())
        );
        reader.error(value, problem);
        return ReadHeaders::default();
    };
    let mut headers = ReadHeaders::default();
    for (key, value) in table {
        let shown = quoted(key.get_ref());
        let Ok(name) = key.get_ref().parse::<HeaderName>() else {
            reader.error(key, format!("headers: {shown} is not a valid header name"));
            continue;
        };
        if let Some(why) = reserved(&name) {
            reader.error(key, format!("headers: {shown} {why}; remove it"));
        } else if headers.all.iter().any(|(other, _)| *other == name) {
            reader.error(key, format!("headers: {shown} is written twice; keep one"));
        } else {
            match text(value.get_ref()).and_then(|text| header_value(text, context)) {
                Ok((value, form)) => {
                    if form == SecretForm::Reference {
                        headers.referenced.push(name.clone());
                    }
                    headers.all.push((name, value));
                }
                Err(problem) => reader.error(value, format!("headers: the value of {shown} {problem}")),
            }
        }
    }
    headers
}

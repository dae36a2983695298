//! Bodies of `multipart/form-data` (RFC 7578): the fields and files of a form.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use memchr::memmem;
use serde_json::{Value, json};

use super::super::api_error::ApiError;
use super::parsed::ParsedRequest;

/// A part of a form.
#[derive(Debug, PartialEq)]
pub(super) struct FormPart {
    pub name: String,
    /// The name of the file, if the part is a file.
    pub filename: Option<String>,
    pub content: Bytes,
}

/// A form that has been read.
#[derive(Debug)]
pub(super) struct SimForm(Vec<FormPart>);

impl SimForm {
    /// Reads the body of a request as a form.
    pub(super) fn read(call: &ParsedRequest<'_>) -> Result<Self, ApiError> {
        let kind = call.head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let boundary = kind.filter(|kind| is_form(kind)).and_then(boundary);
        let boundary = boundary.ok_or_else(|| ApiError::not_a_form("the content type has no boundary"))?;
        let parts = parts(&call.plain, boundary).ok_or_else(|| ApiError::not_a_form("a part is not complete"))?;
        Ok(Self(parts))
    }

    /// Returns the text of a field.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let part = self
            .0
            .iter()
            .find(|part| part.name == name && part.filename.is_none())?;
        std::str::from_utf8(&part.content).ok()
    }

    /// Returns a file with its name.
    pub(super) fn file(&self, name: &str) -> Result<(String, Bytes), ApiError> {
        let part = self.0.iter().find(|part| part.name == name);
        let part = part.ok_or_else(|| ApiError::missing(name))?;
        // This is a copy, because the original bytes keep the whole body alive.
        let content = Bytes::copy_from_slice(&part.content);
        Ok((part.filename.clone().unwrap_or_else(|| name.to_owned()), content))
    }

    /// Returns the fields that are texts as a JSON object, for checks that both kinds of bodies share.
    pub(super) fn json(&self) -> Value {
        let mut object = json!({});
        for part in self.0.iter().filter(|part| part.filename.is_none()) {
            object[part.name.as_str()] = String::from_utf8_lossy(&part.content).into();
        }
        object
    }
}

/// Whether a content type is that of a form.
pub(super) fn is_form(kind: &str) -> bool {
    kind.get(..19)
        .is_some_and(|kind| kind.eq_ignore_ascii_case("multipart/form-data"))
}

fn boundary(kind: &str) -> Option<&str> {
    let parameters = kind.split(';').skip(1).map(str::trim);
    parameters
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("boundary"))
        .map(|(_, value)| value.trim_matches('"'))
        .filter(|value| !value.is_empty())
}

/// Returns the parts of a body, or `None` if it is not a complete form.
fn parts(body: &Bytes, boundary: &str) -> Option<Vec<FormPart>> {
    let delimiter = format!("\r\n--{boundary}");
    let first = memmem::find(body, delimiter.get(2..)?.as_bytes())?;
    let mut rest = body.slice(first + delimiter.len() - 2..);
    let mut parts = Vec::new();
    loop {
        if rest.starts_with(b"--") {
            return Some(parts);
        }
        let begin = memmem::find(&rest, b"\r\n")?;
        // The head begins after the line break of the delimiter. It may be empty.
        let head_end = begin + memmem::find(rest.get(begin..)?, b"\r\n\r\n")?;
        let content = rest.slice(head_end + 4..);
        let end = memmem::find(&content, delimiter.as_bytes())?;
        let head = std::str::from_utf8(rest.get(begin..head_end)?).ok()?;
        parts.push(FormPart {
            name: parameter(head, "name")?,
            filename: parameter(head, "filename"),
            content: content.slice(..end),
        });
        rest = content.slice(end + delimiter.len()..);
    }
}

/// Returns a parameter of the `content-disposition` of a part.
fn parameter(head: &str, name: &str) -> Option<String> {
    let line = head.lines().find(|line| {
        line.get(..20)
            .is_some_and(|start| start.eq_ignore_ascii_case("content-disposition:"))
    })?;
    let start = format!(" {name}=");
    let at = line.find(&start)? + start.len();
    let value = line.get(at..)?;
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next()?,
        None => value.split(';').next()?.trim(),
    };
    Some(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_files_are_found_in_their_parts() {
        let body = b"preamble\r\n--b\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n--b\r\n\
            content-disposition: form-data; filename=\"a.txt\"; name=\"file\"\r\nContent-Type: text/plain\r\n\r\n\
            one\r\n--two\r\n--b--\r\n";
        let parts = parts(&Bytes::from_static(body), "b").unwrap();
        let part = |name: &str, filename: Option<&str>, content: &'static str| FormPart {
            name: name.to_owned(),
            filename: filename.map(str::to_owned),
            content: content.into(),
        };
        assert_eq!(
            parts,
            [
                part("purpose", None, "assistants"),
                part("file", Some("a.txt"), "one\r\n--two")
            ]
        );
        let form = SimForm(parts);
        assert_eq!(form.text("purpose"), Some("assistants"));
        assert_eq!(form.file("file").unwrap(), ("a.txt".to_owned(), "one\r\n--two".into()));
        assert_eq!(form.json(), json!({"purpose": "assistants"}));
        assert!(form.file("other").is_err());
    }

    #[test]
    fn broken_forms_are_refused() {
        for broken in [
            "",
            "--b",
            "--b\r\n",
            "--b\r\n\r\nx",
            "--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx",
        ] {
            assert_eq!(parts(&Bytes::from_static(broken.as_bytes()), "b"), None, "{broken}");
        }
        assert_eq!(parts(&Bytes::from_static(b"--b--"), "b"), Some(Vec::new()));
    }

    #[test]
    fn the_boundary_is_read_from_the_content_type() {
        assert_eq!(
            boundary("multipart/form-data; charset=x; Boundary=\"a b\""),
            Some("a b")
        );
        assert_eq!(boundary("multipart/form-data; boundary=ab"), Some("ab"));
        assert_eq!(boundary("multipart/form-data"), None);
        assert!(is_form("Multipart/Form-Data; x") && !is_form("application/json"));
    }
}

//! Part of the first stage: recognises a form (`multipart/form-data`) by the head of its request.

use http::{HeaderMap, header::CONTENT_TYPE};

use crate::{
    endpoint::Inspection,
    fault::Fault,
    proxy::request::target::RequestTarget,
    scan::{Boundary, EncodingKind, FormExtent, FormType},
    wire::Framing,
};

/// A form in the body of a request, of which fields are read.
pub(in crate::proxy) struct ReceivedForm {
    /// The boundary between the parts.
    pub boundary: Boundary,
    /// How much of the form is read.
    pub extent: FormExtent,
}

/// The form in the body of a request with these `headers`; `None` if there is none, or if none of its fields are read.
///
/// # Errors
/// [`Fault::AmbiguousFormType`] if servers may read another boundary, or no form.
pub(in crate::proxy) fn read(
    headers: &HeaderMap,
    target: &RequestTarget,
    framing: Framing,
    coding: EncodingKind,
) -> Result<Option<Box<ReceivedForm>>, Fault> {
    let extent = match (target.endpoint.inspection(), coding) {
        (Inspection::Always | Inspection::IfJson, _) | (_, EncodingKind::Unknown) => return Ok(None),
        (Inspection::Forms | Inspection::Fields, _) if target.takes_model_in_form() => FormExtent::Whole,
        // Only the beginning of such a body is read, so it is not decompressed.
        (Inspection::Forms | Inspection::Fields, EncodingKind::Known(_)) => return Ok(None),
        (Inspection::Forms | Inspection::Fields, EncodingKind::Identity) => FormExtent::BeforeFiles,
    };
    if framing == Framing::None {
        return Ok(None);
    }
    let types = headers.get_all(CONTENT_TYPE);
    let is_repeated = types.iter().count() > 1;
    let mut form = None;
    for content_type in types {
        match FormType::read(content_type.as_bytes()) {
            FormType::Other => {}
            _ if is_repeated => {
                return Err(Fault::AmbiguousFormType {
                    problem: "is there twice",
                });
            }
            FormType::Ambiguous(problem) => return Err(Fault::AmbiguousFormType { problem }),
            FormType::Form(boundary) => form = Some(Box::new(ReceivedForm { boundary, extent })),
        }
    }
    Ok(form)
}

#[cfg(test)]
mod tests {
    use http::{Method, Request};

    use super::*;
    use crate::{
        proxy::request::kit::{self, OPEN},
        scan::Encoding,
    };

    const FORM: &str = "multipart/form-data; boundary=b";

    /// How much of a request's form is read.
    fn extent(path: &str, fields: &[(&str, &str)], framing: Framing) -> Result<Option<FormExtent>, &'static str> {
        let snapshot = kit::snapshot(OPEN);
        let mut request = Request::builder().method(Method::POST).uri(path).header("host", "h");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        match kit::admit(&snapshot, request, framing) {
            Ok(admitted) => Ok(admitted.form.map(|form| form.extent)),
            Err(fault) => Err(fault.code()),
        }
    }

    #[test]
    fn the_path_decides_how_much_of_a_form_is_read() {
        let (whole, beginning) = (Some(FormExtent::Whole), Some(FormExtent::BeforeFiles));
        for (path, expected) in [
            ("/v1/audio/transcriptions", whole),
            ("/v1/images/edits", whole),
            ("/v1/videos", whole),
            ("/v1/videos/v-1/remix", whole),
            ("/v1/moderations", whole),
            ("/v1/files", beginning),
            ("/v1/uploads/u-1/parts", beginning),
            ("/v1/responses", None),
            ("/v1/organization/x", None),
        ] {
            assert_eq!(
                extent(path, &[("content-type", FORM)], Framing::Length(9)),
                Ok(expected),
                "{path}"
            );
            assert_eq!(
                extent(path, &[("content-type", FORM)], Framing::None),
                Ok(None),
                "{path}"
            );
            assert_eq!(
                extent(path, &[("content-type", "text/plain")], Framing::Chunked),
                Ok(None),
                "{path}"
            );
        }
    }

    #[test]
    fn a_compressed_form_is_read_only_where_it_is_kept() {
        for (path, coding, expected) in [
            ("/v1/audio/transcriptions", "gzip", Some(FormExtent::Whole)),
            ("/v1/audio/transcriptions", "unheard-of", None),
            ("/v1/files", "gzip", None),
        ] {
            let fields = [("content-type", FORM), ("content-encoding", coding)];
            assert_eq!(extent(path, &fields, Framing::Chunked), Ok(expected), "{path} {coding}");
        }
        assert_eq!(Encoding::from_header("unheard-of"), EncodingKind::Unknown);
    }

    #[test]
    fn an_uncertain_boundary_is_refused_where_a_form_is_read() {
        let refused = Err("ambiguous_body");
        for fields in [
            &[("content-type", "multipart/form-data")][..],
            &[("content-type", "multipart/form-data; boundary=a; boundary=b")],
            &[("content-type", FORM), ("content-type", FORM)],
            &[("content-type", FORM), ("content-type", "text/plain")],
            &[("content-type", "text/plain"), ("content-type", FORM)],
        ] {
            for path in ["/v1/audio/translations", "/v1/files"] {
                assert_eq!(extent(path, fields, Framing::Chunked), refused, "{path} {fields:?}");
            }
            assert_eq!(
                extent("/v1/responses", fields, Framing::Chunked),
                Ok(None),
                "{fields:?}"
            );
        }
        // A body whose type is JSON is read as JSON.
        let fields = [("content-type", "application/json"), ("content-type", FORM)];
        assert_eq!(extent("/v1/audio/translations", &fields, Framing::Chunked), Ok(None));
    }
}

//! The content codings that upstreams are asked for.

use http::{
    HeaderMap, HeaderValue,
    header::{ACCEPT_ENCODING, Entry},
};

use crate::{
    proxy::turn::answer_content::AnswerContent,
    scan::{Encoding, EncodingKind},
    state::Snapshot,
};

/// Restricts `accept-encoding` to what Steadfast must be able to read of an answer with this `content`.
pub(super) fn restrict(headers: &mut HeaderMap, content: AnswerContent, snapshot: &Snapshot) {
    let mut upstreams = snapshot.upstreams().iter();
    if content == AnswerContent::Object {
        // The id of an object could not be read from a compressed answer.
        headers.remove(ACCEPT_ENCODING);
    } else if upstreams.any(|upstream| !upstream.confidential.is_empty()) {
        keep_readable_codings(headers);
    }
}

/// Removes the codings that Steadfast cannot decompress from `accept-encoding`: an answer is searched for the credential of
/// its upstream.
fn keep_readable_codings(headers: &mut HeaderMap) {
    let Entry::Occupied(mut entry) = headers.entry(ACCEPT_ENCODING) else {
        return;
    };
    let mut kept: Vec<&str> = Vec::new();
    let mut is_all = true;
    for item in entry.iter().flat_map(|value| value.to_str().unwrap_or("?").split(',')) {
        let name = item.split_once(';').map_or(item, |(name, _)| name);
        match Encoding::from_header(name) {
            EncodingKind::Unknown => is_all = false,
            EncodingKind::Identity | EncodingKind::Known(_) => kept.push(item.trim()),
        }
    }
    if is_all {
        return;
    }
    let kept = HeaderValue::try_from(kept.join(", ")).expect("parts of header values are header values");
    match kept.is_empty() {
        true => {
            entry.remove_entry_mult();
        }
        false => {
            entry.insert_mult(kept);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::headers::tests::headers;

    #[test]
    fn only_readable_codings_are_asked_for() {
        for (sent, expected) in [
            (&["gzip, zstd"][..], &["gzip, zstd"][..]),
            (&["gzip;q=0.5", "deflate"], &["gzip;q=0.5", "deflate"]),
            (&["gzip, deflate, br, zstd"], &["gzip, deflate, zstd"]),
            (&["br;q=1.0, gzip;q=0.8, *;q=0.1"], &["gzip;q=0.8"]),
            (&["br", "*"], &[]),
            (&["\u{e9}, gzip"], &[]),
            (&["identity;q=0"], &["identity;q=0"]),
            (&[], &[]),
        ] {
            let fields: Vec<(&str, &str)> = sent.iter().map(|value| ("accept-encoding", *value)).collect();
            let mut map = headers(&fields);
            keep_readable_codings(&mut map);
            assert_eq!(
                map.get_all(ACCEPT_ENCODING).iter().collect::<Vec<_>>(),
                expected,
                "{sent:?}"
            );
        }
    }
}

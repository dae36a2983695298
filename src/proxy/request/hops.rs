//! The hop marker, by which a gateway recognises a request that it has sent itself.
//!
//! Every request that Steadfast sends to an upstream carries the field `steadfast-hop` with the id of this gateway, which
//! is random and belongs to one process. The markers that a request had on arrival stay, in the order of the hops, so a
//! gateway also finds its own id in a request that has come back through other gateways. Such a request is refused before
//! its body is read and before it takes a connection to an upstream. Via (RFC 9110 section 7.6.3) would say the same, but
//! some servers answer requests with that field differently, for example without compression.
//!
//! A client that writes the field itself can only cause the refusal of its own request.

use http::{HeaderMap, HeaderValue};

use crate::{fault::Fault, proxy::headers::HOP, state::Snapshot};

/// The maximum number of gateways that a request may have passed through. Replicas behind one load balancer have different
/// ids, so a loop over many of them is ended by this number.
const MAX_HOPS: usize = 8;

/// Checks that a request has not passed through this gateway before, nor through too many others.
///
/// # Errors
/// [`Fault::LoopDetected`]
#[inline]
pub(in crate::proxy) fn check(snapshot: &Snapshot, headers: &HeaderMap) -> Result<(), Fault> {
    match headers.contains_key(HOP) {
        false => Ok(()),
        true => check_markers(headers, &snapshot.hop),
    }
}

#[cold]
fn check_markers(headers: &HeaderMap, own: &HeaderValue) -> Result<(), Fault> {
    let values = headers.get_all(HOP).iter();
    let markers = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let mut hops = 0;
    for marker in markers.map(<[u8]>::trim_ascii).filter(|marker| !marker.is_empty()) {
        hops += 1;
        if hops > MAX_HOPS || marker == own.as_bytes() {
            return Err(Fault::LoopDetected);
        }
    }
    Ok(())
}

/// Adds the marker of this gateway to the headers that every upstream receives.
#[inline]
pub(in crate::proxy) fn mark(snapshot: &Snapshot, headers: &mut HeaderMap) {
    headers.append(HOP, snapshot.hop.clone());
}

/// Whether a request with these headers, which has been marked, came from a client that wrote no marker itself. Otherwise the
/// markers may be forged, and the refusal of the request says nothing about an upstream.
pub(in crate::proxy) fn has_own_marker_only(headers: &HeaderMap) -> bool {
    headers.get_all(HOP).iter().count() == 1
}

/// The markers of a request that Steadfast sends besides the caller's own one, such as the one for a list of models.
pub(in crate::proxy) struct HopMarkers(Vec<HeaderValue>);

impl HopMarkers {
    /// The markers of a request that Steadfast sends for no caller.
    pub fn own(snapshot: &Snapshot) -> Self {
        Self(vec![snapshot.hop.clone()])
    }

    /// The markers of a request that Steadfast sends because of the request with these headers, which has been marked.
    pub fn of_marked(headers: &HeaderMap) -> Self {
        Self(headers.get_all(HOP).iter().cloned().collect())
    }

    /// Adds the markers to the headers of a request.
    pub fn add_to(&self, headers: &mut HeaderMap) {
        for marker in &self.0 {
            headers.append(HOP, marker.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::{
        headers::tests::headers,
        request::kit::{self, OPEN},
    };

    #[test]
    fn a_request_with_the_own_marker_has_been_here_before() {
        let snapshot = kit::snapshot(OPEN);
        let own = snapshot.hop.to_str().expect("an ASCII id");
        let (first, second) = (format!("a, {own}"), format!("{own},b"));
        let in_capitals = own.to_ascii_uppercase();
        let longer = format!("{own}0");
        for (sent, is_loop) in [
            (&[][..], false),
            (&[own], true),
            (&[&first], true),
            (&[&second], true),
            (&["a", "b", own], true),
            (&["a", "b"], false),
            (&["", " , "], false),
            (&[&longer], false),
            (&[&in_capitals], own.bytes().all(|byte| byte.is_ascii_digit())),
        ] {
            let fields: Vec<_> = sent.iter().map(|value| ("steadfast-hop", *value)).collect();
            let expected = match is_loop {
                true => Err(Fault::LoopDetected),
                false => Ok(()),
            };
            assert_eq!(check(&snapshot, &headers(&fields)), expected, "{sent:?}");
        }
    }

    #[test]
    fn a_request_may_pass_through_eight_gateways() {
        let snapshot = kit::snapshot(OPEN);
        let eight = "1,2,3,4,5,6,7,8";
        let (list, lines) = (
            headers(&[("steadfast-hop", eight)]),
            eight.split(',').collect::<Vec<_>>(),
        );
        assert_eq!(check(&snapshot, &list), Ok(()));
        let mut lines: Vec<_> = lines.into_iter().map(|marker| ("steadfast-hop", marker)).collect();
        assert_eq!(check(&snapshot, &headers(&lines)), Ok(()));
        lines.push(("steadfast-hop", "9"));
        assert_eq!(check(&snapshot, &headers(&lines)), Err(Fault::LoopDetected));
    }

    #[test]
    fn each_gateway_has_a_marker_of_its_own() {
        let [one, other] = [kit::snapshot(OPEN), kit::snapshot(OPEN)];
        assert_ne!(one.hop, other.hop);
        let mut map = headers(&[("steadfast-hop", "earlier")]);
        mark(&one, &mut map);
        assert_eq!(check(&other, &map), Ok(()));
        let mut copied = HeaderMap::new();
        HopMarkers::of_marked(&map).add_to(&mut copied);
        assert_eq!(map, copied);
        assert_eq!(check(&one, &copied), Err(Fault::LoopDetected));
        HopMarkers::own(&other).add_to(&mut copied);
        assert_eq!(check(&other, &copied), Err(Fault::LoopDetected));
    }
}

//! The masking of one body.

use std::sync::Arc;

use bytes::Bytes;

use super::masker::CredentialMasker;

/// Masks the credentials in a body that arrives in pieces.
///
/// Each credential is overwritten with asterisks, so the length of the body does not change, and JSON stays valid. The result
/// does not depend on where the pieces were cut. A piece without a credential is passed on without a copy.
///
/// ```
/// use std::sync::Arc;
/// use bytes::Bytes;
/// use steadfast::scan::{CredentialMasker, MaskedBody};
///
/// let masker = CredentialMasker::new(["sk-upstream-1"]).expect("one credential");
/// let mut body = MaskedBody::new(Arc::new(masker));
/// assert_eq!(body.mask(Bytes::from("the key is sk-up")), "the key is ");
/// assert_eq!(body.mask(Bytes::from("stream-1, not sk-up")), "*************, not ");
/// assert_eq!(body.finish(), "sk-up");
/// ```
pub struct MaskedBody {
    masker: Arc<CredentialMasker>,
    /// `None` if no byte is held back. It is boxed, because bytes are held back rarely.
    held: Option<Box<HeldBytes>>,
}

/// Bytes that are held back, because a credential may begin with them. There is at least one.
struct HeldBytes {
    /// The bytes as they arrived.
    received: Vec<u8>,
    /// The bytes as they are passed on if no further credential is found in them.
    masked: Vec<u8>,
}

impl MaskedBody {
    /// The beginning of a body that may contain the credentials of `masker`.
    pub fn new(masker: Arc<CredentialMasker>) -> Self {
        Self { masker, held: None }
    }

    /// The number of bytes that are held back.
    pub fn held_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.received.len())
    }

    /// Takes the next piece. Returns the bytes that can be passed on now, possibly none.
    #[inline]
    pub fn mask(&mut self, piece: Bytes) -> Bytes {
        match self.held.take() {
            None if self.masker.passes(&piece) => piece,
            None => self.mask_first(piece),
            Some(held) => self.mask_after(*held, &piece),
        }
    }

    /// Takes a piece before which no byte is held back.
    fn mask_first(&mut self, piece: Bytes) -> Bytes {
        let ranges = self.masker.find_all(&piece);
        let end = self.masker.partial_from(&piece);
        if ranges.is_empty() {
            if end == piece.len() {
                return piece;
            }
            self.hold(&piece[end..], piece[end..].to_vec());
            return piece.slice(..end);
        }
        let mut masked = piece.to_vec();
        for range in ranges {
            masked[range].fill(b'*');
        }
        self.split(&piece, masked, end)
    }

    /// Ends the body. Returns the bytes that were held back.
    pub fn finish(&mut self) -> Bytes {
        self.held.take().map_or_else(Bytes::new, |held| held.masked.into())
    }

    /// Takes a piece that follows bytes that were held back.
    fn mask_after(&mut self, held: HeldBytes, piece: &[u8]) -> Bytes {
        let HeldBytes {
            mut received,
            mut masked,
        } = held;
        received.extend_from_slice(piece);
        masked.extend_from_slice(piece);
        for range in self.masker.find_all(&received) {
            masked[range].fill(b'*');
        }
        let end = self.masker.partial_from(&received);
        self.split(&received, masked, end)
    }

    /// Returns the `masked` bytes before `end`, and holds the others back.
    fn split(&mut self, received: &[u8], mut masked: Vec<u8>, end: usize) -> Bytes {
        if end < received.len() {
            let rest = masked.split_off(end);
            self.hold(&received[end..], rest);
        }
        masked.into()
    }

    fn hold(&mut self, received: &[u8], masked: Vec<u8>) {
        self.held = Some(Box::new(HeldBytes {
            received: received.to_vec(),
            masked,
        }));
    }
}

//! An estimate of the tokens of a request, for as long as the real number is not known.

use crate::media::MediaTally;

/// The approximate average number of bytes per token of English text or source code.
pub const BYTES_PER_TOKEN: u64 = 4;

/// The number of tokens that a request body of this many decompressed bytes probably costs, rounded up.
pub const fn estimated(body_bytes: u64) -> u64 {
    body_bytes.div_ceil(BYTES_PER_TOKEN)
}

/// The number of tokens that an image, a recording or a file in a request probably costs. Upstreams count pixels, seconds
/// and pages, so the number does not follow from the length of the base64 text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MediaCost {
    /// The tokens of an image: 0 to 10,000,000.
    pub image: u32,
    /// The tokens of a recording: 0 to 10,000,000.
    pub audio: u32,
    /// The tokens of another file: 0 to 10,000,000.
    pub file: u32,
}

impl Default for MediaCost {
    /// An image of about a megapixel, a recording of about three minutes, and a file of about ten pages.
    fn default() -> Self {
        Self {
            image: 1_100,
            audio: 2_000,
            file: 10_000,
        }
    }
}

impl MediaCost {
    /// The length in bytes of a text that costs as many tokens as a body of `body_bytes` with this `media`. Media never cost
    /// more than a text of their length.
    pub fn prompt_bytes(&self, body_bytes: u64, media: &MediaTally) -> u64 {
        let kinds = [
            (media.images, self.image),
            (media.recordings, self.audio),
            (media.files, self.file),
        ];
        let tokens: u64 = kinds
            .iter()
            .map(|(count, cost)| u64::from(*count) * u64::from(*cost))
            .sum();
        let bytes = media.bytes.min(body_bytes);
        body_bytes - bytes + bytes.min(tokens.saturating_mul(BYTES_PER_TOKEN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_cost_a_bounded_number_of_tokens_each_and_never_more_than_their_bytes() {
        let cost = MediaCost {
            image: 1_000,
            audio: 100,
            file: 10,
        };
        let counts = |images, recordings, files, bytes| MediaTally {
            images,
            recordings,
            files,
            bytes,
        };
        for (body, media, expected) in [
            (500, MediaTally::default(), 500),
            (2_000_500, counts(1, 0, 0, 2_000_000), 4_500),
            (2_000_500, counts(2, 1, 1, 2_000_000), 500 + 8_440),
            (3_000, counts(1, 0, 0, 2_000), 3_000),
            (1_000, counts(1, 0, 0, 5_000), 1_000),
            (u64::MAX, counts(u32::MAX, 0, 0, u64::MAX), u64::from(u32::MAX) * 4_000),
        ] {
            assert_eq!(cost.prompt_bytes(body, &media), expected, "{body} {media:?}");
        }
    }

    #[test]
    fn a_started_token_counts_as_a_token() {
        assert_eq!([0, 1, 4, 5, u64::MAX].map(estimated), [0, 1, 1, 2, 1 << 62]);
    }
}

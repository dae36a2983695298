//! The images, recordings and files that a request body contains in base64.

/// The base64 data in a request body. Its bytes are no text, so they say nothing about the number of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaTally {
    /// The number of images.
    pub images: u32,
    /// The number of recordings.
    pub recordings: u32,
    /// The number of other files.
    pub files: u32,
    /// The length of all of them in bytes, as the body has them.
    pub bytes: u64,
}

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

/// The kinds of base64 data and of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MediaKind {
    /// A picture.
    Image,
    /// Audio or video.
    Recording,
    /// Anything else.
    File,
}

impl MediaKind {
    /// The kind of data with this media type, such as `image/png`. `None` if the type says only that the data is a file.
    pub fn from_media_type(media_type: &[u8]) -> Option<Self> {
        let family = media_type.split(|byte| *byte == b'/').next()?;
        [
            ("image", Self::Image),
            ("audio", Self::Recording),
            ("video", Self::Recording),
        ]
        .into_iter()
        .find(|(name, _)| family.eq_ignore_ascii_case(name.as_bytes()))
        .map(|(_, kind)| kind)
    }
}

impl MediaTally {
    /// Counts data of this kind with a length of `bytes`.
    pub fn add(&mut self, kind: MediaKind, bytes: u64) {
        let counter = match kind {
            MediaKind::Image => &mut self.images,
            MediaKind::Recording => &mut self.recordings,
            MediaKind::File => &mut self.files,
        };
        *counter = counter.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

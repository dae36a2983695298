//! The kinds of the files in a form.

use super::part_head::PartHead;
use crate::media::MediaKind;

/// The endings of the names of recordings that the API accepts, and of those that encoders write.
const RECORDINGS: [&str; 15] = [
    "aac", "aif", "aiff", "flac", "m4a", "mov", "mp3", "mp4", "mpeg", "mpga", "oga", "ogg", "opus", "wav", "webm",
];
const IMAGES: [&str; 9] = ["avif", "bmp", "gif", "heic", "jpeg", "jpg", "png", "tiff", "webp"];

/// The kind of the file in a part, by its type, or by the name of the file if the type says nothing.
pub(super) fn kind_of(head: &PartHead<'_>) -> MediaKind {
    if let Some(kind) = head.content_type.and_then(MediaKind::from_media_type) {
        return kind;
    }
    let name = head.file_name.unwrap_or_default();
    let ending = memchr::memrchr(b'.', name).map_or(&[][..], |dot| name.get(dot + 1..).unwrap_or_default());
    let is_one_of = |endings: &[&str]| {
        endings
            .iter()
            .any(|known| ending.eq_ignore_ascii_case(known.as_bytes()))
    };
    if is_one_of(&IMAGES) || ending.is_empty() && matches!(head.name, b"image" | b"image[]" | b"mask") {
        MediaKind::Image
    } else if is_one_of(&RECORDINGS) {
        MediaKind::Recording
    } else {
        MediaKind::File
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_decides_before_the_name() {
        for (name, file_name, content_type, expected) in [
            ("file", "speech.mp3", Some("audio/mpeg"), MediaKind::Recording),
            (
                "file",
                "speech.MP3",
                Some("application/octet-stream"),
                MediaKind::Recording,
            ),
            ("file", "speech.webm", None, MediaKind::Recording),
            ("file", "a.png", Some("video/mp4"), MediaKind::Recording),
            ("image", "a.png", None, MediaKind::Image),
            ("image[]", "a.bin", Some("Image/PNG"), MediaKind::Image),
            ("image", "upload", Some("application/octet-stream"), MediaKind::Image),
            ("file", "batch.jsonl", Some("application/jsonl"), MediaKind::File),
            ("file", "upload", None, MediaKind::File),
        ] {
            let head = PartHead {
                name: name.as_bytes(),
                file_name: Some(file_name.as_bytes()),
                content_type: content_type.map(str::as_bytes),
                ..PartHead::default()
            };
            assert_eq!(kind_of(&head), expected, "{name} {file_name} {content_type:?}");
        }
    }
}

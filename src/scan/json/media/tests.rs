//! Which strings are media.

use super::*;

#[test]
fn data_urls_and_base64_data_are_classified_by_their_key_and_their_beginning() {
    let (image, recording, file) = (
        Some(MediaKind::Image),
        Some(MediaKind::Recording),
        Some(MediaKind::File),
    );
    for (before, text, expected) in [
        (
            r#"{"type":"input_image","image_url":"#,
            "data:image/png;base64,iVBORw0KGgo",
            image,
        ),
        (r#"{"url" : "#, "data:image/jpeg;base64,AAAA", image),
        (r#"{"url":"#, "data:audio/wav;base64,AAAA", recording),
        (r#"{"url":"#, "data:video/mp4;base64,AAAA", recording),
        (r#"{"url":"#, "data:Image/PNG;base64,AAAA", image),
        (r#"{"url":"#, "data:imagery/x;base64,AAAA", file),
        (r#"{"file_data":"#, "data:application/pdf;base64,JVBERi0", file),
        (r#"{"file_data":"#, "JVBERi0xLjcK", file),
        (r#"{"media_type":"image/png","data":"#, "AAAABBBB", image),
        (r#"{"data":"#, "/9j/4AAQSkZJRg", image),
        (r#"{"format":"wav","data":"#, "AAAABBBB", recording),
        (r#"{"data":"#, "UklGRiQAAABXQVZF", recording),
        (r#"{"data":"#, "UklGRiQAAABXRUJQ", image),
        (r#"{"result":"#, "AAAABBBB", image),
        (r#"{"b64_json":"#, "AAAABBBB", image),
        (r#"{"text":"#, "data:image/png;base64,iVBORw0KGgo", None),
        (r#"{"output":"#, "data:image/png;base64,iVBORw0KGgo", None),
        (r#"{"text":"#, "AAAABBBB", None),
        (r#"{"data":"#, "words with spaces", None),
        (r#"{"encrypted_content":"#, "gAAAAABBBB", None),
        (r#"{"image_url":"#, "data:image/png,AAAA", None),
        (r#"["#, "AAAABBBB", None),
    ] {
        assert_eq!(kind_of(before.as_bytes(), text.as_bytes()), expected, "{before} {text}");
    }
}

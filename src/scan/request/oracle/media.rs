//! The base64 data in a valid JSON text.

use super::tree::end_of_string;

/// The numbers of images, recordings and files, and the length of their data.
pub fn tally(body: &[u8]) -> [u64; 4] {
    let mut tally = [0; 4];
    let mut at = 0;
    while at < body.len() {
        if body[at] != b'"' {
            at += 1;
            continue;
        }
        let close = end_of_string(body, at);
        let text = &body[at + 1..close];
        if text.len() >= 1024
            && let Some(kind) = kind_of_data(&body[at.saturating_sub(32)..at], &text[..96])
        {
            tally[kind] += 1;
            tally[3] += text.len() as u64;
        }
        at = close + 1;
    }
    tally
}

/// The index in the tally of the data that begins with `sample`.
fn kind_of_data(before: &[u8], sample: &[u8]) -> Option<usize> {
    let latin = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect::<String>();
    let (before, sample) = (latin(before), latin(sample));
    let blank = |letter: char| letter.is_ascii_whitespace();
    if let Some(rest) = sample.strip_prefix("data:") {
        let (media_type, _) = rest.split_once(";base64,")?;
        let media_type = media_type.to_ascii_lowercase();
        return Some(match media_type.split('/').next() {
            Some("image") => 0,
            Some("audio" | "video") => 1,
            _ => 2,
        });
    }
    let key = before.trim_end_matches(blank).strip_suffix(':')?;
    let key = key.trim_end_matches(blank).strip_suffix('"')?;
    let (_, key) = key.rsplit_once('"')?;
    let is_text = sample.contains(|letter: char| !letter.is_ascii_alphanumeric() && !"+/-_=\\".contains(letter));
    if !["b64_json", "result", "data", "file_data"].contains(&key) || is_text {
        return None;
    }
    let begins = |signatures: &[&str]| signatures.iter().any(|signature| sample.starts_with(signature));
    let is_webp = begins(&["UklGR"]) && &sample[11..14] == "XRU";
    Some(match key {
        _ if is_webp || begins(&["iVBORw0KGgo", "/9j/", "\\/9j\\/", "R0lGODlh", "R0lGODdh"]) => 0,
        _ if begins(&["UklGR", "SUQz", "T2dnUw", "ZkxhQw", "//uQ", "//vQ", "//NE"]) => 1,
        _ if begins(&["JVBERi0"]) => 2,
        "b64_json" | "result" => 0,
        _ if before.contains("\"image/") => 0,
        _ if ["audio", "\"wav\"", "\"mp3\"", "\"pcm16\""]
            .iter()
            .any(|hint| before.contains(hint)) =>
        {
            1
        }
        _ => 2,
    })
}

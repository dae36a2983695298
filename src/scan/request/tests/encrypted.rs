//! The encrypted content of requests.

use serde_json::json;

use super::check;
use crate::ids::EncryptedContent;

#[test]
fn encrypted_content_is_found_at_every_position() {
    let identity = |text: &str| EncryptedContent::from_text(text.as_bytes());
    let text = "gAAAAAB".repeat(30);
    for shift in 0..64 {
        let quoted = r#"{"role":"user","content":"\"encrypted_content\":\"x\""}"#;
        let body = format!(
            r#"{{"input":[{{"encrypted_content":"first"}},{quoted},{}{{"id":"a","encrypted_content":"{text}"}},{{"encrypted_content":"c"}},
            {{"content":[{{"encrypted_content":"deep"}}],"encrypted_content" : null}},{{"encrypted_content" : "d"}}]}}"#,
            " ".repeat(shift)
        );
        let facts = check(body.as_bytes(), (0..body.len()).step_by(3)).unwrap();
        assert_eq!(
            facts.encrypted,
            [identity("first"), identity(&text), identity("c"), identity("d")]
        );
    }
}

#[test]
fn encrypted_content_is_the_same_with_and_without_escapes() {
    let read = |raw: &str| {
        let body = format!(r#"{{"input":[{{"role":"user"}},{{"encrypted_content":"{raw}"}}]}}"#);
        check(
            body.as_bytes(),
            [60, 300, body.len() / 2].map(|cut| cut.min(body.len())),
        )
        .unwrap()
        .encrypted
    };
    for length in [1, 31, 32, 33, 191, 192, 193, 5000] {
        let plain = "a/b".repeat(length / 3) + &"é"[..2 * (length % 2)];
        if plain.is_empty() {
            continue;
        }
        let spelled = |spell: fn(char) -> String| plain.chars().map(spell).collect::<String>();
        let expected = [EncryptedContent::from_text(plain.as_bytes())];
        assert_eq!(read(&plain), expected);
        assert_eq!(read(&plain.replace('/', "\\/")), expected);
        assert_eq!(read(&spelled(|c| format!("\\u{:04x}", u32::from(c)))), expected);
        assert_eq!(
            read(&spelled(|c| if c == 'b' {
                "\\u0062".to_owned()
            } else {
                c.to_string()
            })),
            expected
        );
    }
}

#[test]
fn only_the_last_encrypted_contents_are_kept() {
    for count in [0, 1, 7, 8, 9, 30] {
        let items: Vec<_> = (0..count)
            .map(|n| json!({"type": "reasoning", "encrypted_content": format!("e{n}")}))
            .collect();
        let body = json!({"input": items}).to_string();
        let facts = check(body.as_bytes(), [body.len() / 2]).unwrap();
        let kept = (0..count)
            .skip(count.max(8) - 8)
            .map(|n| EncryptedContent::from_text(format!("e{n}").as_bytes()));
        assert_eq!(facts.encrypted, kept.collect::<Vec<_>>());
    }
}

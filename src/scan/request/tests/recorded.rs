//! Bodies that were recorded from real clients.

use super::*;

#[test]
fn recordings_are_read_as_by_the_oracle() {
    for (name, body) in recordings() {
        let mut cuts: Vec<usize> = (0..body.len()).step_by(body.len().div_ceil(20)).collect();
        // The body is cut at every byte in and around a key, or at every fifth byte if it is long.
        let step = if body.len() > 100_000 { 5 } else { 1 };
        for key in ["\"prompt_cache_key\"", "\"session_id\""] {
            let places = memchr::memmem::find_iter(&body, key);
            cuts.extend(
                places
                    .take(1)
                    .flat_map(|place| (place - 3..body.len().min(place + 70)).step_by(step)),
            );
        }
        let facts = check(&body, cuts).unwrap();
        assert!(facts.model.is_some() && facts.content.is_some(), "{name}");
    }
}

#[test]
fn the_turns_of_a_recorded_conversation_have_the_same_prefix() {
    let read = |name: &str| {
        let body = fs::read(
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/fixtures/recordings")
                .join(name),
        )
        .unwrap();
        scan(RequestScanner::new(rules()), [&body[..]]).unwrap()
    };
    let first = read("codex0.169-sse-turn1.body");
    let second = read("codex0.169-sse-turn2-resume.body");
    assert_eq!(first.content, second.content);
    assert_eq!(first.texts.get(0), first.texts.get(1));
}

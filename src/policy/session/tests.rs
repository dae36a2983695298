//! Which key, owner and issuer a request has.

use super::*;

mod candidates;

const NAMESPACE: fn() -> Namespace = || Namespace::of_group("team");

fn upstream(n: usize) -> UpstreamId {
    UpstreamId::from_name(&format!("account-{n}"))
}

fn no_header(_: &HeaderName) -> Option<&'static str> {
    None
}

fn text(text: &str) -> Option<SessionKey> {
    Some(SessionKey::from_text(NAMESPACE(), text))
}

fn find<'a, H: Fn(&HeaderName) -> Option<&'a str>>(order: &[&str], clues: Clues<'a, H>) -> Affinity {
    let order: Vec<SessionSource> = order.iter().map(|source| source.parse().unwrap()).collect();
    Affinity::find(&order, NAMESPACE(), &clues)
}

const NOTHING: Clues<'static, fn(&HeaderName) -> Option<&'static str>> = Clues {
    prompt_cache_key: None,
    session_id: None,
    header: no_header,
    content: ConversationStart {
        instructions: b"",
        input: b"",
    },
    owner: None,
    issuer: None,
};
const CONTENT: ConversationStart<'static> = ConversationStart {
    instructions: b"Be brief.",
    input: b"Hello",
};

#[test]
fn the_same_text_from_any_source_is_the_same_key() {
    let order = SessionSource::default_order();
    let header: fn(&HeaderName) -> Option<&'static str> = |name| (name == "session_id").then_some("s-1");
    for clues in [
        Clues {
            prompt_cache_key: Some("s-1"),
            ..NOTHING
        },
        Clues {
            session_id: Some("s-1"),
            ..NOTHING
        },
        Clues { header, ..NOTHING },
        Clues {
            prompt_cache_key: Some(""),
            session_id: Some(" \t\n"),
            header,
            content: CONTENT,
            ..NOTHING
        },
        Clues {
            prompt_cache_key: Some("s-1"),
            session_id: Some("s-2"),
            header: |_| Some("s-3"),
            ..NOTHING
        },
    ] {
        assert_eq!(
            Affinity::find(&order, NAMESPACE(), &clues),
            Affinity {
                key: text("s-1"),
                owner: None,
                issuer: None
            }
        );
    }
    let other = Affinity::find(
        &order,
        Namespace::of_group("b"),
        &Clues {
            session_id: Some("s-1"),
            ..NOTHING
        },
    );
    assert_ne!(other.key, text("s-1"), "another tenant's session");
}

#[test]
fn the_text_of_a_key_is_not_trimmed() {
    let clues = Clues {
        prompt_cache_key: Some(" s-1 "),
        session_id: Some("s-1"),
        ..NOTHING
    };
    assert_eq!(find(&["body:prompt_cache_key"], clues).key, text(" s-1 "));
}

#[test]
fn only_configured_sources_count() {
    let clues = Clues {
        prompt_cache_key: Some("a"),
        session_id: Some("b"),
        header: |name: &HeaderName| (name == "x-conversation").then_some("c"),
        content: CONTENT,
        owner: Some(upstream(1)),
        issuer: Some(upstream(2)),
    };
    assert_eq!(find(&[], clues), Affinity::default());
    assert_eq!(
        find(&["header:x-conversation", "body:prompt_cache_key"], clues),
        Affinity {
            key: text("c"),
            owner: None,
            issuer: None
        }
    );
    assert_eq!(
        find(&["header:other", "body:client_metadata.session_id"], clues).key,
        text("b")
    );
    assert_eq!(
        find(&["owner"], clues),
        Affinity {
            key: None,
            owner: Some(upstream(1)),
            issuer: Some(upstream(2))
        }
    );
}

#[test]
fn content_makes_a_key_only_if_no_earlier_source_does() {
    let content = Some(SessionKey::from_content(
        NAMESPACE(),
        CONTENT.instructions,
        CONTENT.input,
    ));
    let named = Clues {
        session_id: Some("s-1"),
        content: CONTENT,
        ..NOTHING
    };
    let owned = Clues {
        owner: Some(upstream(1)),
        content: CONTENT,
        ..NOTHING
    };
    let session = "body:client_metadata.session_id";
    assert_eq!(find(&[session, "content"], named).key, text("s-1"));
    assert_eq!(find(&["content", session], named).key, content);
    assert_eq!(
        find(&["owner", "content"], owned),
        Affinity {
            key: None,
            owner: Some(upstream(1)),
            issuer: None
        }
    );
    assert_eq!(
        find(&["content", "owner"], owned),
        Affinity {
            key: content,
            owner: Some(upstream(1)),
            issuer: None
        }
    );
    assert_eq!(
        find(
            &["owner", "content"],
            Clues {
                content: CONTENT,
                ..NOTHING
            }
        )
        .key,
        content
    );
}

#[test]
fn a_key_is_kept_beside_an_owner() {
    let clues = Clues {
        session_id: Some("s-1"),
        owner: Some(upstream(1)),
        ..NOTHING
    };
    for order in [
        ["body:client_metadata.session_id", "owner"],
        ["owner", "body:client_metadata.session_id"],
    ] {
        assert_eq!(
            find(&order, clues),
            Affinity {
                key: text("s-1"),
                owner: Some(upstream(1)),
                issuer: None
            }
        );
    }
}

#[test]
fn the_labels_of_routes_are_stable() {
    assert_eq!(
        Route::ALL.map(Route::label),
        ["home", "pin", "moved", "owner", "keyless"]
    );
}

#[test]
fn content_makes_a_key_beside_turn_state() {
    let content = Some(SessionKey::from_content(
        NAMESPACE(),
        CONTENT.instructions,
        CONTENT.input,
    ));
    let in_a_turn = Clues {
        issuer: Some(upstream(1)),
        content: CONTENT,
        ..NOTHING
    };
    let found = find(&["owner", "content"], in_a_turn);
    assert_eq!(
        (found.key, found.issuer),
        (content, Some(upstream(1))),
        "the whole conversation is there"
    );
}

#[test]
fn blank_content_makes_no_key() {
    let blank = ConversationStart {
        instructions: b" ",
        input: b"\n",
    };
    assert_eq!(
        find(
            &["content"],
            Clues {
                content: blank,
                ..NOTHING
            }
        )
        .key,
        None
    );
}

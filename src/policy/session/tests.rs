//! Which key, owner and issuer a request has.

use std::sync::LazyLock;

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

/// The paths of the default order, and one more.
static PATHS: LazyLock<BodyPaths> = LazyLock::new(|| {
    let more = "user".parse().expect("a path");
    let order = SessionSource::default_order();
    BodyPaths::new(order.iter().filter_map(SessionSource::body_path).chain([&more]))
});

static NO_TEXTS: LazyLock<BodyTexts> = LazyLock::new(BodyTexts::default);

/// The texts of a body at these paths.
fn texts(texts: &[(&str, &str)]) -> BodyTexts {
    let mut found = BodyTexts::default();
    for (path, text) in texts {
        let path = path.parse().expect("a path");
        found.set(PATHS.index_of(&path).expect("a known path"), (*text).to_owned());
    }
    found
}

const KEY: &str = "prompt_cache_key";
const CLIENT_SESSION: &str = "client_metadata.session_id";
const USER_ID: &str = "metadata.user_id";

fn find<'a, H: Fn(&HeaderName) -> Option<&'a str>>(order: &[&str], clues: Clues<'a, '_, H>) -> Affinity {
    let order: Vec<SessionSource> = order.iter().map(|source| source.parse().unwrap()).collect();
    Affinity::find(&order, NAMESPACE(), &clues)
}

type StaticClues<'a> = Clues<'a, 'static, fn(&HeaderName) -> Option<&'static str>>;

/// The clues of a request to the Responses API that names nothing but `texts`.
fn clues(texts: &BodyTexts) -> StaticClues<'_> {
    Clues {
        endpoint: Endpoint::Responses,
        paths: &PATHS,
        texts,
        header: no_header,
        content: None,
        owner: None,
        issuer: None,
    }
}

const CONTENT: Option<ContentDigest> = Some(ContentDigest::from_hash(1));

fn content() -> Option<SessionKey> {
    CONTENT.map(|content| SessionKey::from_content(NAMESPACE(), content))
}

#[test]
fn the_same_text_from_any_source_is_the_same_key() {
    let order = SessionSource::default_order();
    let header: fn(&HeaderName) -> Option<&'static str> = |name| (name == "session_id").then_some("s-1");
    let [key, session, blank, both] = [
        texts(&[(KEY, "s-1")]),
        texts(&[(CLIENT_SESSION, "s-1")]),
        texts(&[(KEY, ""), (CLIENT_SESSION, " \t\n")]),
        texts(&[(KEY, "s-1"), (CLIENT_SESSION, "s-2")]),
    ];
    for clues in [
        clues(&key),
        clues(&session),
        Clues {
            header,
            ..clues(&NO_TEXTS)
        },
        Clues {
            header,
            content: CONTENT,
            ..clues(&blank)
        },
        Clues {
            header: |_| Some("s-3"),
            ..clues(&both)
        },
    ] {
        let found = Affinity::find(&order, NAMESPACE(), &clues);
        assert_eq!((found.key, found.owner, found.issuer), (text("s-1"), None, None));
    }
    let other = Affinity::find(&order, Namespace::of_group("b"), &clues(&session));
    assert_ne!(other.key, text("s-1"), "another tenant's session");
}

#[test]
fn the_default_headers_are_those_of_known_clients() {
    let order = SessionSource::default_order();
    for known in [
        "session-id",
        "session_id",
        "x-session-id",
        "x-session-affinity",
        "x-claude-code-session-id",
    ] {
        let clues = Clues {
            endpoint: Endpoint::ChatCompletions,
            paths: &PATHS,
            texts: &NO_TEXTS,
            header: |name: &HeaderName| (name == known).then_some("s-1"),
            content: CONTENT,
            owner: None,
            issuer: None,
        };
        assert_eq!(Affinity::find(&order, NAMESPACE(), &clues).key, text("s-1"), "{known}");
    }
}

#[test]
fn a_path_of_the_messages_api_counts_only_there() {
    let texts = texts(&[(USER_ID, "user_1")]);
    for endpoint in Endpoint::ALL {
        let clues = Clues {
            endpoint,
            ..clues(&texts)
        };
        let found = Affinity::find(&SessionSource::default_order(), NAMESPACE(), &clues).key;
        let expected = if endpoint == Endpoint::Messages {
            text("user_1")
        } else {
            None
        };
        assert_eq!(found, expected, "{endpoint:?}");
        assert_eq!(
            find(&["body:metadata.user_id"], clues).key,
            text("user_1"),
            "{endpoint:?}"
        );
    }
}

#[test]
fn the_text_of_a_key_is_not_trimmed() {
    let texts = texts(&[(KEY, " s-1 "), (CLIENT_SESSION, "s-1")]);
    assert_eq!(find(&["body:prompt_cache_key"], clues(&texts)).key, text(" s-1 "));
}

#[test]
fn only_configured_sources_count() {
    let texts = texts(&[(KEY, "a"), (CLIENT_SESSION, "b"), ("user", "d")]);
    let header: fn(&HeaderName) -> Option<&'static str> = |name| (name == "x-conversation").then_some("c");
    let clues = Clues {
        header,
        content: CONTENT,
        owner: Some(upstream(1)),
        issuer: Some(upstream(2)),
        ..clues(&texts)
    };
    assert_eq!(find(&[], clues), Affinity::default());
    for (order, expected) in [
        (["header:x-conversation", "body:prompt_cache_key"], "c"),
        (["header:other", "body:client_metadata.session_id"], "b"),
        (["body:user", "body:prompt_cache_key"], "d"),
        (["body:unknown.path", "body:prompt_cache_key"], "a"),
    ] {
        let found = find(&order, clues);
        assert_eq!((found.key, found.owner, found.issuer), (text(expected), None, None));
    }
    let found = find(&["owner"], clues);
    assert_eq!(
        (found.key, found.owner, found.issuer),
        (None, Some(upstream(1)), Some(upstream(2)))
    );
}

#[test]
fn content_makes_a_key_only_if_no_earlier_source_does() {
    let texts = texts(&[(CLIENT_SESSION, "s-1")]);
    let named = Clues {
        content: CONTENT,
        ..clues(&texts)
    };
    let owned = Clues {
        owner: Some(upstream(1)),
        content: CONTENT,
        ..clues(&NO_TEXTS)
    };
    let session = "body:client_metadata.session_id";
    assert_eq!(find(&[session, "content"], named).key, text("s-1"));
    assert_eq!(find(&["content", session], named).key, content());
    let found = |order: &[&str]| {
        let found = find(order, owned);
        (found.key, found.owner)
    };
    assert_eq!(found(&["owner", "content"]), (None, Some(upstream(1))));
    assert_eq!(found(&["content", "owner"]), (content(), Some(upstream(1))));
    let unowned = Clues { owner: None, ..owned };
    assert_eq!(find(&["owner", "content"], unowned).key, content());
    let blank = Clues {
        content: None,
        ..unowned
    };
    assert_eq!(find(&["content"], blank).key, None);
}

#[test]
fn a_key_is_kept_beside_an_owner() {
    let texts = texts(&[(CLIENT_SESSION, "s-1")]);
    let clues = Clues {
        owner: Some(upstream(1)),
        ..clues(&texts)
    };
    for order in [
        ["body:client_metadata.session_id", "owner"],
        ["owner", "body:client_metadata.session_id"],
    ] {
        let found = find(&order, clues);
        assert_eq!(
            (found.key, found.owner, found.issuer),
            (text("s-1"), Some(upstream(1)), None)
        );
    }
}

#[test]
fn content_makes_a_key_beside_turn_state() {
    let in_a_turn = Clues {
        issuer: Some(upstream(1)),
        content: CONTENT,
        ..clues(&NO_TEXTS)
    };
    let found = find(&["owner", "content"], in_a_turn);
    assert_eq!(
        (found.key, found.issuer),
        (content(), Some(upstream(1))),
        "the whole conversation is there"
    );
}

#[test]
fn the_labels_of_routes_are_stable() {
    assert_eq!(
        Route::ALL.map(Route::label),
        ["home", "pin", "moved", "owner", "keyless"]
    );
}

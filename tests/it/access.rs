//! Client keys: which callers are accepted, and how groups are separated.

use http::StatusCode;
use serde_json::{Value, json};
use steadfast::sim::{Act, Sim};

use crate::kit::{
    client,
    gateway::{Gateway, upstream},
    keys::{ALICE, BOB, error_code, get_as, group, key, post_as, sha256_hex, turn_body, two_groups, with_key},
    sim, sims,
};

/// The two client keys of one caller during a key rotation.
const ROTATED_KEYS: [&str; 2] = ["sk-steadfast-old", "sk-steadfast-new"];

/// Returns the configuration of keys in every state: valid, rotated, expired and disabled.
fn keys_in_every_state() -> String {
    let [old, new] = ROTATED_KEYS.map(sha256_hex);
    group("team", "")
        + &key("alice", ALICE, "team", "")
        + &format!("[[key]]\nname = \"carol\"\nsha256 = [\"{old}\", \"{new}\"]\ngroup = \"team\"\n")
        + &key("dave", "sk-steadfast-gone", "team", "expires = 2020-01-01T00:00:00Z")
        + &key("erin", "sk-steadfast-off", "team", "disabled = true")
}

#[tokio::test]
async fn only_valid_keys_are_accepted() {
    let sim = sim("a").await;
    let gateway = Gateway::before(std::slice::from_ref(&sim), &keys_in_every_state()).await;
    for good in [ALICE, ROTATED_KEYS[0], ROTATED_KEYS[1]] {
        assert_eq!(
            post_as(&gateway, good, &turn_body("s")).await.status,
            StatusCode::OK,
            "{good}"
        );
    }
    let by_other_name = {
        let mut request = client::post("/v1/responses", turn_body("s").to_string());
        request
            .headers_mut()
            .insert("x-api-key", ALICE.parse().expect("a valid header value"));
        client::send(gateway.address, request).await
    };
    assert_eq!(by_other_name.status, StatusCode::OK);
    assert!(sim.requests().iter().all(|request| {
        request.headers["authorization"] == "Bearer sk-upstream-canary" && !request.headers.contains_key("x-api-key")
    }));
    let reached = sim.requests().len();
    for (bad, says) in [
        ("", "Incorrect"),
        ("sk-steadfast-unknown", "Incorrect"),
        (&ALICE[1..], "Incorrect"),
        (&*format!("{ALICE} "), "OK"),
        ("sk-steadfast-gone", "expired"),
        ("sk-steadfast-off", "disabled"),
        (&"x".repeat(60_000), "Incorrect"),
    ] {
        let reply = post_as(&gateway, bad, &turn_body("s")).await;
        if says == "OK" {
            assert_eq!(reply.status, StatusCode::OK, "blanks around a key are ignored");
            continue;
        }
        assert_eq!(error_code(&reply), (401, "invalid_api_key".to_owned()), "{bad:.80}");
        assert_eq!(reply.header("www-authenticate"), "Bearer");
        let message = reply.json()["error"]["message"].as_str().expect("a string").to_owned();
        assert!(message.contains(says), "{message}");
        assert!(bad.is_empty() || !reply.text().contains(bad), "{}", reply.text());
    }
    let keyless = client::post_json(gateway.address, "/v1/responses", &turn_body("s")).await;
    assert_eq!(error_code(&keyless), (401, "missing_api_key".to_owned()));
    assert_eq!(sim.requests().len(), reached + 1);
    assert_eq!(
        gateway
            .metric("steadfast_rejected_requests_total{reason=\"key\"}")
            .await,
        7.0
    );
    // A gateway with client keys does not reveal its upstreams.
    assert_eq!(post_as(&gateway, ALICE, &turn_body("s")).await.routed(), ("", ""));
}

#[tokio::test]
async fn an_unauthenticated_request_is_refused_before_its_body_is_read() {
    let (_sim, gateway) = {
        let sim = sim("a").await;
        let head = group("team", "") + &key("alice", ALICE, "team", "");
        let gateway = Gateway::before(std::slice::from_ref(&sim), &head).await;
        (sim, gateway)
    };
    let head =
        "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nexpect: 100-continue\r\n";
    for (fields, status) in [
        ("content-length: 1000\r\n", 401),
        ("transfer-encoding: chunked\r\n", 401),
        ("authorization: Bearer unknown\r\ncontent-length: 1000\r\n", 401),
        (
            &*format!("authorization: Bearer {ALICE}\r\ncontent-length: 99999999999\r\n"),
            413,
        ),
    ] {
        let answer = crate::kit::wire::ask(gateway.address, format!("{head}{fields}\r\n")).await;
        assert_eq!(answer.status, status, "{fields}: {answer:?}");
    }
}

#[tokio::test]
async fn groups_share_no_sessions_and_no_responses() {
    let sims = sims(3).await;
    let gateway = two_groups(&sims, "", "").await;
    let upstreams = async |group: &str, session: &str| gateway.order(&[session, "--group", group]).await;
    let mut apart = 0;
    for number in 0..30 {
        let session = format!("session-{number}");
        apart += u32::from(upstreams("red", &session).await[0] != upstreams("blue", &session).await[0]);
    }
    assert!(
        (10..=28).contains(&apart),
        "{apart} of 30 sessions have different homes"
    );

    let made = post_as(&gateway, ALICE, &turn_body("shared")).await;
    assert_eq!(made.status, StatusCode::OK);
    let pin = async |group: &str| {
        gateway
            .ask(&format!("/api/route?key=shared&group={group}"))
            .await
            .json()["pin"]
            .clone()
    };
    assert!(pin("red").await.is_string());
    assert_eq!(pin("blue").await, Value::Null, "a pin belongs to one group");

    let id = made.json()["id"].as_str().expect("an id").to_owned();
    let asked = |sims: &[Sim]| sims.iter().map(|sim| sim.requests().len()).sum::<usize>();
    let before = asked(&sims);
    for path in [
        format!("/v1/responses/{id}"),
        format!("/responses/{id}"),
        format!("/v1/responses/{id}/input_items"),
        format!("/v1/responses/{}", id.replace('_', "%5F")),
    ] {
        let reply = get_as(&gateway, BOB, &path).await;
        assert_eq!(error_code(&reply), (404, "response_not_found".to_owned()), "{path}");
    }
    let next = json!({"model": "gpt-5.2", "input": "and?", "previous_response_id": id});
    assert_eq!(
        error_code(&post_as(&gateway, BOB, &next).await),
        (400, "previous_response_not_found".to_owned())
    );
    // A response of the caller that the body names gives no access to a response of another group that the path names.
    let own = post_as(&gateway, BOB, &turn_body("bobs")).await.json()["id"].clone();
    let cancel = client::post(
        &format!("/v1/responses/{id}/cancel"),
        json!({"previous_response_id": own}).to_string(),
    );
    let reply = client::send(gateway.address, with_key(cancel, BOB)).await;
    assert_eq!(error_code(&reply), (404, "response_not_found".to_owned()));
    assert_eq!(asked(&sims), before + 1, "no refused request reached an account");
    assert_eq!(
        get_as(&gateway, ALICE, &format!("/v1/responses/{id}")).await.status,
        StatusCode::OK
    );
    assert_eq!(post_as(&gateway, ALICE, &next).await.status, StatusCode::OK);
}

#[tokio::test]
async fn turn_state_is_valid_in_its_group_only() {
    let sim = sim("a").await;
    let answer = Act::reply(StatusCode::OK, &json!({"id": "resp_1", "output": []})).header(
        http::HeaderName::from_static("x-codex-turn-state"),
        http::HeaderValue::from_static("TS-secret"),
    );
    sim.script().always(answer);
    let gateway = two_groups(std::slice::from_ref(&sim), "", "").await;
    let sealed = post_as(&gateway, ALICE, &turn_body("s"))
        .await
        .header("x-codex-turn-state")
        .to_owned();
    assert!(
        sealed.starts_with("steadfast-") && sealed.ends_with("-TS-secret"),
        "{sealed}"
    );
    for (caller, arrives) in [(ALICE, true), (BOB, false)] {
        let mut request = client::post("/v1/responses", turn_body("s").to_string());
        let value = sealed.parse().expect("a valid header value");
        request.headers_mut().insert("x-codex-turn-state", value);
        let reply = client::send(gateway.address, with_key(request, caller)).await;
        assert_eq!(reply.status, StatusCode::OK);
        let last = sim.requests().last().expect("a recorded request").headers.clone();
        assert_eq!(
            last.get("x-codex-turn-state").map(|value| value.as_bytes()),
            arrives.then_some(&b"TS-secret"[..])
        );
    }
}

#[tokio::test]
async fn keys_are_added_and_removed_without_a_restart() {
    let sim = sim("a").await;
    let folder = crate::kit::gateway::scratch();
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).expect("a writable folder");
    std::fs::create_dir_all(folder.join("keys.d")).expect("a writable folder");
    write("keys.toml", key("alice", ALICE, "team", ""));
    let config = format!(
        "[server]\nlisten = \"127.0.0.1:0\"\nkeys_file = \"keys.toml\"\n[admin]\nlisten = \"127.0.0.1:0\"\n{}{}",
        group("team", "requests_per_minute = 100"),
        upstream(&sim, "")
    );
    write(crate::kit::gateway::FILE, config.clone());
    let gateway = Gateway::over(folder.clone(), &[]).await;
    let status = async |key: &str| post_as(&gateway, key, &turn_body("s")).await.status.as_u16();
    assert_eq!((status(ALICE).await, status(BOB).await), (200, 401));
    write(
        "keys.toml",
        key("alice", ALICE, "team", "") + &key("bob", BOB, "team", ""),
    );
    crate::kit::until("bob's key to be accepted", async || {
        (status(BOB).await == 200).then_some(())
    })
    .await;
    // An invalid file changes nothing and is reported in the log.
    write("keys.toml", "[[key]]\nname = \"bob\"".to_owned());
    gateway.log_until("has no sha256").await;
    assert_eq!((status(ALICE).await, status(BOB).await), (200, 200));
    // A new directory is watched after the reload, and the usage of a key is kept.
    write("keys.toml", String::new());
    write("keys.d/alice.toml", key("alice", ALICE, "team", ""));
    write(
        crate::kit::gateway::FILE,
        config.replace("keys_file = \"keys.toml\"", "keys_directory = \"keys.d\""),
    );
    crate::kit::until("bob's key to be refused", async || {
        (status(BOB).await == 401).then_some(())
    })
    .await;
    let left = post_as(&gateway, ALICE, &turn_body("s")).await;
    let remaining: u32 = left.header("x-ratelimit-remaining-requests").parse().expect("a number");
    assert!(remaining <= 97, "{remaining}");
    std::fs::remove_file(folder.join("keys.d/alice.toml")).expect("the file exists");
    crate::kit::until("alice's key to be refused", async || {
        (status(ALICE).await == 401).then_some(())
    })
    .await;
    write("keys.d/bob.toml", key("bob", BOB, "team", ""));
    crate::kit::until("bob's key to be accepted again", async || {
        (status(BOB).await == 200).then_some(())
    })
    .await;
}

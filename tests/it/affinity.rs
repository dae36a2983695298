//! The choice of the upstream: session keys, owned state, and keyless requests.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use http::{Request, StatusCode};
use http_body_util::Full;
use serde_json::{Value, json};
use steadfast::sim::{Act, Close, Point, Rule, ScriptedAnswer, Sim};

use crate::kit::{
    client::{self, Reply},
    gateway::{Gateway, upstream},
    sessions::{responses_request, usage_limit_reached},
    sims, until, wire,
};

/// Returns a session key for each of `sims` that has its home at that account.
async fn keys_at_home(gateway: &Gateway, sims: &[Sim]) -> HashMap<String, String> {
    let mut keys = HashMap::new();
    for number in 0..200 {
        if keys.len() == sims.len() {
            return keys;
        }
        let key = format!("session-{number}");
        keys.entry(gateway.home(&key).await).or_insert(key);
    }
    panic!("some upstream is the home of no key: {keys:?}")
}

async fn send(gateway: &Gateway, fields: Value, headers: &[(&str, &str)]) -> Reply {
    let reply = client::send(gateway.address, responses_request(fields, headers)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply
}

#[tokio::test]
async fn the_same_text_from_any_source_is_the_same_session() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    for key in ["plain", "with space/and:signs", "sé-ß", "12"] {
        let home = gateway.home(key).await;
        let escaped: String = key.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        let body = |fields: &str| format!(r#"{{"model":"gpt-5.2",{fields}"input":"hi"}}"#);
        let with_body = |body: String| format!("content-length: {}\r\n\r\n{body}", body.len());
        let tails = [
            with_body(body(&format!(r#""prompt_cache_key":"{key}","#))),
            with_body(body(&format!(r#""prompt_cache_key":"{escaped}","#))),
            with_body(body(&format!(r#""client_metadata":{{"x":1,"session_id":"{key}"}},"#))),
            with_body(body(&format!(
                r#""client_metadata":{{"session_\u0069d":"{escaped}"}},"#
            ))),
            format!("session-id: {key}\r\n{}", with_body(body(""))),
            format!("Session_ID:   {key}  \r\n{}", with_body(body(""))),
            format!(
                "session-id: {key}\r\n{}",
                with_body(body(r#""prompt_cache_key":null,"#))
            ),
            format!("session-id: \r\nsession_id: {key}\r\n{}", with_body(body(""))),
        ];
        for (nth, tail) in tails.iter().enumerate() {
            let head = "POST /v1/responses HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
            let reply = wire::exchange(gateway.address, [head.as_bytes(), tail.as_bytes()]).await;
            let route = if nth == 0 { "home" } else { "pin" };
            assert_eq!(reply.routed(), (home.as_str(), route), "{tail}");
        }
    }
}

#[tokio::test]
async fn the_first_source_that_is_present_wins() {
    let sims = sims(4).await;
    let gateway = Gateway::before(&sims, "").await;
    let keys = keys_at_home(&gateway, &sims).await;
    let (a, b, c, d) = (&*keys["a"], &*keys["b"], &*keys["c"], &*keys["d"]);
    let metadata = json!({"input": "hi", "client_metadata": {"session_id": d}});
    let mut both = metadata.clone();
    both["prompt_cache_key"] = json!(a);
    let headers = [("session_id", c), ("session-id", b)];
    assert_eq!(send(&gateway, both, &headers).await.routed(), ("a", "home"));
    assert_eq!(send(&gateway, metadata.clone(), &headers).await.routed(), ("b", "home"));
    assert_eq!(
        send(&gateway, metadata.clone(), &headers[..1]).await.routed(),
        ("c", "home")
    );
    assert_eq!(send(&gateway, metadata, &[]).await.routed(), ("d", "home"));
}

#[tokio::test]
async fn configured_sources_replace_the_default_ones() {
    let sims = sims(3).await;
    let head = "[affinity]\nsources = [\"header:X-Conversation\", \"body:client_metadata.session_id\"]\n";
    let gateway = Gateway::before(&sims, head).await;
    let keys = keys_at_home(&gateway, &sims).await;
    let (a, b, c) = (&*keys["a"], &*keys["b"], &*keys["c"]);
    let fields = json!({"input": "hi", "prompt_cache_key": a, "client_metadata": {"session_id": b}});
    let reply = send(&gateway, fields.clone(), &[("x-conversation", c), ("session-id", a)]).await;
    assert_eq!(reply.routed(), ("c", "home"));
    assert_eq!(
        send(&gateway, fields, &[("session-id", a)]).await.routed(),
        ("b", "home")
    );
    let fields = json!({"input": "hi", "prompt_cache_key": a});
    assert_eq!(send(&gateway, fields, &[("session-id", a)]).await.routed().1, "keyless");
}

#[tokio::test]
async fn a_previous_response_routes_to_its_owner() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    for (home, key) in keys_at_home(&gateway, &sims).await {
        for stream in [false, true] {
            let first = json!({"input": "hi", "prompt_cache_key": key, "stream": stream});
            let id = response_id(&send(&gateway, first, &[]).await);
            let next = json!({"input": "and then?", "previous_response_id": id});
            assert_eq!(
                send(&gateway, next.clone(), &[]).await.routed(),
                (home.as_str(), "owner")
            );
            // Owned state takes precedence over the session key, because a cache can be rebuilt on another upstream.
            let mut elsewhere = next;
            elsewhere["prompt_cache_key"] = json!(format!("other-{key}-{stream}"));
            assert_eq!(send(&gateway, elsewhere, &[]).await.routed(), (home.as_str(), "owner"));
        }
    }
}

fn response_id(reply: &Reply) -> String {
    let text = reply.text();
    let at = text.find("\"id\":\"resp_").expect("an id") + 6;
    text[at..].split('"').next().expect("a closing quote").to_owned()
}

#[tokio::test]
async fn a_response_is_known_while_it_still_streams() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    let key = keys_at_home(&gateway, &sims).await.remove("b").expect("a key");
    sims[1].script().once("/v1/responses", Act::stall(Point::Events(1)));
    let request = responses_request(json!({"input": "hi", "prompt_cache_key": key, "stream": true}), &[]);
    let mut streaming = client::open(gateway.address, request).await;
    let mut seen = String::new();
    while !seen.ends_with("\n\n") {
        let frame = http_body_util::BodyExt::frame(streaming.body_mut())
            .await
            .expect("more data")
            .expect("an unbroken body");
        seen.push_str(std::str::from_utf8(frame.data_ref().expect("data")).expect("UTF-8 text"));
    }
    assert!(seen.starts_with("event: response.created"), "{seen}");
    let id = seen[seen.find("resp_").expect("an id")..]
        .split('"')
        .next()
        .expect("a closing quote");
    for method in ["GET", "DELETE"] {
        let request = Request::builder()
            .method(method)
            .uri(format!("/v1/responses/{id}"))
            .body(Full::default());
        let reply = client::send(gateway.address, request.expect("a valid request")).await;
        assert_eq!(
            (reply.status.as_u16(), reply.routed()),
            (200, ("b", "owner")),
            "{method}: {}",
            reply.text()
        );
    }
}

#[tokio::test]
async fn paths_that_name_a_response_route_to_its_owner() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    for (home, key) in keys_at_home(&gateway, &sims).await {
        let id = response_id(&send(&gateway, json!({"input": "hi", "prompt_cache_key": key}), &[]).await);
        for (method, path) in [
            ("GET", format!("/v1/responses/{id}")),
            ("GET", format!("/responses/{id}?include=x&stream=false")),
            ("GET", format!("/v1/responses/{id}/input_items?order=asc")),
            ("POST", format!("/v1/responses/{id}/cancel")),
            ("DELETE", format!("/responses/{id}")),
        ] {
            let request = Request::builder()
                .method(method)
                .uri(&path)
                .body(Full::default())
                .expect("a valid request");
            let reply = client::send(gateway.address, request).await;
            assert_eq!(reply.status, 200, "{method} {path}: {}", reply.text());
            assert_eq!(reply.routed(), (home.as_str(), "owner"), "{method} {path}");
        }
    }
}

#[tokio::test]
async fn turn_state_reaches_only_its_issuer_and_unchanged() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    let keys = keys_at_home(&gateway, &sims).await;
    let first = json!({"input": "hi", "prompt_cache_key": keys["a"]});
    let direct = client::send(sims[0].address(), responses_request(json!({"input": "hi"}), &[])).await;
    let issued = direct.header("x-codex-turn-state");
    let sealed = send(&gateway, first.clone(), &[])
        .await
        .header("x-codex-turn-state")
        .to_owned();
    assert!(!sealed.is_empty() && !issued.is_empty());
    assert_ne!(
        sealed.split_once('-').map(|(start, _)| start),
        issued.split_once('-').map(|(start, _)| start)
    );
    let state = [("x-codex-turn-state", sealed.as_str())];
    // Turn state selects the upstream, both without a session key and with a key with its home at another upstream.
    assert_eq!(
        send(&gateway, json!({"input": "hi"}), &state).await.routed(),
        ("a", "owner")
    );
    let other = json!({"input": "hi", "prompt_cache_key": keys["b"]});
    assert_eq!(send(&gateway, other, &state).await.routed(), ("a", "owner"));
    let got: Vec<_> = sims[0]
        .requests()
        .iter()
        .filter_map(|r| r.headers.get("x-codex-turn-state").cloned())
        .collect();
    assert_eq!(got.len(), 2);
    assert!(
        got.iter()
            .all(|state| sealed.ends_with(state.to_str().expect("UTF-8 text")) && *state != *sealed),
        "{got:?}"
    );
    assert!(sims[1..].iter().all(|sim| sim.counts().requests == 0));
}

#[tokio::test]
async fn a_turn_goes_on_elsewhere_if_the_issuer_of_its_state_cannot_serve_it() {
    let error = |status: StatusCode, code: &str| Act::reply(status, &json!({"error": {"message": "no", "code": code}}));
    for (what, trouble) in [
        ("a long limit", usage_limit_reached(600)),
        (
            "a refused credential",
            error(StatusCode::UNAUTHORIZED, "invalid_api_key"),
        ),
        ("a failure", error(StatusCode::SERVICE_UNAVAILABLE, "overloaded")),
        ("a cut", Act::answer(ScriptedAnswer::Close(Close::Reset))),
    ] {
        let sims = sims(3).await;
        let gateway = Gateway::before(&sims, "").await;
        let key = keys_at_home(&gateway, &sims).await.remove("a").expect("a key");
        let turn = json!({"input": "hi", "prompt_cache_key": key});
        let first = send(&gateway, turn.clone(), &[]).await;
        let state = [("x-codex-turn-state", first.header("x-codex-turn-state"))];
        sims[0].script().always(trouble);
        let moved = send(&gateway, turn.clone(), &state).await;
        let (second, route) = moved.routed();
        assert!(second != "a" && route == "moved", "{what}: {second} {route}");
        let again = send(&gateway, turn.clone(), &state).await;
        assert_eq!(
            again.routed(),
            (second, "moved"),
            "{what}: the rest of the turn stays together"
        );
        let others = sims[1..].iter().flat_map(|sim| sim.requests());
        assert_eq!(
            others.filter(|r| r.headers.contains_key("x-codex-turn-state")).count(),
            0
        );
        assert_eq!(
            send(&gateway, turn, &[]).await.routed(),
            (second, "pin"),
            "{what}: the next turn"
        );
    }
}

#[tokio::test]
async fn a_turn_waits_for_the_issuer_of_its_state_if_the_limit_is_short() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    // A request without a session key: only the turn state tells where its turn began.
    let first = send(&gateway, json!({"input": "hi"}), &[]).await;
    let (issuer, _) = first.routed();
    let state = [("x-codex-turn-state", first.header("x-codex-turn-state"))];
    let sim = sims.iter().find(|sim| sim.name() == issuer).expect("the issuer");
    sim.script().once("/v1/responses", usage_limit_reached(1));
    let begun = Instant::now();
    let reply = send(&gateway, json!({"input": "another text"}), &state).await;
    assert_eq!(reply.routed(), (issuer, "owner"));
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn foreign_turn_state_is_not_forwarded() {
    let all = sims(2).await;
    let (one, two) = (
        Gateway::before(&all[..1], "").await,
        Gateway::before(&all[1..], "").await,
    );
    let sealed = send(&one, json!({"input": "hi"}), &[])
        .await
        .header("x-codex-turn-state")
        .to_owned();
    let plain = client::send(all[0].address(), responses_request(json!({"input": "hi"}), &[])).await;
    let plain = plain.header("x-codex-turn-state").to_owned();
    for state in [&*sealed, &*plain, "", "steadfast-", "steadfast-0123456789abcdef-x"] {
        send(&two, json!({"input": "hi"}), &[("x-codex-turn-state", state)]).await;
    }
    let arrived = all[1].requests();
    assert_eq!(arrived.len(), 5);
    assert!(
        arrived
            .iter()
            .all(|request| !request.headers.contains_key("x-codex-turn-state"))
    );
}

#[tokio::test]
async fn a_growing_conversation_without_a_key_stays_on_one_upstream() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    let mut used = HashSet::new();
    for number in 0..12 {
        let question = json!({"role": "user", "content": format!("Conversation {number}")});
        let mut input = vec![json!({"role": "developer", "content": "Be brief."}), question];
        let mut place = None;
        for turn in 0..4 {
            let fields = json!({"instructions": "You are helpful.", "input": input, "stream": turn == 2});
            let reply = send(&gateway, fields, &[]).await;
            let (upstream, route) = reply.routed();
            let place = place.get_or_insert_with(|| upstream.to_owned());
            assert_eq!(
                (upstream, route),
                (place.as_str(), if turn == 0 { "home" } else { "pin" })
            );
            input.push(json!({"role": "assistant", "content": format!("Answer {turn}")}));
            input.push(json!({"role": "user", "content": "x".repeat(3000)}));
        }
        used.extend(place);
    }
    assert_eq!(used.len(), 3, "{used:?}");
}

#[tokio::test]
async fn conversations_that_differ_only_in_their_question_spread_and_stay() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    for (length, path, turns) in [
        (6 * 1024, "/v1/responses", 2),
        (6 * 1024, "/v1/chat/completions", 2),
        (6 * 1024, "/v1/messages", 2),
        (600 * 1024, "/v1/responses", 1),
    ] {
        let prompt = "p".repeat(length);
        let mut sessions: HashMap<String, u32> = HashMap::new();
        for number in 0..60 {
            let mut items = vec![json!({"role": "user", "content": format!("Question {number}")})];
            let mut place = None;
            for _ in 0..turns {
                let body = match path {
                    "/v1/responses" => json!({"model": "m", "instructions": prompt, "input": items}),
                    "/v1/messages" => json!({"model": "m", "max_tokens": 9, "system": prompt, "messages": items}),
                    _ => {
                        let system = json!({"role": "system", "content": prompt});
                        let messages = [&[system][..], &items[..]].concat();
                        json!({"model": "m", "messages": messages})
                    }
                };
                let reply = client::post_json(gateway.address, path, &body).await;
                assert_eq!(reply.status, 200, "{}", reply.text());
                let upstream = reply.routed().0.to_owned();
                assert_eq!(place.get_or_insert(upstream.clone()), &upstream, "{path} {number}");
                items.push(json!({"role": "assistant", "content": "Answer"}));
                items.push(json!({"role": "user", "content": "More"}));
            }
            *sessions.entry(place.expect("there was a turn")).or_default() += 1;
        }
        let most = sessions.values().max().expect("there are sessions");
        assert!(*most <= 30, "{path} {length}: {sessions:?}");
    }
}

#[tokio::test]
async fn keyless_requests_go_to_the_less_loaded_upstream() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    let held = Rule::new(Act::stall(Point::Events(1))).head(|head| head.headers.contains_key("x-hold"));
    sims[0].script().add(held);
    let key = keys_at_home(&gateway, &sims).await.remove("a").expect("a key");
    let request = responses_request(
        json!({"input": "hi", "prompt_cache_key": key, "stream": true}),
        &[("x-hold", "1")],
    );
    let streaming = client::open(gateway.address, request).await;
    let embed = async || {
        let body = json!({"model": "m", "input": "hi"});
        client::post_json(gateway.address, "/v1/embeddings", &body).await
    };
    for _ in 0..8 {
        let reply = embed().await;
        assert_eq!(reply.routed(), ("b", "keyless"));
    }
    drop(streaming);
    until("no request in flight at a", || async {
        let free = gateway.metric("steadfast_in_flight_requests{upstream=\"a\"}").await == 0.0;
        free.then_some(())
    })
    .await;
    let mut used = HashSet::new();
    for _ in 0..40 {
        used.insert(embed().await.routed().0.to_owned());
    }
    assert_eq!(used.len(), 2, "both are idle");
}

#[tokio::test]
async fn sessions_spread_by_weight_as_route_predicts() {
    let sims = sims(3).await;
    let config: Vec<String> = (1..)
        .zip(&sims)
        .map(|(weight, sim)| upstream(sim, &format!("weight = {weight}")))
        .collect();
    let gateway = Gateway::configured(&config.concat()).await;
    let mut counts = HashMap::new();
    for number in 0..200 {
        let key = format!("session-{number}");
        let told = gateway.ask(&format!("/api/route?key={key}")).await.json();
        let told = told["upstreams"][0]["name"].as_str().expect("a name");
        if number % 20 == 0 {
            assert_eq!(gateway.home(&key).await, told, "the command and the admin API agree");
        }
        let reply = send(&gateway, json!({"input": "hi", "prompt_cache_key": key}), &[]).await;
        assert_eq!(reply.routed(), (told, "home"));
        *counts.entry(told.to_owned()).or_insert(0) += 1;
    }
    for (name, ideal) in [("a", 33), ("b", 67), ("c", 100)] {
        assert!((ideal - 20..=ideal + 20).contains(&counts[name]), "{counts:?}");
    }
}

#[tokio::test]
async fn every_path_with_a_session_key_routes_to_its_session() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    let body = |key: &str| json!({"model": "gpt-5.2", "input": "hi", "messages": [], "prompt_cache_key": key});
    for (home, key) in keys_at_home(&gateway, &sims).await {
        let mut route = "home";
        for path in [
            "/v1/responses",
            "/responses/compact",
            "/v1/chat/completions",
            "/v1/embeddings",
            "/v1/anything",
        ] {
            let reply = client::post_json(gateway.address, path, &body(&key)).await;
            assert_eq!(reply.routed(), (home.as_str(), route), "{path}: {}", reply.text());
            route = "pin";
        }
    }
}

#[tokio::test]
async fn a_compaction_without_a_key_finds_its_session() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    let mut accounts = HashSet::new();
    for number in 0..12 {
        let (key, input) = (
            format!("compact-{number}"),
            json!([{"role": "user", "content": format!("question {number}")}]),
        );
        let turn = json!({"input": input, "prompt_cache_key": key});
        let account = send(&gateway, turn.clone(), &[]).await.routed().0.to_owned();
        let compact = async || {
            let body = json!({"model": "gpt-5.2", "instructions": null, "input": input});
            let reply = client::post_json(gateway.address, "/v1/responses/compact", &body).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            reply.routed().0.to_owned()
        };
        assert_eq!(compact().await, account, "session {number}");
        // The session moves, and its next compaction follows it.
        let index = sims
            .iter()
            .position(|sim| sim.name() == account)
            .expect("one of the accounts");
        sims[index].script().once("/v1/responses", usage_limit_reached(600));
        let moved = send(&gateway, turn, &[]).await.routed().0.to_owned();
        assert_ne!(moved, account);
        assert_eq!(compact().await, moved, "session {number}");
        let enable = client::post(&format!("/api/upstreams/{account}/enable"), "");
        assert_eq!(client::send(gateway.admin, enable).await.status, 200);
        accounts.insert(account);
    }
    assert_eq!(accounts.len(), 3, "the sessions are at different accounts");
}

//! Another configuration for a running process: taken up whole, or not at all.

use std::{fs, os::unix::fs::symlink, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use steadfast::sim::{Act, Point, Sim};

use crate::{
    affinity::ask,
    kit::{
        client::{self, Reply, post},
        gateway::{FILE, Gateway, scratch, upstream, upstream_at},
        sim, sim_with, sims, until,
        wire::{self, Wire},
    },
};

/// A file with these upstreams.
fn file(sims: &[Sim]) -> String {
    sims.iter().map(|sim| upstream(sim, "")).collect()
}

async fn reload(gateway: &Gateway) -> Reply {
    client::send(gateway.admin, post("/api/reload", "")).await
}

/// Waits until the outcome `outcome` has been counted `count` times.
async fn counted(gateway: &Gateway, outcome: &str, count: f64) {
    let name = format!("steadfast_reloads_total{{outcome=\"{outcome}\"}}");
    let reached = || async { (gateway.metric(&name).await == count).then_some(()) };
    until(&format!("{count} of {name}; log: {:?}", gateway.log()), reached).await;
}

async fn names(gateway: &Gateway) -> Vec<String> {
    let told = gateway.ask("/api/upstreams").await.json();
    let told = told["upstreams"].as_array().expect("a list").iter();
    told.map(|one| one["name"].as_str().expect("a name").to_owned())
        .collect()
}

async fn say(gateway: &Gateway, key: &str) -> Reply {
    client::send(
        gateway.address,
        ask(json!({"input": "hi", "prompt_cache_key": key}), &[]),
    )
    .await
}

#[tokio::test]
async fn a_file_that_changes_is_taken_up() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims[..1], "").await;
    let folder = gateway.file().parent().expect("a folder").to_owned();

    gateway.write(&file(&sims[..2]));
    counted(&gateway, "applied", 1.0).await;
    assert_eq!(names(&gateway).await, ["a", "b"]);

    // As editors save: written beside, and renamed into place.
    fs::write(folder.join(".new"), file(&sims)).expect("a writable folder");
    fs::rename(folder.join(".new"), gateway.file()).expect("one file system");
    counted(&gateway, "applied", 2.0).await;
    assert_eq!(names(&gateway).await, ["a", "b", "c"]);

    // And as others do: moved away, and written anew.
    fs::rename(gateway.file(), folder.join("steadfast.toml~")).expect("one file system");
    gateway.write(&file(&sims[1..]));
    counted(&gateway, "applied", 3.0).await;
    assert_eq!(names(&gateway).await, ["b", "c"]);

    for key in ["s1", "s2", "s3", "s4"] {
        assert_eq!(say(&gateway, key).await.status, 200);
    }
    assert_eq!(sims[0].counts().requests, 0, "what left gets nothing more");
    // Neither the same content written again, nor a file beside it, nor our own reading is a reason to reload.
    gateway.write(&file(&sims[1..]));
    fs::write(folder.join("other.toml"), "x").expect("a writable folder");
    assert_eq!(reload(&gateway).await.json(), json!({"outcome": "unchanged"}));
    gateway.write(&file(&sims));
    counted(&gateway, "applied", 4.0).await;
    assert_eq!(gateway.metric("steadfast_reloads_total").await, 5.0);
}

/// Kubernetes writes each version of a ConfigMap to a folder of its own, and turns the link `..data` to it.
#[tokio::test]
async fn a_mounted_config_map_is_followed_through_its_links() {
    let sims = sims(3).await;
    let folder = scratch();
    let write = |version: &str, count: usize| {
        fs::create_dir(folder.join(version)).expect("a writable folder");
        fs::write(folder.join(version).join(FILE), file(&sims[..count])).expect("a writable folder");
        symlink(version, folder.join("..data_tmp")).expect("links");
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("one file system");
    };
    write("..2024_1", 1);
    symlink(format!("..data/{FILE}"), folder.join(FILE)).expect("links");
    let flags = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let gateway = Gateway::over(folder.clone(), &flags).await;
    for (version, before, count) in [("..2024_2", "..2024_1", 2), ("..2024_3", "..2024_2", 3)] {
        write(version, count);
        fs::remove_dir_all(folder.join(before)).expect("it is there");
        counted(&gateway, "applied", (count - 1) as f64).await;
        assert_eq!(names(&gateway).await.len(), count);
    }
}

/// A link to a file elsewhere, which is written in place.
#[tokio::test]
async fn the_target_of_a_link_is_watched_too() {
    let sims = sims(2).await;
    let (folder, elsewhere) = (scratch(), scratch());
    fs::write(elsewhere.join("kept.toml"), file(&sims[..1])).expect("a writable folder");
    symlink(elsewhere.join("kept.toml"), folder.join(FILE)).expect("links");
    let flags = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let gateway = Gateway::over(folder, &flags).await;
    fs::write(elsewhere.join("kept.toml"), file(&sims)).expect("a writable folder");
    counted(&gateway, "applied", 1.0).await;
    let _ = fs::remove_dir_all(elsewhere);
}

/// What the file names is read again as well, though nobody watches it.
#[tokio::test]
async fn a_signal_reloads_and_the_new_key_is_used() {
    let sim = sim("a").await;
    let (folder, keys) = (scratch(), scratch());
    fs::write(keys.join("key"), "sk-first").expect("a writable folder");
    let key = keys.join("key").display().to_string();
    let config = upstream(&sim, "").replace("env:STEADFAST_TEST_KEY", &format!("file:{key}"));
    fs::write(folder.join(FILE), config).expect("a writable folder");
    let gateway = Gateway::over(folder, &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).await;
    say(&gateway, "s").await;
    gateway.signal("HUP").await;
    counted(&gateway, "unchanged", 1.0).await;

    fs::write(keys.join("key"), "sk-second").expect("a writable folder");
    gateway.signal("HUP").await;
    counted(&gateway, "applied", 1.0).await;
    say(&gateway, "s").await;
    let shown: Vec<_> = sim
        .requests()
        .iter()
        .map(|request| request.headers["authorization"].clone())
        .collect();
    assert_eq!(shown, ["Bearer sk-first", "Bearer sk-second"]);
    let log = gateway.log_until("a new configuration is in force").await.concat();
    assert!(
        log.contains("\"trigger\":\"signal\"") && log.contains("\"changed\":\"a\""),
        "{log}"
    );
    assert!(!log.contains("sk-first") && !log.contains("sk-second"), "{log}");
    assert_eq!(
        sim.counts().connections,
        1,
        "an upstream that is reached as before keeps its connections"
    );
    let _ = fs::remove_dir_all(keys);
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_says_why_everywhere() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    gateway.write(&(file(&sims[..1]) + "[retry]\nattempts = 0\n[server]\ngrace = \"soon\"\n"));
    counted(&gateway, "refused", 1.0).await;
    let path = gateway.file().display().to_string();
    let problems = [
        format!("{path}:7:12: attempts must be between 1 and 10"),
        format!("{path}:9:9: grace must be a duration such as \"5s\", \"500ms\" or \"1h30m\", not \"soon\""),
    ];
    let log = gateway.log_until("the old configuration stays in force").await;
    let errors: Vec<Value> = log.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for problem in &problems {
        let told = errors
            .iter()
            .filter(|line| line["message"] == problem.as_str() && line["level"] == "ERROR");
        assert_eq!(told.count(), 1, "{problem} in {log:?}");
    }

    let reply = reload(&gateway).await;
    assert_eq!(reply.status, 422);
    assert_eq!(reply.json()["error"]["problems"], json!(problems));
    counted(&gateway, "refused", 2.0).await;

    // What only shows when it is compiled is refused as well, and so is a file that is gone.
    fs::remove_file(gateway.file()).expect("it is there");
    let gone = reload(&gateway).await;
    assert!(gone.text().contains("cannot be read"), "{}", gone.text());
    assert_eq!(names(&gateway).await, ["a", "b"]);
    assert_eq!(say(&gateway, "s").await.status, 200);

    gateway.write(&file(&sims));
    counted(&gateway, "unchanged", 1.0).await;
    assert_eq!(
        gateway.metric("steadfast_reloads_total{outcome=\"applied\"}").await,
        0.0
    );
}

#[tokio::test]
async fn a_stream_ends_on_the_configuration_that_it_began_with() {
    let slow = sim_with("a", |config| config.pace = Duration::from_millis(60)).await;
    let other = sim("b").await;
    let gateway = Gateway::before(std::slice::from_ref(&slow), "").await;
    let mut wire = Wire::open(gateway.address).await;
    let stream = r#"{"model":"gpt-5.2","input":"hi","stream":true}"#;
    wire.send(wire::post("/v1/responses", stream)).await;
    wire.skip_to("response.created").await;
    gateway.write(&upstream(&other, ""));
    let reply = reload(&gateway).await.json();
    // The file's change may have been faster.
    if reply["outcome"] == "applied" {
        assert_eq!((&reply["added"], &reply["removed"]), (&json!(["b"]), &json!(["a"])));
    }
    assert_eq!(say(&gateway, "s").await.routed().0, "b");
    wire.skip_to("response.completed").await;
    wire.skip_to("\r\n0\r\n\r\n").await;
    assert_eq!((slow.counts().aborted, slow.counts().requests), (0, 1));
}

#[tokio::test]
async fn sessions_stay_where_they_are_pinned_while_new_ones_use_what_is_new() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims[..1], "").await;
    for number in 0..20 {
        assert_eq!(say(&gateway, &format!("old-{number}")).await.routed(), ("a", "home"));
    }
    gateway.write(&("affinity.capacity = 1000\n".to_owned() + &file(&sims)));
    counted(&gateway, "applied", 1.0).await;
    for number in 0..20 {
        assert_eq!(say(&gateway, &format!("old-{number}")).await.routed(), ("a", "pin"));
    }
    let mut fresh = 0;
    for number in 0..20 {
        fresh += u32::from(say(&gateway, &format!("new-{number}")).await.routed() == ("b", "home"));
    }
    assert!(fresh > 0, "some of twenty sessions are at home at b");
    // Counters go on, and fewer pins are kept where fewer may be.
    assert_eq!(gateway.metric("steadfast_requests_total").await, 60.0);
    assert_eq!(gateway.metric("steadfast_pins").await, 40.0);
    gateway.write(&("affinity.capacity = 10\n".to_owned() + &file(&sims)));
    counted(&gateway, "applied", 2.0).await;
    assert_eq!(gateway.metric("steadfast_pins").await, 10.0);
}

#[tokio::test]
async fn what_was_bound_at_the_start_waits_for_the_next_one_and_the_rest_does_not() {
    let sims = sims(2).await;
    let folder = scratch();
    let head = |port: u16| format!("server.listen = \"127.0.0.1:{port}\"\nadmin.listen = \"127.0.0.1:0\"\n");
    fs::write(folder.join(FILE), head(0) + &file(&sims[..1])).expect("a writable folder");
    let gateway = Gateway::over(folder, &[]).await;
    gateway.write(&(head(9) + "timeouts.client_header = \"1s\"\n" + &file(&sims)));
    counted(&gateway, "applied", 1.0).await;
    let log = gateway.log_until("client_header changed").await.concat();
    assert!(
        log.contains("server.listen changed: takes effect at the next start"),
        "{log}"
    );
    assert!(!log.contains("admin.listen changed"), "{log}");
    assert_eq!(names(&gateway).await, ["a", "b"]);
    assert_eq!(say(&gateway, "s").await.status, 200, "the listener stays");
    // It is compared with the start: whoever takes a change back is told nothing.
    gateway.write(&(head(0) + &file(&sims)));
    counted(&gateway, "applied", 2.0).await;
    gateway.write(&(head(0) + &upstream_at("z", "ftp://", "")));
    let log = gateway.log_until("base_url must start with").await.concat();
    assert_eq!(log.matches("changed: takes effect").count(), 2, "{log}");
}

/// The new file is good by itself, but not with the socket that stays open until the next start.
#[tokio::test]
async fn no_reload_opens_the_door_of_before() {
    let sims = sims(1).await;
    let folder = scratch();
    let head = |ip: &str| format!("server.listen = \"{ip}:0\"\nadmin.listen = \"127.0.0.1:0\"\n");
    let keys = format!(
        "[[group]]\nname = \"team\"\n[[key]]\nname = \"alice\"\nsha256 = \"{}\"\ngroup = \"team\"\n",
        "ab".repeat(32)
    );
    fs::write(folder.join(FILE), head("0.0.0.0") + &keys + &file(&sims)).expect("a writable folder");
    let gateway = Gateway::over(folder, &[]).await;
    assert_eq!(say(&gateway, "s").await.status, 401);
    gateway.write(&(head("127.0.0.1") + &file(&sims)));
    counted(&gateway, "refused", 1.0).await;
    gateway.log_until("until the next start, and without client keys").await;
    assert_eq!(say(&gateway, "s").await.status, 401);
    // Said on purpose, it is taken.
    gateway.write(&(head("127.0.0.1") + "server.allow_anonymous = true\n" + &file(&sims)));
    counted(&gateway, "applied", 1.0).await;
    assert_eq!(say(&gateway, "s").await.status, 200);
}

#[tokio::test]
async fn the_operator_is_told_what_changed_and_pages_of_other_sites_change_nothing() {
    let sims = sims(2).await;
    let folder = scratch();
    fs::write(folder.join(FILE), file(&sims[..1])).expect("a writable folder");
    let keys = scratch();
    fs::write(keys.join("key"), "sk-first").expect("a writable folder");
    let gateway = Gateway::over(folder, &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).await;
    let own = format!("http://{}", gateway.admin);
    for (name, value, status) in [
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("origin", "http://127.0.0.1", 403),
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),
        ("origin", own.as_str(), 200),
        ("sec-fetch-site", "same-origin", 200),
        ("sec-fetch-site", "none", 200),
    ] {
        let asked = Request::post("/api/reload")
            .header(name, value)
            .body(Full::<Bytes>::default());
        let reply = client::send(gateway.admin, asked.expect("a request")).await;
        assert_eq!(reply.status.as_u16(), status, "{name}: {value}: {}", reply.text());
    }
    assert_eq!(gateway.metric("steadfast_reloads_total").await, 3.0);
    let _ = fs::remove_dir_all(keys);

    let gateway = Gateway::bare().await;
    assert_eq!(reload(&gateway).await.status, 409);
    gateway.signal("HUP").await;
    gateway.log_until("no file to reload").await;
    assert_eq!(gateway.metric("steadfast_reloads_total").await, 0.0);
}

/// A body that stands in the room for bodies is given up only when it has left.
#[tokio::test]
async fn the_room_for_bodies_shrinks_around_what_stands_in_it() {
    let sim = sim("a").await;
    let config = |room: &str| {
        format!(
            "server = {{ max_body = \"1KiB\", buffered_bodies = \"{room}\" }}\n{}",
            upstream(&sim, "")
        )
    };
    let gateway = Gateway::configured(&config("64KiB")).await;
    sim.script().once("/v1/responses", Act::stall(Point::Events(1)));
    let streaming = client::open(gateway.address, ask(json!({"input": "hi", "stream": true}), &[])).await;
    gateway.write(&config("1KiB"));
    counted(&gateway, "applied", 1.0).await;
    drop(streaming);
    until("room again", || async {
        let held = gateway.metric("steadfast_buffered_bytes").await;
        (held == 0.0).then_some(())
    })
    .await;
    assert_eq!(say(&gateway, "s").await.status, 200);
}

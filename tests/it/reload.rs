//! Reloads: a new configuration is applied as a whole or not at all.

use std::{fs, os::unix::fs::symlink, process::Stdio, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use steadfast::sim::{Act, Point, Sim};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use crate::kit::{
    client::{self, Reply, post},
    commands::make_irregular,
    gateway::{FILE, Gateway, scratch, upstream, upstream_at},
    sessions::responses_request,
    sim, sim_with, sims, until,
    wire::{self, Wire},
};

mod pipes;

/// Returns a configuration file with these upstreams.
fn file(sims: &[Sim]) -> String {
    sims.iter().map(|sim| upstream(sim, "")).collect()
}

async fn reload(gateway: &Gateway) -> Reply {
    client::send(gateway.admin, post("/api/reload", "")).await
}

/// Waits until `count` reloads have ended with `outcome`.
async fn until_counted(gateway: &Gateway, outcome: &str, count: f64) {
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

async fn send_turn(gateway: &Gateway, key: &str) -> Reply {
    client::send(
        gateway.address,
        responses_request(json!({"input": "hi", "prompt_cache_key": key}), &[]),
    )
    .await
}

#[tokio::test]
async fn a_changed_file_is_applied() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims[..1], "").await;
    let folder = gateway.file().parent().expect("a folder").to_owned();

    gateway.write(&file(&sims[..2]));
    until_counted(&gateway, "applied", 1.0).await;
    assert_eq!(names(&gateway).await, ["a", "b"]);

    // Some editors write a new file and rename it.
    fs::write(folder.join(".new"), file(&sims)).expect("a writable folder");
    fs::rename(folder.join(".new"), gateway.file()).expect("both paths are on one file system");
    until_counted(&gateway, "applied", 2.0).await;
    assert_eq!(names(&gateway).await, ["a", "b", "c"]);

    // Other editors rename the old file and write a new one.
    fs::rename(gateway.file(), folder.join("steadfast.toml~")).expect("both paths are on one file system");
    gateway.write(&file(&sims[1..]));
    until_counted(&gateway, "applied", 3.0).await;
    assert_eq!(names(&gateway).await, ["b", "c"]);

    for key in ["s1", "s2", "s3", "s4"] {
        assert_eq!(send_turn(&gateway, key).await.status, 200);
    }
    assert_eq!(sims[0].counts().requests, 0, "a removed upstream receives no requests");
    // The same content, another file in the folder and the gateway's own reads must not cause a reload.
    gateway.write(&file(&sims[1..]));
    fs::write(folder.join("other.toml"), "x").expect("a writable folder");
    assert_eq!(reload(&gateway).await.json(), json!({"outcome": "unchanged"}));
    gateway.write(&file(&sims));
    until_counted(&gateway, "applied", 4.0).await;
    assert_eq!(gateway.metric("steadfast_reloads_total").await, 5.0);
}

/// Kubernetes writes each version of a ConfigMap to a new folder and then changes the link `..data` to that folder.
#[tokio::test]
async fn a_mounted_config_map_is_watched_through_its_links() {
    let sims = sims(3).await;
    let folder = scratch();
    let write = |version: &str, count: usize| {
        fs::create_dir(folder.join(version)).expect("a writable folder");
        fs::write(folder.join(version).join(FILE), file(&sims[..count])).expect("a writable folder");
        symlink(version, folder.join("..data_tmp")).expect("the file system supports links");
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("both paths are on one file system");
    };
    write("..2024_1", 1);
    symlink(format!("..data/{FILE}"), folder.join(FILE)).expect("the file system supports links");
    let flags = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let gateway = Gateway::over(folder.clone(), &flags).await;
    for (version, before, count) in [("..2024_2", "..2024_1", 2), ("..2024_3", "..2024_2", 3)] {
        write(version, count);
        fs::remove_dir_all(folder.join(before)).expect("the file exists");
        until_counted(&gateway, "applied", (count - 1) as f64).await;
        assert_eq!(names(&gateway).await.len(), count);
    }
}

/// The configuration file is a link to a file in another folder, which is overwritten in place.
#[tokio::test]
async fn the_target_of_a_link_is_watched() {
    let sims = sims(2).await;
    let (folder, elsewhere) = (scratch(), scratch());
    fs::write(elsewhere.join("kept.toml"), file(&sims[..1])).expect("a writable folder");
    symlink(elsewhere.join("kept.toml"), folder.join(FILE)).expect("the file system supports links");
    let flags = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let gateway = Gateway::over(folder, &flags).await;
    fs::write(elsewhere.join("kept.toml"), file(&sims)).expect("a writable folder");
    until_counted(&gateway, "applied", 1.0).await;
    let _ = fs::remove_dir_all(elsewhere);
}

/// A key file is not watched, but a reload reads it again.
#[tokio::test]
async fn a_signal_reloads_and_a_new_key_is_used() {
    let sim = sim("a").await;
    let (folder, keys) = (scratch(), scratch());
    fs::write(keys.join("key"), "sk-first").expect("a writable folder");
    let key = keys.join("key").display().to_string();
    let config = upstream(&sim, "").replace("env:STEADFAST_TEST_KEY", &format!("file:{key}"));
    fs::write(folder.join(FILE), config).expect("a writable folder");
    let gateway = Gateway::over(folder, &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]).await;
    send_turn(&gateway, "s").await;
    gateway.signal("HUP").await;
    until_counted(&gateway, "unchanged", 1.0).await;

    fs::write(keys.join("key"), "sk-second").expect("a writable folder");
    gateway.signal("HUP").await;
    until_counted(&gateway, "applied", 1.0).await;
    send_turn(&gateway, "s").await;
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
        "an upstream with an unchanged address keeps its connections"
    );
    let _ = fs::remove_dir_all(keys);
}

#[tokio::test]
async fn an_invalid_file_changes_nothing_and_is_reported() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims, "").await;
    gateway.write(&(file(&sims[..1]) + "[retry]\nattempts = 0\n[server]\ngrace = \"soon\"\n"));
    until_counted(&gateway, "refused", 1.0).await;
    let path = gateway.file().display().to_string();
    let problems = [
        format!("{path}:7:12: attempts must be between 1 and 10"),
        format!("{path}:9:9: grace must be a duration such as \"5s\", \"500ms\" or \"1h30m\", not \"soon\""),
    ];
    let log = gateway.log_until("so the old one stays in force").await;
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
    until_counted(&gateway, "refused", 2.0).await;

    // A missing file is refused as well.
    fs::remove_file(gateway.file()).expect("the file exists");
    let gone = reload(&gateway).await;
    assert!(gone.text().contains("cannot be read"), "{}", gone.text());
    assert_eq!(names(&gateway).await, ["a", "b"]);
    assert_eq!(send_turn(&gateway, "s").await.status, 200);

    gateway.write(&file(&sims));
    until_counted(&gateway, "unchanged", 1.0).await;
    assert_eq!(
        gateway.metric("steadfast_reloads_total{outcome=\"applied\"}").await,
        0.0
    );
}

#[tokio::test]
async fn a_stream_keeps_the_configuration_that_it_began_with() {
    let slow = sim_with("a", |config| config.pace = Duration::from_millis(60)).await;
    let other = sim("b").await;
    let gateway = Gateway::before(std::slice::from_ref(&slow), "").await;
    let mut wire = Wire::open(gateway.address).await;
    let stream = r#"{"model":"gpt-5.2","input":"hi","stream":true}"#;
    wire.send(wire::post("/v1/responses", stream)).await;
    wire.skip_to("response.created").await;
    gateway.write(&upstream(&other, ""));
    let reply = reload(&gateway).await.json();
    // The watcher may have reloaded the file already.
    if reply["outcome"] == "applied" {
        assert_eq!((&reply["added"], &reply["removed"]), (&json!(["b"]), &json!(["a"])));
    }
    assert_eq!(send_turn(&gateway, "s").await.routed().0, "b");
    wire.skip_to("response.completed").await;
    wire.skip_to("\r\n0\r\n\r\n").await;
    assert_eq!((slow.counts().aborted, slow.counts().requests), (0, 1));
}

#[tokio::test]
async fn pinned_sessions_stay_and_new_sessions_use_new_upstreams() {
    let sims = sims(2).await;
    let gateway = Gateway::before(&sims[..1], "").await;
    for number in 0..20 {
        assert_eq!(
            send_turn(&gateway, &format!("old-{number}")).await.routed(),
            ("a", "home")
        );
    }
    gateway.write(&("affinity.capacity = 1000\n".to_owned() + &file(&sims)));
    until_counted(&gateway, "applied", 1.0).await;
    for number in 0..20 {
        assert_eq!(
            send_turn(&gateway, &format!("old-{number}")).await.routed(),
            ("a", "pin")
        );
    }
    let mut fresh = 0;
    for number in 0..20 {
        fresh += u32::from(send_turn(&gateway, &format!("new-{number}")).await.routed() == ("b", "home"));
    }
    assert!(fresh > 0, "some of twenty new sessions have their home at b");
    // Counters are kept, and a lower capacity evicts pins.
    assert_eq!(gateway.metric("steadfast_requests_total").await, 60.0);
    assert_eq!(gateway.metric("steadfast_pins").await, 40.0);
    gateway.write(&("affinity.capacity = 10\n".to_owned() + &file(&sims)));
    until_counted(&gateway, "applied", 2.0).await;
    assert_eq!(gateway.metric("steadfast_pins").await, 10.0);
}

#[tokio::test]
async fn a_changed_listener_takes_effect_at_the_next_start() {
    let sims = sims(2).await;
    let folder = scratch();
    let head = |port: u16| format!("server.listen = \"127.0.0.1:{port}\"\nadmin.listen = \"127.0.0.1:0\"\n");
    fs::write(folder.join(FILE), head(0) + &file(&sims[..1])).expect("a writable folder");
    let gateway = Gateway::over(folder, &[]).await;
    gateway.write(&(head(9) + "timeouts.client_header = \"1s\"\n" + &file(&sims)));
    until_counted(&gateway, "applied", 1.0).await;
    let log = gateway.log_until("client_header changed").await.concat();
    assert!(
        log.contains("server.listen changed; the change takes effect at the next start"),
        "{log}"
    );
    assert!(!log.contains("admin.listen changed"), "{log}");
    assert_eq!(names(&gateway).await, ["a", "b"]);
    assert_eq!(send_turn(&gateway, "s").await.status, 200, "the listener stays");
    // The listener is compared with the one at the start. So there is no message if the change is undone.
    gateway.write(&(head(0) + &file(&sims)));
    until_counted(&gateway, "applied", 2.0).await;
    gateway.write(&(head(0) + &upstream_at("z", "ftp://", "")));
    let log = gateway.log_until("base_url must start with").await.concat();
    assert_eq!(log.matches("the change takes effect").count(), 2, "{log}");
}

/// The new file is valid by itself, but it would allow anonymous access on the old public address, which stays bound
/// until the next start.
#[tokio::test]
async fn no_reload_allows_anonymous_access_on_a_public_address() {
    let sims = sims(1).await;
    let folder = scratch();
    let head = |ip: &str| format!("server.listen = \"{ip}:0\"\nadmin.listen = \"127.0.0.1:0\"\n");
    let keys = format!(
        "[[group]]\nname = \"team\"\n[[key]]\nname = \"alice\"\nsha256 = \"{}\"\ngroup = \"team\"\n",
        "ab".repeat(32)
    );
    fs::write(folder.join(FILE), head("0.0.0.0") + &keys + &file(&sims)).expect("a writable folder");
    let gateway = Gateway::over(folder, &[]).await;
    assert_eq!(send_turn(&gateway, "s").await.status, 401);
    gateway.write(&(head("127.0.0.1") + &file(&sims)));
    until_counted(&gateway, "refused", 1.0).await;
    gateway.log_until("until the next start, and without client keys").await;
    assert_eq!(send_turn(&gateway, "s").await.status, 401);
    // The file is accepted if it allows anonymous access explicitly.
    gateway.write(&(head("127.0.0.1") + "server.allow_anonymous = true\n" + &file(&sims)));
    until_counted(&gateway, "applied", 1.0).await;
    assert_eq!(send_turn(&gateway, "s").await.status, 200);
}

#[tokio::test]
async fn a_page_of_another_site_cannot_reload() {
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
        let reply = client::send(gateway.admin, asked.expect("a valid request")).await;
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

/// A smaller limit of buffered bodies takes effect for new bodies; a body that is buffered keeps its space until it
/// has been sent.
#[tokio::test]
async fn a_smaller_buffer_limit_respects_buffered_bodies() {
    let sim = sim("a").await;
    let config = |buffered: &str| {
        format!(
            "server = {{ max_body = \"1KiB\", buffered_bodies = \"{buffered}\" }}\n{}",
            upstream(&sim, "")
        )
    };
    let gateway = Gateway::configured(&config("64KiB")).await;
    sim.script().once("/v1/responses", Act::stall(Point::Events(1)));
    let streaming = client::open(
        gateway.address,
        responses_request(json!({"input": "hi", "stream": true}), &[]),
    )
    .await;
    gateway.write(&config("1KiB"));
    until_counted(&gateway, "applied", 1.0).await;
    drop(streaming);
    until("the buffer to be empty", || async {
        let held = gateway.metric("steadfast_buffered_bytes").await;
        (held == 0.0).then_some(())
    })
    .await;
    assert_eq!(send_turn(&gateway, "s").await.status, 200);
}

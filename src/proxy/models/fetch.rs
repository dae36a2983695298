//! Fetches the lists of models from upstreams.

use std::{sync::Arc, time::Duration};

use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use tokio::{task::JoinSet, time::timeout};

use super::list::{self, Model};
use crate::{
    ids::UpstreamId,
    proxy::request::headers::{CallersCredential, set_upstream_headers},
    state::{Credential, Snapshot, Upstream},
    wire::{Framing, Replay, SendOptions},
};

/// How long an upstream may take to return its list.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum size of a list in bytes.
const MAX_LIST: usize = 4 << 20;

/// The lists that upstreams have returned.
pub(super) struct FetchedLists {
    /// In the order of the configuration.
    pub lists: Vec<(UpstreamId, Vec<Model>)>,
    /// How many upstreams have not returned their list.
    pub missing: usize,
}

/// Fetches the lists of all upstreams for which `is_included` is true, at the same time. An upstream that needs the
/// caller's own credential is left out if `callers` has none.
pub(super) async fn fetch_all(
    snapshot: &Arc<Snapshot>,
    is_included: impl Fn(&Upstream) -> bool,
    callers: &CallersCredential,
) -> FetchedLists {
    let mut fetches = JoinSet::new();
    for (index, upstream) in snapshot.upstreams().iter().enumerate() {
        let has_credential = matches!(upstream.credential, Credential::Own(_)) || callers.is_present();
        if !is_included(upstream) || !has_credential {
            continue;
        }
        let mut request = Request::new(Replay::empty(Framing::None));
        // Every request is sent to one upstream, so its headers are never taken back.
        let _ = set_upstream_headers(request.headers_mut(), upstream, callers);
        let snapshot = snapshot.clone();
        fetches.spawn(async move {
            let upstream = &snapshot.upstreams()[index];
            let fetched = timeout(TIMEOUT, fetch(upstream, request)).await;
            let fetched = fetched.unwrap_or_else(|_| Err(format!("no list of models within {} s", TIMEOUT.as_secs())));
            if let Err(problem) = &fetched {
                tracing::warn!(upstream = &*upstream.name, %problem, "upstream left out of the list of models");
            }
            (index, fetched.ok())
        });
    }
    let mut fetched = fetches.join_all().await;
    // The upstreams have answered in any order.
    fetched.sort_unstable_by_key(|(index, _)| *index);
    let missing = fetched.iter().filter(|(_, list)| list.is_none()).count();
    let lists = fetched
        .into_iter()
        .filter_map(|(index, list)| Some((snapshot.upstreams()[index].id, list?)));
    FetchedLists {
        lists: lists.collect(),
        missing,
    }
}

/// Fetches one upstream's list of the models that callers may name.
async fn fetch(upstream: &Upstream, mut request: Request<Replay>) -> Result<Vec<Model>, String> {
    let uri = format!("{}/models", upstream.prefix);
    *request.uri_mut() = Uri::try_from(uri).map_err(|error| error.to_string())?;
    let terms = SendOptions {
        head: TIMEOUT,
        idle: TIMEOUT,
        is_repeatable: true,
    };
    let sent = upstream.pool.send(&mut request, terms).await;
    let response = sent.map_err(|error| error.to_string())?;
    if response.status() != StatusCode::OK {
        return Err(format!("it answered with status {}", response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_LIST).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    list::parse(&body).map(|listed| list::named_for_callers(upstream, listed))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::proxy::testing;

    const LIST: &str = r#"{"data":[{"id":"m"}]}"#;

    /// Answers one request for a list with the status line `status` and the body [`LIST`]. Returns the request's head.
    async fn answer_once(listener: TcpListener, status: &str) -> String {
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.expect("a complete head"));
        }
        let response = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{LIST}", LIST.len());
        socket.write_all(response.as_bytes()).await.expect("an open connection");
        String::from_utf8(head).expect("a head of text")
    }

    #[tokio::test]
    async fn an_upstream_without_a_list_is_counted_and_one_without_a_credential_is_not_asked() {
        let listener = async || TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (good, failing) = (listener().await, listener().await);
        let address = |listener: &TcpListener| listener.local_addr().expect("an address");
        let upstream = |name: &str, address, key: &str| {
            format!("[[upstream]]\nname = \"{name}\"\nbase_url = \"http://{address}/v1\"\napi_key = \"{key}\"\n")
        };
        let toml = upstream("failing", address(&failing), "env:FAILING")
            + &upstream("good", address(&good), "env:GOOD")
            + &upstream("of-callers", address(&good), "passthrough")
            + &upstream("excluded", address(&good), "env:EXCLUDED");
        let snapshot = testing::configured(&toml).snapshot();
        let no_credential = CallersCredential::default();
        let is_included = |upstream: &Upstream| &*upstream.name != "excluded";
        let (fetched, head, _) = tokio::join!(
            fetch_all(&snapshot, is_included, &no_credential),
            answer_once(good, "200 OK"),
            answer_once(failing, "500 Internal Server Error"),
        );
        assert_eq!(fetched.missing, 1);
        let [(id, models)] = &*fetched.lists else {
            panic!("one list");
        };
        assert_eq!(
            (*id, &*models[0].id, models.len()),
            (UpstreamId::from_name("good"), "m", 1)
        );
        assert!(head.starts_with("GET /v1/models HTTP/1.1\r\n"), "{head}");
        assert!(
            head.contains("\r\nauthorization: Bearer sk-secret-of-GOOD\r\n"),
            "{head}"
        );
    }
}

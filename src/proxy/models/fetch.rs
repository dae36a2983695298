//! Fetches the lists of models from upstreams.

use std::{fmt, sync::Arc, time::Duration};

use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use tokio::{task::JoinSet, time::timeout};

use super::list::{self, Model};
use crate::{
    ids::UpstreamId,
    proxy::request::{
        headers::{CallersCredential, set_upstream_headers},
        hops::HopMarkers,
    },
    state::{Credential, Snapshot, Upstream},
    wire::{DialError, Framing, Replay, SendError, SendOptions, Shortage},
};

/// The maximum time in which an upstream must return its list.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum size of a list in bytes.
const MAX_LIST: usize = 4 << 20;

/// The lists that upstreams have returned.
pub(super) struct FetchedLists {
    /// The lists, in the order of the configuration.
    pub lists: Vec<(UpstreamId, Vec<Model>)>,
    /// The number of upstreams that have not returned their list.
    pub missing: usize,
    /// What this process lacked for a connection to one of these.
    pub shortage: Option<Shortage>,
    /// The number of those that lead back to this gateway.
    pub looped: usize,
}

impl FetchedLists {
    /// Whether there is no list because every upstream leads back to this gateway.
    pub fn are_only_loops(&self) -> bool {
        self.looped > 0 && self.lists.is_empty() && self.missing == self.looped
    }
}

/// Why an upstream's list is missing.
enum FetchError {
    /// The upstream was not asked, because this process lacks something for a connection.
    Shortage(Shortage),
    /// The upstream leads back to this gateway.
    Loop,
    /// The upstream gave no list. The text has the upstream as its subject.
    Failed(String),
}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shortage(shortage) => shortage.fmt(f),
            Self::Loop => f.write_str("it leads back to this gateway"),
            Self::Failed(problem) => f.write_str(problem),
        }
    }
}

impl From<String> for FetchError {
    fn from(problem: String) -> Self {
        Self::Failed(problem)
    }
}

/// Fetches the lists of all upstreams for which `is_included` is true, at the same time. An upstream that needs the
/// caller's own credential is left out if `callers` has none. The requests carry `hops`.
pub(super) async fn fetch_all(
    snapshot: &Arc<Snapshot>,
    is_included: impl Fn(&Upstream) -> bool,
    callers: &CallersCredential,
    hops: &HopMarkers,
) -> FetchedLists {
    let mut fetches = JoinSet::new();
    for index in snapshot.rendezvous.indexes() {
        let upstream = snapshot.upstream(index);
        let has_credential = matches!(upstream.credential, Credential::Own(_)) || callers.is_present();
        if !is_included(upstream) || !has_credential {
            continue;
        }
        let mut request = Request::new(Replay::empty(Framing::None));
        // Every request is sent to one upstream, so its headers are never taken back.
        let _ = set_upstream_headers(request.headers_mut(), upstream, callers);
        hops.add_to(request.headers_mut());
        let snapshot = snapshot.clone();
        fetches.spawn(async move {
            let upstream = snapshot.upstream(index);
            let fetched = timeout(TIMEOUT, fetch(upstream, request)).await;
            let late = |_| Err(format!("no list of models within {} s", TIMEOUT.as_secs()).into());
            let fetched = fetched.unwrap_or_else(late);
            if let Err(problem) = &fetched {
                tracing::warn!(upstream = &*upstream.name, %problem, "the upstream is left out of the list of models");
            }
            (index, fetched)
        });
    }
    let mut fetched = fetches.join_all().await;
    // The upstreams may have answered in any order.
    fetched.sort_unstable_by_key(|(index, _)| *index);
    let missing = fetched.iter().filter(|(_, list)| list.is_err()).count();
    let shortage = fetched.iter().find_map(|(_, list)| match list {
        Err(FetchError::Shortage(shortage)) => Some(*shortage),
        _ => None,
    });
    let looped = fetched.iter().filter(|(_, list)| matches!(list, Err(FetchError::Loop)));
    let looped = looped.count();
    let lists = fetched
        .into_iter()
        .filter_map(|(index, list)| Some((snapshot.upstream(index).id, list.ok()?)));
    FetchedLists {
        lists: lists.collect(),
        missing,
        shortage,
        looped,
    }
}

/// Fetches one upstream's list of the models that callers may name.
async fn fetch(upstream: &Upstream, mut request: Request<Replay>) -> Result<Vec<Model>, FetchError> {
    *request.uri_mut() = upstream
        .list_of_models()
        .ok_or_else(|| "its base URL is too long".to_owned())?;
    let terms = SendOptions {
        head: TIMEOUT,
        idle: TIMEOUT,
        is_repeatable: true,
    };
    let sent = upstream.pool.send(&mut request, terms).await;
    let response = sent.map_err(|error| match error {
        SendError::Dial(DialError::Shortage(shortage)) => FetchError::Shortage(shortage),
        error => FetchError::Failed(error.to_string()),
    })?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::LOOP_DETECTED => return Err(FetchError::Loop),
        status => return Err(format!("it answered with status {status}").into()),
    }
    let body = Limited::new(response.into_body(), MAX_LIST).collect().await;
    let mut body: Vec<u8> = body.map_err(|error| error.to_string())?.to_bytes().into();
    if let Some(masker) = upstream.confidential.masker_of_body(StatusCode::OK) {
        masker.mask_whole(&mut body);
    }
    Ok(list::named_for_callers(upstream, list::parse(&body)?))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::proxy::testing;

    /// Listens as an upstream that answers one request with `status` and `body`. Returns its base URL.
    async fn upstream(status: u16, body: &'static str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a connection");
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.expect("a request"));
            }
            assert!(head.starts_with(b"GET /v1/models HTTP/1.1\r\n"));
            let length = body.len();
            let response = format!("HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\n\r\n{body}");
            socket.write_all(response.as_bytes()).await.expect("the client reads");
        });
        format!("http://{address}/v1")
    }

    #[tokio::test]
    async fn lists_come_in_the_order_of_the_configuration_and_failures_are_missing() {
        let list = |id| format!(r#"{{"data":[{{"id":"{id}"}}]}}"#);
        let first = upstream(200, list("m1").leak()).await;
        let refusing = upstream(500, "{}").await;
        let invalid = upstream(200, "{}").await;
        let last = upstream(200, list("m2").leak()).await;
        let section = |name: &str, url: &str, key: &str| {
            format!("[[upstream]]\nname = \"{name}\"\nbase_url = \"{url}\"\napi_key = \"{key}\"\n")
        };
        let gateway = testing::configured(
            &[
                section("first", &first, "env:K1"),
                section("refusing", &refusing, "env:K2"),
                section("invalid", &invalid, "env:K3"),
                section("excluded", "http://excluded.test/v1", "env:K4"),
                section("callers", "http://callers.test/v1", "passthrough"),
                section("last", &last, "env:K5"),
            ]
            .concat(),
        );
        let is_included = |upstream: &Upstream| &*upstream.name != "excluded";
        let snapshot = gateway.snapshot();
        let hops = HopMarkers::own(&snapshot);
        let fetched = fetch_all(&snapshot, is_included, &CallersCredential::default(), &hops).await;
        let lists: Vec<(UpstreamId, &str)> = fetched
            .lists
            .iter()
            .map(|(upstream, models)| (*upstream, models[0].id.as_str()))
            .collect();
        let id = UpstreamId::from_name;
        assert_eq!(
            (lists, fetched.missing),
            (vec![(id("first"), "m1"), (id("last"), "m2")], 2)
        );
    }
}

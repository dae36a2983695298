//! The models that a caller may use: the lists of all upstreams merged into one, in the shape that OpenAI's SDKs read.
//!
//! The [`Catalogue`] caches the lists of the upstreams that are called with a configured credential, and refreshes them
//! in the background, so that an answer rarely waits for an upstream. An upstream that does not return its list is left
//! out until the next refresh. The list of an upstream that is called with the caller's own credential is fetched for
//! each request, with the credential of that request only.
//!
//! The cached lists also decide which upstreams may have a model: [`state::ModelKnowledge`](crate::state::ModelKnowledge)
//! gets each list that was fetched. No list is fetched because a request for a generation arrives. Only if an upstream answers
//! for the first time that it does not have a model, lists that are not fresh are fetched in the background.

mod fetch;
mod list;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;

use self::{
    fetch::fetch_all,
    list::{Model, ModelLists, json, list_json, merge},
};
use super::{
    request::{admit::Admitted, headers::CallersCredential, hops::HopMarkers, target::RequestTarget},
    text::truncated,
};
use crate::{
    config::ModelGlobs,
    endpoint::Endpoint,
    fault::Fault,
    ids::{ModelKey, UpstreamId},
    state::{Credential, Gateway, Snapshot, Upstream},
    tick::Tick,
    wire::Shortage,
};

/// The time for which cached lists are fresh. Older lists are still served, but are refreshed in the background.
const FRESH_FOR: Duration = Duration::from_secs(300);
/// The time for which cached lists are fresh if the list of an upstream is missing.
const FRESH_FOR_PARTIAL: Duration = Duration::from_secs(15);
/// The time before the upstreams are called again if none of them returned its list.
const FRESH_FOR_NOTHING: Duration = Duration::from_secs(2);

/// A query that the catalogue answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelQuery<'a> {
    /// The list of all models.
    List,
    /// The model with this id, which is percent-encoded as in the path.
    Model(&'a str),
}

/// The query of a request for the catalogue, or `None` if an upstream has to answer the request.
pub(super) fn query<'a>(admitted: &'a Admitted<'_>) -> Option<ModelQuery<'a>> {
    query_of(&admitted.method, &admitted.target, &admitted.caller.group.models)
}

/// The query of a request whose group may use the models that match `allowed`.
///
/// With the parameter `client_version` Codex asks for a list in another format, which only an upstream can give. A group
/// that may use some models only gets the list of the catalogue nevertheless: the upstream's list would show all models.
fn query_of<'a>(method: &Method, target: &'a RequestTarget, allowed: &ModelGlobs) -> Option<ModelQuery<'a>> {
    if target.endpoint != Endpoint::Models || method != Method::GET {
        return None;
    }
    if let Some(id) = target.model_id() {
        return Some(ModelQuery::Model(id));
    }
    let mut parameters = target.query().unwrap_or_default().split('&');
    let is_of_codex = parameters.any(|parameter| parameter.split('=').next() == Some("client_version"));
    (!allowed.is_all() || !is_of_codex).then_some(ModelQuery::List)
}

/// The cached lists of the upstreams that are called with a configured credential.
#[derive(Default)]
pub(super) struct Catalogue {
    cached: Mutex<Option<CachedLists>>,
    /// Held while the lists are fetched, so that requests that arrive meanwhile wait for the same lists.
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct CachedLists {
    /// The lists; `None` if no upstream returned its list. This result is cached too, so that waiting requests do not
    /// call the upstreams again one after another.
    lists: Option<ModelLists>,
    /// What this process lacked for a connection to an upstream whose list is missing.
    shortage: Option<Shortage>,
    /// Whether there is no list because every upstream leads back to this gateway.
    are_only_loops: bool,
    fresh_until: Tick,
    /// The snapshot whose upstreams were called.
    snapshot: Arc<Snapshot>,
}

impl Catalogue {
    /// Answers a query of the caller of `admitted` in JSON.
    ///
    /// # Errors
    /// If no upstream of the caller's group returned its list, or if the model is on none of them.
    pub async fn answer(
        self: &Arc<Self>,
        query: ModelQuery<'_>,
        snapshot: &Arc<Snapshot>,
        admitted: &Admitted<'_>,
        gateway: &Arc<Gateway>,
    ) -> Result<Bytes, Fault> {
        let group = admitted.caller.group;
        let hops = HopMarkers::of_marked(&admitted.headers);
        let shared = self.shared_lists(snapshot, gateway, &hops).await;
        let is_callers = |upstream: &Upstream| matches!(upstream.credential, Credential::Callers);
        let own = fetch_all(snapshot, is_callers, &admitted.callers, &hops).await;
        let lists = shared.iter().flat_map(|lists| lists.iter()).chain(&own.lists);
        let mut lists = lists.filter(|(upstream, _)| group.may_call(*upstream)).peekable();
        if lists.peek().is_none() {
            let cached = self.cached_for(snapshot);
            let shortage = own.shortage.or_else(|| cached.as_ref()?.shortage);
            let are_loops = own.are_only_loops() || cached.is_some_and(|cached| cached.are_only_loops);
            return Err(match shortage {
                Some(shortage) => Fault::Overloaded {
                    shortage: shortage.noun(),
                },
                None if are_loops => Fault::LoopDetected,
                None => Fault::ModelsUnavailable,
            });
        }
        answer_of(query, &merge(lists.flat_map(|(_, list)| list), &group.models))
    }

    /// The lists of the upstreams that are called with a configured credential. They are fetched first if none are
    /// cached, and refreshed in the background if they are old. `hops` are the markers of the request for them.
    async fn shared_lists(
        self: &Arc<Self>,
        snapshot: &Arc<Snapshot>,
        gateway: &Arc<Gateway>,
        hops: &HopMarkers,
    ) -> Option<ModelLists> {
        if let Some(cached) = self.cached_for(snapshot) {
            let is_fresh = gateway.clock.now() < cached.fresh_until;
            if cached.lists.is_some() && !is_fresh {
                self.refresh_in_background(snapshot, gateway);
            }
            if cached.lists.is_some() || is_fresh {
                return cached.lists;
            }
        }
        let _refreshing = self.refreshing.lock().await;
        // The request that held the lock before has just fetched the lists.
        if !self.are_fresh(snapshot, gateway) {
            self.refresh(snapshot, gateway, hops).await;
        }
        self.cached_for(snapshot)?.lists
    }

    /// Fetches the lists in the background if an upstream has refused a model for the first time and they are not fresh.
    #[inline]
    pub fn refresh_if_wished(self: &Arc<Self>, snapshot: &Arc<Snapshot>, gateway: &Arc<Gateway>) {
        if gateway.runtime.models.take_wish_for_lists() && !self.are_fresh(snapshot, gateway) {
            self.refresh_in_background(snapshot, gateway);
        }
    }

    fn are_fresh(&self, snapshot: &Arc<Snapshot>, gateway: &Gateway) -> bool {
        let cached = self.cached_for(snapshot);
        cached.is_some_and(|cached| gateway.clock.now() < cached.fresh_until)
    }

    fn refresh_in_background(self: &Arc<Self>, snapshot: &Arc<Snapshot>, gateway: &Arc<Gateway>) {
        let (catalogue, snapshot, gateway) = (self.clone(), snapshot.clone(), gateway.clone());
        tokio::spawn(async move {
            // Another task may be refreshing the lists already.
            if let Ok(_refreshing) = catalogue.refreshing.try_lock() {
                catalogue
                    .refresh(&snapshot, &gateway, &HopMarkers::own(&snapshot))
                    .await;
            }
        });
    }

    /// The cached lists, if they are those of the upstreams of this snapshot.
    fn cached_for(&self, snapshot: &Arc<Snapshot>) -> Option<CachedLists> {
        self.cached
            .lock()
            .clone()
            .filter(|cached| Arc::ptr_eq(&cached.snapshot, snapshot))
    }

    async fn refresh(&self, snapshot: &Arc<Snapshot>, gateway: &Gateway, hops: &HopMarkers) {
        let is_ours = |upstream: &Upstream| matches!(upstream.credential, Credential::Own(_));
        let fetched = fetch_all(snapshot, is_ours, &CallersCredential::default(), hops).await;
        record_lists(snapshot, gateway, &fetched.lists);
        let are_only_loops = fetched.are_only_loops();
        let previous = self.cached_for(snapshot).and_then(|cached| cached.lists);
        let (lists, fresh_for) = match (fetched.lists.len(), fetched.missing) {
            (0, _) => (previous, FRESH_FOR_NOTHING),
            // The lists that could not be fetched have not changed thereby.
            _ if fetched.shortage.is_some() && previous.is_some() => (previous, FRESH_FOR_NOTHING),
            (_, 0) => (Some(fetched.lists.into()), FRESH_FOR),
            (_, _) => (Some(fetched.lists.into()), FRESH_FOR_PARTIAL),
        };
        *self.cached.lock() = Some(CachedLists {
            lists,
            shortage: fetched.shortage,
            are_only_loops,
            fresh_until: gateway.clock.now().after(fresh_for),
            snapshot: snapshot.clone(),
        });
    }
}

/// Records which models the upstreams have, for the upstreams whose models are not configured.
fn record_lists(snapshot: &Snapshot, gateway: &Gateway, lists: &[(UpstreamId, Vec<Model>)]) {
    let now = gateway.clock.now();
    for (id, list) in lists {
        let upstream = snapshot.upstream_of(*id);
        let upstream = upstream.expect("the upstream of a list is in the snapshot that the list was fetched for");
        if upstream.models.is_all() {
            let models = list.iter().map(|model| ModelKey::from_name(&model.id));
            gateway.runtime.models.record_list(upstream.account, models, now);
        }
    }
}

/// The answer to a query about these models.
fn answer_of(query: ModelQuery<'_>, models: &[&Model]) -> Result<Bytes, Fault> {
    match query {
        ModelQuery::List => Ok(list_json(models)),
        ModelQuery::Model(id) => {
            let id = percent_decode_str(id).decode_utf8_lossy();
            let model = models.iter().find(|model| model.id == id);
            model.map(json).ok_or_else(|| Fault::ModelNotServed {
                model: truncated(&id),
                served: models.iter().map(|model| model.id.clone()).collect(),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{list::tests::models, *};
    use crate::proxy::request::target;

    #[test]
    fn the_catalogue_answers_lists_and_single_models() {
        let (list, model) = (Some(ModelQuery::List), |id| Some(ModelQuery::Model(id)));
        for (method, uri, of_all_models, of_some_models) in [
            (Method::GET, "/v1/models", list, list),
            (Method::GET, "/models?limit=5", list, list),
            (Method::GET, "/v1/models?client_version=1", None, list),
            (Method::GET, "/v1/models?a=b&client_version", None, list),
            (Method::GET, "/v1/models?x=client_version", list, list),
            (Method::GET, "/v1/models/org%2Fm", model("org%2Fm"), model("org%2Fm")),
            (Method::GET, "/v1/models/m?client_version=1", model("m"), model("m")),
            (Method::POST, "/v1/models", None, None),
            (Method::DELETE, "/v1/models/m", None, None),
            (Method::GET, "/v1/files", None, None),
        ] {
            let target = target::read(&method, &uri.parse().expect("a URI")).expect(uri);
            assert_eq!(
                query_of(&method, &target, &ModelGlobs::default()),
                of_all_models,
                "{method} {uri}"
            );
            assert_eq!(
                query_of(&method, &target, &ModelGlobs::new(["gpt-5*"])),
                of_some_models,
                "{method} {uri}"
            );
        }
    }

    #[test]
    fn a_model_is_found_by_its_decoded_id() {
        let models = models(&["m", "org/name"]);
        let models: Vec<&Model> = models.iter().collect();
        let answer = answer_of(ModelQuery::Model("org%2Fname"), &models).expect("a known model");
        assert_eq!(&*answer, br#"{"id":"org/name","object":"model"}"#);
        let unknown = answer_of(ModelQuery::Model("gpt%20x"), &models);
        let expected = Fault::ModelNotServed {
            model: "gpt x".to_owned(),
            served: vec!["m".to_owned(), "org/name".to_owned()],
        };
        assert_eq!(unknown, Err(expected));
    }

    #[test]
    fn the_list_has_the_shape_that_sdks_read() {
        let models = models(&["m"]);
        let answer = answer_of(ModelQuery::List, &models.iter().collect::<Vec<_>>()).expect("a list");
        assert_eq!(&*answer, br#"{"object":"list","data":[{"id":"m","object":"model"}]}"#);
    }
}

//! Which models there are: the upstreams' lists merged into one, in the shape that OpenAI's SDKs read.
//!
//! The merged list is kept and refreshed in the background, so that asking costs nothing; an upstream that does not
//! answer is left out until the next refresh. An upstream that is called with the caller's own credential is asked
//! each time, and only on that caller's behalf.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    request::admit::Admitted,
    request::headers::{self, CallersCredential},
};
use crate::{
    endpoint::Endpoint,
    fault::Fault,
    ids::UpstreamId,
    state::{Credential, Gateway, Group, Snapshot, Upstream},
    tick::Tick,
    wire::{Framing, Replay, Terms},
};

/// A list this old is still served, but refreshed behind the answer.
const FRESH_FOR: Duration = Duration::from_secs(300);
/// The same where an upstream is missing from the list.
const FRESH_FOR_PARTIAL: Duration = Duration::from_secs(15);
/// How long nobody is asked again after nobody answered.
const FRESH_FOR_NOTHING: Duration = Duration::from_secs(2);
/// How long an upstream has for its list.
const PATIENCE: Duration = Duration::from_secs(5);
/// A list may be this long, in bytes.
const LONGEST: usize = 4 << 20;

/// What is asked of the catalogue.
#[derive(Clone, Copy)]
pub(super) enum Question<'a> {
    /// Every model.
    List,
    /// The model of this id, as it stands in the path.
    Model(&'a str),
}

/// Whether the catalogue answers this request. With `client_version` Codex asks for a list of another kind, which only
/// an upstream can give.
pub(super) fn question<'a>(admitted: &'a Admitted<'_>) -> Option<Question<'a>> {
    let target = &admitted.target;
    // What such a group may not use must not be listed either.
    let is_filtered = !admitted.caller.group.models.is_all();
    if target.endpoint != Endpoint::Models || admitted.method != Method::GET {
        return None;
    }
    match target.model_id() {
        Some(id) => Some(Question::Model(id)),
        None => {
            let mut parameters = target.query().unwrap_or_default().split('&');
            let for_codex = parameters.any(|parameter| parameter.split('=').next() == Some("client_version"));
            (is_filtered || !for_codex).then_some(Question::List)
        }
    }
}

/// One model, as its upstream describes it.
#[derive(Clone, Serialize, Deserialize)]
struct Model {
    id: String,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct UpstreamList {
    data: Vec<Model>,
}

#[derive(Serialize)]
struct MergedList<'a> {
    object: &'static str,
    data: &'a [&'a Model],
}

/// The lists of upstreams, in the order of the file.
type Lists = Arc<[(UpstreamId, Vec<Model>)]>;

/// The lists of the upstreams that are called with a credential of ours.
#[derive(Default)]
pub(super) struct Catalogue {
    kept: Mutex<Option<Kept>>,
    /// Held while upstreams are asked: whoever comes meanwhile waits for the same answer.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Kept {
    /// `None` where nobody answered: that is kept too, so that callers do not queue up to find out one after another.
    lists: Option<Lists>,
    fresh_until: Tick,
    /// The configuration that it was made from.
    snapshot: Arc<Snapshot>,
}

impl Catalogue {
    /// Answers `question` for the caller of `admitted`.
    pub async fn answer(
        self: &Arc<Self>,
        question: Question<'_>,
        snapshot: &Arc<Snapshot>,
        admitted: &Admitted<'_>,
        gateway: &Arc<Gateway>,
    ) -> Result<Bytes, Fault> {
        let group = admitted.caller.group;
        let shared = self.shared(snapshot, gateway).await;
        let own = ask_all(
            snapshot,
            |upstream| matches!(upstream.credential, Credential::Callers),
            &admitted.callers,
        )
        .await;
        let lists = shared.iter().flat_map(|lists| lists.iter()).chain(&own.lists);
        let mut lists = lists.filter(|(upstream, _)| group.may_call(*upstream)).peekable();
        if lists.peek().is_none() {
            return Err(Fault::ModelsUnavailable);
        }
        let models = merge(lists.flat_map(|(_, list)| list), group);
        match question {
            Question::List => Ok(json(&MergedList {
                object: "list",
                data: &models,
            })),
            Question::Model(id) => {
                let id = percent_decode_str(id).decode_utf8_lossy();
                let model = models.iter().find(|model| model.id == id);
                model.map(json).ok_or_else(|| Fault::ModelNotServed {
                    model: super::text::bounded(&id),
                    served: models.iter().map(|model| model.id.clone()).collect(),
                })
            }
        }
    }

    /// The kept list, made first where there is none, refreshed behind the answer where it is old.
    async fn shared(self: &Arc<Self>, snapshot: &Arc<Snapshot>, gateway: &Arc<Gateway>) -> Option<Lists> {
        if let Some(kept) = self.kept_for(snapshot) {
            let is_fresh = gateway.clock.now() < kept.fresh_until;
            if kept.lists.is_some() && !is_fresh {
                self.refresh_behind(snapshot, gateway);
            }
            if kept.lists.is_some() || is_fresh {
                return kept.lists;
            }
        }
        let _asking = self.asking.lock().await;
        // Whoever held the lock before has just asked.
        let is_fresh = |kept: Kept| gateway.clock.now() < kept.fresh_until;
        if !self.kept_for(snapshot).is_some_and(is_fresh) {
            self.refresh(snapshot, gateway).await;
        }
        self.kept_for(snapshot)?.lists
    }

    fn refresh_behind(self: &Arc<Self>, snapshot: &Arc<Snapshot>, gateway: &Arc<Gateway>) {
        let (catalogue, snapshot, gateway) = (self.clone(), snapshot.clone(), gateway.clone());
        tokio::spawn(async move {
            // Somebody refreshes it already.
            let Ok(_asking) = catalogue.asking.try_lock() else {
                return;
            };
            catalogue.refresh(&snapshot, &gateway).await;
        });
    }

    fn kept_for(&self, snapshot: &Arc<Snapshot>) -> Option<Kept> {
        self.kept
            .lock()
            .clone()
            .filter(|kept| Arc::ptr_eq(&kept.snapshot, snapshot))
    }

    async fn refresh(&self, snapshot: &Arc<Snapshot>, gateway: &Gateway) {
        let ours = |upstream: &Upstream| matches!(upstream.credential, Credential::Own(_));
        let asked = ask_all(snapshot, ours, &CallersCredential::default()).await;
        let known = self.kept_for(snapshot).and_then(|kept| kept.lists);
        let (lists, fresh_for) = match (asked.lists.len(), asked.missing) {
            (0, _) => (known, FRESH_FOR_NOTHING),
            (_, 0) => (Some(asked.lists.into()), FRESH_FOR),
            (_, _) => (Some(asked.lists.into()), FRESH_FOR_PARTIAL),
        };
        *self.kept.lock() = Some(Kept {
            lists,
            fresh_until: gateway.clock.now().after(fresh_for),
            snapshot: snapshot.clone(),
        });
    }
}

/// What upstreams answered.
struct Asked {
    lists: Vec<(UpstreamId, Vec<Model>)>,
    missing: usize,
}

/// Asks every upstream that `include` names, all at once.
async fn ask_all(snapshot: &Arc<Snapshot>, include: impl Fn(&Upstream) -> bool, callers: &CallersCredential) -> Asked {
    let mut questions = tokio::task::JoinSet::new();
    let mut lists: Vec<Option<Vec<Model>>> = Vec::new();
    let mut missing = 0;
    for (index, upstream) in snapshot.upstreams().iter().enumerate() {
        lists.push(None);
        let is_callable = matches!(upstream.credential, Credential::Own(_)) || callers.is_present();
        if !include(upstream) || !is_callable {
            continue;
        }
        let mut request = Request::new(Replay::empty(Framing::None));
        let _ = headers::address(request.headers_mut(), upstream, callers);
        let snapshot = snapshot.clone();
        questions.spawn(async move {
            let Some(upstream) = snapshot.upstream(index) else {
                return (index, None);
            };
            let list = tokio::time::timeout(PATIENCE, ask(upstream, request)).await;
            let list = list.unwrap_or_else(|_| Err(format!("no list within {} s", PATIENCE.as_secs())));
            if let Err(problem) = &list {
                tracing::warn!(upstream = &*upstream.name, %problem, "left out of the list of models");
            }
            (index, list.ok())
        });
    }
    while let Some(answer) = questions.join_next().await {
        let Ok((index, list)) = answer else { continue };
        missing += usize::from(list.is_none());
        if let Some(slot) = lists.get_mut(index) {
            *slot = list;
        }
    }
    // In the order of the file, whoever answered first.
    let named = snapshot.upstreams().iter().map(|upstream| upstream.id).zip(lists);
    Asked {
        lists: named.filter_map(|(id, list)| Some((id, list?))).collect(),
        missing,
    }
}

/// One upstream's list, less what it is configured not to serve.
async fn ask(upstream: &Upstream, mut request: Request<Replay>) -> Result<Vec<Model>, String> {
    let uri = format!("{}/models", upstream.prefix);
    *request.uri_mut() = Uri::try_from(uri).map_err(|error| error.to_string())?;
    let terms = Terms {
        head: PATIENCE,
        idle: PATIENCE,
        is_repeatable: true,
    };
    let sent = upstream.pool.send(&mut request, terms).await;
    let response = sent.map_err(|error| error.to_string())?;
    if response.status() != StatusCode::OK {
        return Err(format!("it answered {}", response.status()));
    }
    let body = Limited::new(response.into_body(), LONGEST).collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    let list: UpstreamList = serde_json::from_slice(&body).map_err(|error| unreadable(&error))?;
    Ok(as_called_here(upstream, list.data))
}

/// Where a list goes wrong; the error's own words quote what stands there.
fn unreadable(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let what = if error.is_data() {
        "is not OpenAI's"
    } else {
        "is no JSON"
    };
    format!("its list {what} (line {line}, column {column})")
}

/// The models that callers may name, by the names that they use here.
fn as_called_here(upstream: &Upstream, listed: Vec<Model>) -> Vec<Model> {
    let renamed = upstream.renames.iter().map(|(ours, theirs)| {
        let described = listed.iter().find(|model| *json(&model.id) == **theirs);
        Model {
            id: ours.to_string(),
            rest: described.map_or_else(undescribed, |model| model.rest.clone()),
        }
    });
    let mut models: Vec<Model> = renamed.collect();
    models.sort_by(|one, other| one.id.cmp(&other.id));
    let is_plain = |model: &Model| upstream.models.matches(&model.id) && !upstream.renames.contains_key(&*model.id);
    models.extend(listed.into_iter().filter(is_plain));
    models
}

/// What SDKs expect of a model that its upstream does not list, as Azure does not list deployments.
fn undescribed() -> Map<String, Value> {
    let fields = [
        ("object", Value::from("model")),
        ("created", Value::from(0)),
        ("owned_by", Value::from("upstream")),
    ];
    fields
        .map(|(name, value)| (name.to_owned(), value))
        .into_iter()
        .collect()
}

/// Each model that `group` may use once: the first description stays.
fn merge<'a>(models: impl Iterator<Item = &'a Model>, group: &Group) -> Vec<&'a Model> {
    let mut seen = HashSet::new();
    models
        .filter(|model| group.models.matches(&model.id) && seen.insert(model.id.as_str()))
        .collect()
}

fn json<T: Serialize>(value: &T) -> Bytes {
    // Serializing what was deserialized from JSON cannot fail.
    serde_json::to_vec(value).unwrap_or_default().into()
}

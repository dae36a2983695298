//! What is known about the models of each account, so that a request goes to an account that has its model.
//!
//! There are two sources. The **lists** of models that accounts return name the models that an account has. A **refusal** is
//! the answer of an account that it does not have the model. A refusal is worth more than a list, because some accounts list
//! models that they do not serve. An account whose list is not known may have every model.
//!
//! Knowledge never makes a request fail: it only chooses between accounts. If all of them have refused a model, one of them is
//! asked again.
//!
//! Requests read an immutable view. While nothing is known, they read one flag only.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;

use crate::{
    ids::{ModelKey, UpstreamId},
    tick::Tick,
};

#[cfg(test)]
mod tests;

/// The time for which a list counts. Lists are fetched again when clients ask for models, which may be rare.
const LIST_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// The time for which a refusal counts.
const REFUSAL_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// The maximum number of refusals. Those that end first are dropped.
const MAX_REFUSALS: usize = 1_024;
/// The maximum number of models in a list. A longer list is not used.
const MAX_LISTED: usize = 16_384;

/// What is known about the models of each account.
#[derive(Default)]
pub struct ModelKnowledge {
    /// Whether `view` contains anything.
    has_any: AtomicBool,
    view: ArcSwap<View>,
    /// The accounts and their lists. It is locked while `view` is replaced.
    accounts: Mutex<HashMap<UpstreamId, KnownAccount>>,
    /// Whether an account has refused a model for the first time, so that the lists should be fetched.
    wants_lists: AtomicBool,
}

/// The account that an upstream is configured to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfiguredAccount {
    /// The upstream.
    pub upstream: UpstreamId,
    /// A hash of the settings on which the models of the account depend: the URL, the credential, headers and models.
    pub settings: u64,
}

/// What is known about an account.
struct KnownAccount {
    settings: u64,
    list: Option<KnownList>,
}

/// The list of an account.
struct KnownList {
    /// The models, each once.
    models: Box<[ModelKey]>,
    until: Tick,
}

/// What requests read.
#[derive(Clone, Default)]
struct View {
    lists: Arc<Lists>,
    /// The refusals, ordered by model and upstream.
    refusals: Arc<[Refusal]>,
}

/// The lists of all accounts, by model.
#[derive(Default)]
struct Lists {
    /// The upstreams whose lists are known, in ascending order.
    known: Box<[UpstreamId]>,
    /// The upstreams whose lists name a model, in ascending order.
    by_model: HashMap<ModelKey, Vec<UpstreamId>>,
    /// The time at which the last of the lists ends; `None` if there is no list.
    until: Option<Tick>,
}

/// The answer of an account that it does not have a model.
#[derive(Clone, Copy)]
struct Refusal {
    model: ModelKey,
    upstream: UpstreamId,
    until: Tick,
}

/// What the configuration or the list of an upstream says about a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ModelStanding {
    /// The upstream has the model.
    Named,
    /// The upstream does not have the model.
    NotNamed,
    /// The list of the upstream is not known.
    Unknown,
}

/// What is known about one model.
pub(super) struct KnownModel {
    view: Guard<Arc<View>>,
    model: ModelKey,
    now: Tick,
}

impl ModelKnowledge {
    /// What is known about `model`; `None` if nothing is known about any model.
    #[inline]
    pub(super) fn about(&self, model: ModelKey, now: Tick) -> Option<KnownModel> {
        self.has_any.load(Relaxed).then(|| KnownModel {
            view: self.view.load(),
            model,
            now,
        })
    }

    /// Records the list that `account` has returned. The refusals of the models in it are forgotten. An empty list says
    /// nothing.
    pub fn record_list(&self, account: ConfiguredAccount, models: impl IntoIterator<Item = ModelKey>, now: Tick) {
        let mut models: Vec<ModelKey> = models.into_iter().collect();
        models.sort_unstable();
        models.dedup();
        let mut accounts = self.accounts.lock();
        let Some(known) = known_account(&mut accounts, account) else {
            return;
        };
        let is_outdated =
            |refusal: &Refusal| refusal.upstream == account.upstream && models.binary_search(&refusal.model).is_ok();
        let refusals = self.refusals_without(is_outdated);
        let is_usable = !models.is_empty() && models.len() <= MAX_LISTED;
        known.list = is_usable.then(|| KnownList {
            models: models.into(),
            until: now.after(LIST_LIFETIME),
        });
        let lists = Arc::new(Lists::new(&accounts, now));
        self.publish(View { lists, refusals });
    }

    /// Records that `account` has answered that it does not have `model`.
    pub fn record_refusal(&self, account: ConfiguredAccount, model: ModelKey, now: Tick) {
        let mut accounts = self.accounts.lock();
        if known_account(&mut accounts, account).is_none() {
            return;
        }
        let is_same = |refusal: &Refusal| (refusal.model, refusal.upstream) == (model, account.upstream);
        let current = self.refusals_without(|refusal| refusal.until <= now);
        if !current.iter().any(is_same) {
            self.wants_lists.store(true, Relaxed);
        }
        let mut refusals: Vec<Refusal> = current.iter().filter(|refusal| !is_same(refusal)).copied().collect();
        if refusals.len() >= MAX_REFUSALS {
            let ends_first = (0..refusals.len()).min_by_key(|at| refusals[*at].until);
            refusals.swap_remove(ends_first.expect("the table is full"));
        }
        refusals.push(Refusal {
            model,
            upstream: account.upstream,
            until: now.after(REFUSAL_LIFETIME),
        });
        refusals.sort_unstable_by_key(|refusal| (refusal.model, refusal.upstream));
        let lists = self.view.load().lists.clone();
        let refusals = refusals.into();
        self.publish(View { lists, refusals });
    }

    /// Forgets the refusals of `upstream`, because the operator has enabled it.
    pub fn forget_refusals(&self, upstream: UpstreamId) {
        let _accounts = self.accounts.lock();
        let refusals = self.refusals_without(|refusal| refusal.upstream == upstream);
        let lists = self.view.load().lists.clone();
        self.publish(View { lists, refusals });
    }

    /// Keeps what is known about these accounts, which a new configuration calls, and forgets everything else.
    pub(super) fn retain(&self, configured: impl IntoIterator<Item = ConfiguredAccount>, now: Tick) {
        let mut accounts = self.accounts.lock();
        let mut before = std::mem::take(&mut *accounts);
        let mut kept = Vec::new();
        for ConfiguredAccount { upstream, settings } in configured {
            let same = before.remove(&upstream).filter(|known| known.settings == settings);
            if same.is_some() {
                kept.push(upstream);
            }
            accounts.insert(upstream, same.unwrap_or(KnownAccount { settings, list: None }));
        }
        let refusals = self.refusals_without(|refusal| !kept.contains(&refusal.upstream));
        let lists = Arc::new(Lists::new(&accounts, now));
        self.publish(View { lists, refusals });
    }

    /// Whether the lists should be fetched, because an account has refused a model for the first time since the last call.
    #[inline]
    pub fn take_wish_for_lists(&self) -> bool {
        self.wants_lists.load(Relaxed) && self.wants_lists.swap(false, Relaxed)
    }

    fn refusals_without(&self, is_dropped: impl Fn(&Refusal) -> bool) -> Arc<[Refusal]> {
        let view = self.view.load();
        let kept = view.refusals.iter().filter(|refusal| !is_dropped(refusal));
        match view.refusals.iter().any(&is_dropped) {
            true => kept.copied().collect(),
            false => view.refusals.clone(),
        }
    }

    /// Replaces the view. The caller holds the lock of `accounts`.
    fn publish(&self, view: View) {
        let has_any = !view.lists.known.is_empty() || !view.refusals.is_empty();
        self.view.store(Arc::new(view));
        self.has_any.store(has_any, Relaxed);
    }
}

/// The known account of an upstream, if its upstream is still configured to call this account.
fn known_account(
    accounts: &mut HashMap<UpstreamId, KnownAccount>,
    account: ConfiguredAccount,
) -> Option<&mut KnownAccount> {
    let known = accounts.get_mut(&account.upstream);
    known.filter(|known| known.settings == account.settings)
}

impl Lists {
    fn new(accounts: &HashMap<UpstreamId, KnownAccount>, now: Tick) -> Self {
        let listed = accounts.iter().filter_map(|(upstream, account)| {
            let list = account.list.as_ref().filter(|list| now < list.until)?;
            Some((*upstream, list))
        });
        let mut listed: Vec<(UpstreamId, &KnownList)> = listed.collect();
        listed.sort_unstable_by_key(|(upstream, _)| *upstream);
        let mut by_model = HashMap::<ModelKey, Vec<UpstreamId>>::new();
        for (upstream, list) in &listed {
            for model in &list.models {
                by_model.entry(*model).or_default().push(*upstream);
            }
        }
        Self {
            known: listed.iter().map(|(upstream, _)| *upstream).collect(),
            by_model,
            until: listed.iter().map(|(_, list)| list.until).max(),
        }
    }
}

impl KnownModel {
    /// What the list of `upstream` says about the model.
    pub fn listed(&self, upstream: UpstreamId) -> ModelStanding {
        let lists = &self.view.lists;
        let is_current = lists.until.is_some_and(|until| self.now < until);
        if !is_current || lists.known.binary_search(&upstream).is_err() {
            return ModelStanding::Unknown;
        }
        let naming = lists.by_model.get(&self.model);
        match naming.is_some_and(|naming| naming.binary_search(&upstream).is_ok()) {
            true => ModelStanding::Named,
            false => ModelStanding::NotNamed,
        }
    }

    /// Whether `upstream` has answered that it does not have the model.
    pub fn has_refused(&self, upstream: UpstreamId) -> bool {
        let refusals = &self.view.refusals;
        let found = refusals.binary_search_by_key(&(self.model, upstream), |refusal| (refusal.model, refusal.upstream));
        found.is_ok_and(|at| self.now < refusals[at].until)
    }

    /// Whether what is known says the same about every upstream that has no configured models: no account has refused the
    /// model, and all lists name it.
    pub fn is_everywhere(&self) -> bool {
        let View { lists, refusals } = &**self.view;
        let at = refusals.partition_point(|refusal| refusal.model < self.model);
        let is_refused = refusals.get(at).is_some_and(|refusal| refusal.model == self.model);
        let naming = lists.by_model.get(&self.model).map_or(0, Vec::len);
        !is_refused && naming == lists.known.len()
    }
}

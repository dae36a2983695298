//! What happens to a turn if an upstream answers that it does not have the model.

use std::mem;

use super::Turn;
use crate::{policy::MemberIndex, state::Eligibility};

impl Turn<'_> {
    /// Records that the upstream at `index` has answered that it does not have the model, for this turn and for later ones.
    /// The turn continues with the upstreams that may have the model: if those that are known to have it have refused it, also
    /// with the others.
    #[cold]
    pub fn mark_without_model(&mut self, index: MemberIndex) {
        let Some(model) = self.request.model else {
            return self.mark_failed(index);
        };
        let (gateway, upstream) = (self.gateway, self.upstream(index));
        let now = gateway.clock.now();
        gateway.runtime.models.record_refusal(upstream.account, model, now);
        if self.pin == Some(upstream.id) {
            // The session may have a cache there for another model.
            self.pin_update.takeover = None;
        }
        let eligibility = mem::replace(&mut self.eligibility, Eligibility::All);
        let refusing = self.setbacks.get_or_insert_default().add_refusing_model(index);
        let known = (&gateway.runtime, model, now);
        self.eligibility = self.snapshot.without(eligibility, refusing, known);
    }

    /// Whether an upstream that has not refused the model is known to have it.
    pub fn is_model_known(&self) -> bool {
        self.eligibility.is_model_known()
    }
}

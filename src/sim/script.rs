//! Rules that a test sets while the account runs: to which requests an [`Act`] happens, and how often.
//!
//! A rule is looked up when a request's head has arrived, so that it can also say how the body is read; one with a
//! condition on the body is looked up when that has been read. The first rule that matches is used and the others are not.

use std::time::Duration;

use http::Method;
use parking_lot::Mutex;
use serde_json::Value;

use super::act::{Act, Close, ScriptedAnswer};
use super::head::ReceivedHead;

type OnHead = Box<dyn Fn(&ReceivedHead) -> bool + Send>;
type OnBody = Box<dyn Fn(&Value) -> bool + Send>;

/// An [`Act`] and the requests that it happens to: all of them for ever, unless narrowed down.
pub struct Rule {
    act: Act,
    left: Option<u64>,
    path: Option<String>,
    head: Option<OnHead>,
    body: Option<OnBody>,
}

impl Rule {
    /// Does `act` to every request.
    pub fn new(act: Act) -> Self {
        Self {
            act,
            left: None,
            path: None,
            head: None,
            body: None,
        }
    }

    /// Only to the next `n` that match.
    pub fn times(mut self, n: u64) -> Self {
        self.left = Some(n);
        self
    }

    /// Only where the path, without its query, is this one.
    pub fn path(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// Only where the head meets this condition.
    pub fn head(mut self, matches: impl Fn(&ReceivedHead) -> bool + Send + 'static) -> Self {
        self.head = Some(Box::new(matches));
        self
    }

    /// Only where the body is JSON that meets this condition. [`Act::read`] has no effect then: the body has been read.
    pub fn body(mut self, matches: impl Fn(&Value) -> bool + Send + 'static) -> Self {
        self.body = Some(Box::new(matches));
        self
    }

    fn matches(&self, head: &ReceivedHead) -> bool {
        self.path.as_deref().is_none_or(|path| path == head.path()) && self.head.as_ref().is_none_or(|on| on(head))
    }
}

/// What happens to a new connection before its first byte is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accept {
    /// It is served at once.
    #[default]
    Serve,
    /// It is served (over TLS: shaken hands with) after this time.
    Delay(Duration),
    /// It is closed.
    Close(Close),
}

/// The account's rules. Shared, and changed while it runs.
#[derive(Default)]
pub struct Script {
    rules: Mutex<Vec<Rule>>,
    accept: Mutex<Accept>,
}

impl Script {
    /// Adds a rule behind the others.
    pub fn add(&self, rule: Rule) {
        self.rules.lock().push(rule);
    }

    /// Does `act` to every request from now on.
    pub fn always(&self, act: Act) {
        self.add(Rule::new(act));
    }

    /// Does `act` to the next request with that path.
    pub fn once(&self, path: &str, act: Act) {
        self.add(Rule::new(act).path(path).times(1));
    }

    /// Answers the next `POST /v1/responses` with these output items.
    pub fn reply_items(&self, items: Vec<Value>) {
        let act = Act::answer(ScriptedAnswer::Items(items));
        self.add(
            Rule::new(act)
                .path("/v1/responses")
                .head(|head| head.method == Method::POST)
                .times(1),
        );
    }

    /// Treats new connections this way from now on.
    pub fn accept(&self, accept: Accept) {
        *self.accept.lock() = accept;
    }

    /// Drops all rules and serves all connections.
    pub fn clear(&self) {
        self.rules.lock().clear();
        self.accept(Accept::Serve);
    }

    pub(super) fn on_accept(&self) -> Accept {
        *self.accept.lock()
    }

    /// The act for a request whose head is there.
    pub(super) fn on_head(&self, head: &ReceivedHead) -> Option<Act> {
        self.take(|rule| rule.body.is_none() && rule.matches(head))
    }

    /// The act for a request whose body is there.
    pub(super) fn on_body(&self, head: &ReceivedHead, body: &Value) -> Option<Act> {
        self.take(|rule| rule.body.as_ref().is_some_and(|on| rule.matches(head) && on(body)))
    }

    fn take(&self, matches: impl Fn(&Rule) -> bool) -> Option<Act> {
        let mut rules = self.rules.lock();
        let at = rules.iter().position(matches)?;
        let rule = rules.get_mut(at)?;
        let act = rule.act.clone();
        match &mut rule.left {
            Some(left) if *left <= 1 => drop(rules.remove(at)),
            Some(left) => *left -= 1,
            None => {}
        }
        Some(act)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use serde_json::json;

    use super::*;

    fn head(target: &str) -> ReceivedHead {
        ReceivedHead {
            method: Method::POST,
            target: target.to_owned(),
            headers: HeaderMap::new(),
            connection: 1,
            nth: 1,
        }
    }

    #[test]
    fn rules_run_out_and_give_way_to_the_next() {
        let script = Script::default();
        script.add(Rule::new(Act::delay(Duration::from_secs(1))).times(2).path("/a"));
        script.add(Rule::new(Act::delay(Duration::from_secs(2))).head(|head| head.nth == 1));
        let delay = |target: &str| script.on_head(&head(target)).map(|act| act.delay.as_secs());
        assert_eq!(delay("/a?x=1"), Some(1));
        assert_eq!(delay("/b"), Some(2), "a rule that does not match is not used up");
        assert_eq!(delay("/a"), Some(1));
        assert_eq!(delay("/a"), Some(2));
        script.clear();
        assert_eq!(delay("/a"), None);
    }

    #[test]
    fn conditions_on_the_body_wait_for_it() {
        let script = Script::default();
        script.add(Rule::new(Act::default()).body(|body| body["stream"] == true).times(1));
        assert!(script.on_head(&head("/a")).is_none());
        assert!(script.on_body(&head("/a"), &json!({"stream": false})).is_none());
        assert!(script.on_body(&head("/a"), &json!({"stream": true})).is_some());
        assert!(script.on_body(&head("/a"), &json!({"stream": true})).is_none());
    }
}

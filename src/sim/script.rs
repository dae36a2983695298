//! Rules that a test sets while the account runs. A rule is an [`Act`], the requests that it applies to, and how often
//! it applies.
//!
//! A rule is looked up when the head of a request has arrived, so that it can also determine how the body is read. A
//! rule with a condition on the body is looked up when the body has been read. The first rule that matches is used,
//! and the others are not.

use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;

use super::act::{Act, Close};
use super::head::RecordedHead;

type OnHead = Box<dyn Fn(&RecordedHead) -> bool + Send>;
type OnBody = Box<dyn Fn(&Value) -> bool + Send>;

/// An [`Act`] and the requests that it applies to. Without conditions and limits it applies to all requests.
pub struct Rule {
    act: Act,
    /// The number of requests that the rule still applies to; `None` if there is no limit.
    left: Option<u64>,
    /// The path of the requests; `None` for every path.
    path: Option<String>,
    head: Option<OnHead>,
    body: Option<OnBody>,
}

impl Rule {
    /// Applies `act` to every request.
    pub fn new(act: Act) -> Self {
        Self {
            act,
            left: None,
            path: None,
            head: None,
            body: None,
        }
    }

    /// Limits the rule to the next `n` requests that match.
    pub fn times(mut self, n: u64) -> Self {
        self.left = Some(n);
        self
    }

    /// Limits the rule to requests with this path, without the query.
    pub fn path(mut self, path: &str) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// Limits the rule to requests with a head that meets this condition.
    pub fn head(mut self, matches: impl Fn(&RecordedHead) -> bool + Send + 'static) -> Self {
        self.head = Some(Box::new(matches));
        self
    }

    /// Limits the rule to requests with a JSON body that meets this condition. [`Act::read`] has no effect in this
    /// case, because the body has been read already.
    pub fn body(mut self, matches: impl Fn(&Value) -> bool + Send + 'static) -> Self {
        self.body = Some(Box::new(matches));
        self
    }

    fn matches(&self, head: &RecordedHead) -> bool {
        self.path.as_deref().is_none_or(|path| path == head.path()) && self.head.as_ref().is_none_or(|on| on(head))
    }
}

/// The treatment of a new connection before its first byte is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Accept {
    /// The connection is served at once.
    #[default]
    Serve,
    /// The connection is served after this time. Over TLS, the handshake begins after this time.
    Delay(Duration),
    /// The connection is closed.
    Close(Close),
}

/// The rules of an account. They are shared, and can be changed while the account runs.
#[derive(Default)]
pub struct Script {
    rules: Mutex<Vec<Rule>>,
    accept: Mutex<Accept>,
}

impl Script {
    /// Adds a rule after the others.
    pub fn add(&self, rule: Rule) {
        self.rules.lock().push(rule);
    }

    /// Applies `act` to every request from now on.
    pub fn always(&self, act: Act) {
        self.add(Rule::new(act));
    }

    /// Applies `act` to the next request with this path.
    pub fn once(&self, path: &str, act: Act) {
        self.add(Rule::new(act).path(path).times(1));
    }

    /// Treats new connections in this way from now on.
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

    /// Returns the act for a request after its head has arrived.
    pub(super) fn on_head(&self, head: &RecordedHead) -> Option<Act> {
        self.take(|rule| rule.body.is_none() && rule.matches(head))
    }

    /// Returns the act for a request after its body has been read.
    pub(super) fn on_body(&self, head: &RecordedHead, body: &Value) -> Option<Act> {
        self.take(|rule| rule.body.as_ref().is_some_and(|on| rule.matches(head) && on(body)))
    }

    fn take(&self, matches: impl Fn(&Rule) -> bool) -> Option<Act> {
        let mut rules = self.rules.lock();
        let at = rules.iter().position(matches)?;
        let rule = rules.get_mut(at).expect("the search found this position");
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
    use http::{HeaderMap, Method};
    use serde_json::json;

    use super::*;

    fn head(target: &str) -> RecordedHead {
        RecordedHead {
            method: Method::POST,
            target: target.to_owned(),
            headers: HeaderMap::new(),
            connection: 1,
            nth: 1,
        }
    }

    #[test]
    fn a_rule_is_used_as_often_as_it_says_and_then_the_next_one() {
        let script = Script::default();
        script.add(Rule::new(Act::delay(Duration::from_secs(1))).times(2).path("/a"));
        script.add(Rule::new(Act::delay(Duration::from_secs(2))).head(|head| head.nth == 1));
        let delay = |target: &str| script.on_head(&head(target)).map(|act| act.delay.as_secs());
        assert_eq!(delay("/a?x=1"), Some(1));
        assert_eq!(delay("/b"), Some(2), "a rule that does not match is not counted");
        assert_eq!(delay("/a"), Some(1));
        assert_eq!(delay("/a"), Some(2));
        script.clear();
        assert_eq!(delay("/a"), None);
    }

    #[test]
    fn a_condition_on_the_body_is_checked_when_the_body_has_been_read() {
        let script = Script::default();
        script.add(Rule::new(Act::default()).body(|body| body["stream"] == true).times(1));
        assert!(script.on_head(&head("/a")).is_none());
        assert!(script.on_body(&head("/a"), &json!({"stream": false})).is_none());
        assert!(script.on_body(&head("/a"), &json!({"stream": true})).is_some());
        assert!(script.on_body(&head("/a"), &json!({"stream": true})).is_none());
    }
}

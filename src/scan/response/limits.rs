//! What an error says about limits: what kind it is, when the limit ends, and whether it is one model's alone.
//!
//! Upstreams say when to come back in a dozen forms, and in several at once. The most exact one that makes sense counts:
//!
//! 1. `error.resets_at`, then `error.resets_in_seconds` of the body (ChatGPT's `usage_limit_reached`)
//! 2. `retry-after-ms`, then `retry-after` in seconds or as a date (RFC 9110 §10.2.3)
//! 3. the message: "Please try again in 6m0s"
//! 4. `x-ratelimit-reset-{requests,tokens}` of what is used up, the later one
//! 5. `x-codex-{primary,secondary}-reset-at` of the windows that are used up, the later one
//!
//! A form that makes no sense (negative, no number, a year away) is passed over as if it were not there.

mod span;

use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, header::RETRY_AFTER};
use serde_json::{Map, Value};

/// The longest kind or code that is kept, in bytes; a longer one is none.
const MAX_NAME: usize = 64;
/// Moments further from now than this, either way, are taken for mistakes: limits last a month at most.
const MAX_SPAN: Duration = Duration::from_secs(366 * 24 * 3600);

/// What an error says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorNotice {
    /// `error.type`, up to 64 bytes of it.
    pub kind: Option<String>,
    /// `error.code`, up to 64 bytes of it; a number as its digits.
    pub code: Option<String>,
    /// How long from now its limit lasts, at most a year. Zero where the moment named has passed.
    pub reset: Option<Duration>,
    /// Whether it names the requested model, so that other models may do better.
    pub names_model: bool,
}

/// What an error answer with these `headers` and this `body` says. Of a body that is no JSON, or cut short, or compressed,
/// nothing is learnt. `model` is the requested one, and `unix_now` the time since 1970.
pub fn error_notice(headers: &HeaderMap, body: &[u8], model: Option<&str>, unix_now: Duration) -> ErrorNotice {
    let body: Option<Map<String, Value>> = serde_json::from_slice(body).ok();
    let Some(body) = &body else {
        return Said::nothing().notice(headers, model, unix_now);
    };
    // Some gateways have no `error` around it, and some only a text.
    let said = Said::of_member(body).unwrap_or_else(|| Said::of_object(body));
    said.notice(headers, model, unix_now)
}

/// What an event of a stream says by its `data`, or `None` where it is no failure: failures are `response.failed`, `error` in
/// either form that there is, and a chat completion's `{"error":{…}}`.
pub fn event_notice(data: &[u8], model: Option<&str>, unix_now: Duration) -> Option<ErrorNotice> {
    let event: Map<String, Value> = serde_json::from_slice(data).ok()?;
    let said = match event.get("type").and_then(Value::as_str) {
        Some("response.failed") => {
            let response = event.get("response").and_then(Value::as_object);
            response.and_then(Said::of_member).unwrap_or_else(Said::nothing)
        }
        // Where the error is the event itself, its `type` says only that.
        Some("error") => Said::of_member(&event).unwrap_or_else(|| Said {
            kind: None,
            ..Said::of_object(&event)
        }),
        Some(_) => return None,
        None => Said::of_object(event.get("error")?.as_object()?),
    };
    Some(said.notice(&HeaderMap::new(), model, unix_now))
}

/// An error in JSON.
struct Said<'a> {
    kind: Option<&'a Value>,
    code: Option<&'a Value>,
    message: Option<&'a str>,
    model: Option<&'a str>,
    resets_at: Option<f64>,
    resets_in: Option<f64>,
}

impl<'a> Said<'a> {
    fn nothing() -> Self {
        Self {
            kind: None,
            code: None,
            message: None,
            model: None,
            resets_at: None,
            resets_in: None,
        }
    }

    /// What the member `error` says, if there is one.
    fn of_member(object: &'a Map<String, Value>) -> Option<Self> {
        match object.get("error")? {
            Value::Object(error) => Some(Self::of_object(error)),
            Value::String(message) => Some(Self {
                message: Some(message),
                ..Self::nothing()
            }),
            _ => None,
        }
    }

    fn of_object(error: &'a Map<String, Value>) -> Self {
        let text = |name| error.get(name).and_then(Value::as_str);
        let number = |name| error.get(name).and_then(Value::as_f64);
        Self {
            kind: error.get("type"),
            code: error.get("code"),
            message: text("message").or_else(|| text("detail")),
            model: text("model"),
            resets_at: number("resets_at"),
            resets_in: number("resets_in_seconds"),
        }
    }

    fn notice(&self, headers: &HeaderMap, model: Option<&str>, unix_now: Duration) -> ErrorNotice {
        ErrorNotice {
            kind: self.kind.and_then(name),
            code: self.code.and_then(name),
            reset: self.reset(headers, unix_now),
            names_model: model.is_some_and(|model| self.is_about(model)),
        }
    }

    fn reset(&self, headers: &HeaderMap, unix_now: Duration) -> Option<Duration> {
        let until = |seconds| until(Duration::try_from_secs_f64(seconds).ok()?, unix_now);
        self.resets_at
            .and_then(until)
            .or_else(|| self.resets_in.and_then(seconds))
            .or_else(|| Some(number(headers, "retry-after-ms")? / 1e3).and_then(seconds))
            .or_else(|| retry_after(headers, unix_now))
            .or_else(|| self.message.and_then(span::named_in).filter(is_near))
            .or_else(|| rate_limits(headers))
            .or_else(|| codex_windows(headers, unix_now))
    }

    fn is_about(&self, model: &str) -> bool {
        self.model == Some(model) || self.message.is_some_and(|message| has_word(message, model))
    }
}

/// A kind or code.
fn name(value: &Value) -> Option<String> {
    let name = match value {
        Value::String(name) => name.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    (!name.is_empty() && name.len() <= MAX_NAME).then_some(name)
}

/// Whether `word` stands in `text` by itself: not as a part of a longer name, as `gpt-5` of `gpt-5-mini` or of `gpt-5.2`.
fn has_word(text: &str, word: &str) -> bool {
    let goes_on = |character: char| character.is_alphanumeric() || matches!(character, '-' | '_');
    let stands_alone = |at: usize| {
        let before = text.get(..at).and_then(|text| text.chars().next_back());
        let mut after = text.get(at + word.len()..).unwrap_or_default().chars();
        let is_end = match after.next() {
            // The end of a sentence, or the middle of a name.
            Some('.' | ':') => !after.next().is_some_and(goes_on),
            next => !next.is_some_and(goes_on),
        };
        is_end && !before.is_some_and(|before| goes_on(before) || before == '.')
    };
    !word.is_empty() && text.match_indices(word).any(|(at, _)| stands_alone(at))
}

fn is_near(span: &Duration) -> bool {
    *span <= MAX_SPAN
}

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok().filter(is_near)
}

/// How long it is until `moment`, which is told as the time since 1970.
fn until(moment: Duration, unix_now: Duration) -> Option<Duration> {
    is_near(&moment.abs_diff(unix_now)).then(|| moment.saturating_sub(unix_now))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    Some(headers.get(name)?.to_str().ok()?.trim())
}

fn number(headers: &HeaderMap, name: &str) -> Option<f64> {
    text(headers, name).and_then(span::decimal)
}

fn retry_after(headers: &HeaderMap, unix_now: Duration) -> Option<Duration> {
    let text = text(headers, RETRY_AFTER.as_str())?;
    if let Some(delay) = span::decimal(text) {
        return seconds(delay);
    }
    let moment = httpdate::parse_http_date(text).ok()?;
    until(moment.duration_since(UNIX_EPOCH).ok()?, unix_now)
}

/// The resets of the limits of which nothing remains. Azure says that nothing remains and that it resets in no time, which
/// is to say nothing.
fn rate_limits(headers: &HeaderMap) -> Option<Duration> {
    let limits = [
        ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
        ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ];
    let resets = limits.iter().filter_map(|(remaining, reset)| {
        let is_used_up = number(headers, remaining)? == 0.0;
        let reset = span::whole(text(headers, reset)?)?;
        (is_used_up && !reset.is_zero() && is_near(&reset)).then_some(reset)
    });
    resets.max()
}

/// The resets of the windows of a ChatGPT plan that are used up.
fn codex_windows(headers: &HeaderMap, unix_now: Duration) -> Option<Duration> {
    let windows = [
        (
            "x-codex-primary-used-percent",
            "x-codex-primary-reset-at",
            "x-codex-primary-reset-after-seconds",
        ),
        (
            "x-codex-secondary-used-percent",
            "x-codex-secondary-reset-at",
            "x-codex-secondary-reset-after-seconds",
        ),
    ];
    let resets = windows.iter().filter_map(|(used, at, after)| {
        let at = || until(Duration::try_from_secs_f64(number(headers, at)?).ok()?, unix_now);
        let after = || seconds(number(headers, after)?);
        (number(headers, used)? >= 100.0).then(|| at().or_else(after)).flatten()
    });
    resets.max()
}

#[cfg(test)]
mod tests;

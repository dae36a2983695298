//! Responses: made, fetched, streamed again, cancelled, deleted and compacted.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::HeaderName;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use twox_hash::XxHash3_64;

use super::super::account::Account;
use super::super::api_error::ApiError;
use super::super::body::BodySource;
use super::super::events::ResponseEvents;
use super::super::head::RecordedHead;
use super::super::issued::IssuedResponse;
use super::super::outgoing::{Hold, SimResponse};
use super::super::responses::{
    self, GeneratedResponse, ResponseStatus, conversation_of, is_true, new_id, unix_seconds,
};
use super::page::{deleted, page, query_value};
use super::parsed::ParsedRequest;
use super::prompt::ReadPrompt;

const TURN_STATE: HeaderName = HeaderName::from_static("x-codex-turn-state");

impl Account {
    /// Answers `POST /v1/responses`.
    pub(in crate::sim) fn respond(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let model = self.check_model(&request)?;
        let (is_stored, in_background) = (
            request.get("store") != Some(&json!(false)),
            is_true(&request, "background"),
        );
        if in_background && !is_stored {
            return Err(ApiError::invalid("background", "requires 'store' to be true"));
        }
        let turn = self.turn(&call.head.headers)?;
        self.check_tools(&request)?;
        let ReadPrompt { mut prefix, mut usage } = self.read_prompt(model, &request)?;
        let items = match call.items {
            Some(items) => items.into_iter().map(responses::complete_item).collect(),
            None => self.output(&request),
        };
        self.write_output(&items, &mut prefix, &mut usage);
        self.store_items(&request, &items);
        let mut reply = GeneratedResponse::new(&request, items, usage);
        let streams = is_true(&request, "stream");
        if self.config.changes_ids && streams {
            reply = reply.with_changed_id();
        }
        let reply = Arc::new(reply);
        let delay = call.background.unwrap_or(self.config.background);
        let due = self
            .clock
            .now()
            .after(if in_background { delay } else { Duration::ZERO });
        let response = match (streams, in_background) {
            (true, true) => held(ResponseEvents::new(Arc::clone(&reply)), delay),
            (true, false) => streamed(ResponseEvents::new(Arc::clone(&reply))),
            (false, true) => whole(&reply, ResponseStatus::Queued),
            (false, false) => SimResponse {
                thinking: self.thinking(),
                ..whole(&reply, ResponseStatus::Completed)
            },
        };
        if is_stored {
            self.issued.remember(IssuedResponse {
                reply,
                // This is a copy, because the original bytes keep the whole read buffer alive.
                request: Bytes::copy_from_slice(&call.plain),
                prefix,
                due,
                cancelled: Arc::default(),
            });
        }
        let response = response.with(HeaderName::from_static("openai-model"), model);
        Ok(match turn {
            Some(turn) => response.with(TURN_STATE, &turn),
            None => response,
        })
    }

    /// Remembers the items of a response: by their ids if the response is stored, and in its conversation.
    fn store_items(&self, request: &Value, output: &[Value]) {
        let id_of = |item: &Value| item["id"].as_str().unwrap_or_default().to_owned();
        if request.get("store") != Some(&json!(false)) {
            output
                .iter()
                .for_each(|item| self.objects.items.insert(&id_of(item), item.clone()));
        }
        let Some(conversation) = conversation_of(request) else {
            return;
        };
        let mut items = self.stored_input(request);
        items.extend(output.iter().cloned());
        self.append(conversation, items);
    }

    /// Answers `GET /v1/responses/{id}`, which may ask for the stream of the response.
    pub(in crate::sim) fn response(&self, head: &RecordedHead, id: &str) -> Result<SimResponse, ApiError> {
        let issued = self.find(id)?;
        let now = self.clock.now();
        let status = issued.status(now);
        if query_value(head, "stream").as_deref() != Some("true") {
            return Ok(whole(&issued.reply, status));
        }
        let mut events = ResponseEvents::new(Arc::clone(&issued.reply));
        if status == ResponseStatus::CancelledEarly {
            events = events.cancelled();
        }
        if let Some(number) = query_value(head, "starting_after") {
            let number = number
                .parse()
                .map_err(|_| ApiError::invalid("starting_after", "must be an integer"))?;
            events = events.after(number);
        }
        Ok(match status {
            ResponseStatus::InProgress => held(events, issued.due.since(now)),
            _ => streamed(events),
        })
    }

    fn find(&self, id: &str) -> Result<IssuedResponse, ApiError> {
        self.issued.find(id).ok_or_else(|| ApiError::unknown_response(id))
    }

    /// Answers `POST /v1/responses/{id}/cancel`.
    pub(in crate::sim) fn cancel_response(&self, id: &str) -> Result<SimResponse, ApiError> {
        let now = self.clock.now();
        let issued = self
            .issued
            .cancel(id, now)
            .ok_or_else(|| ApiError::unknown_response(id))?;
        Ok(whole(&issued.reply, issued.status(now)))
    }

    /// Answers `DELETE /v1/responses/{id}`. The items of the response are forgotten, unless a conversation has them.
    pub(in crate::sim) fn delete_response(&self, id: &str) -> Result<SimResponse, ApiError> {
        let issued = self.issued.delete(id).ok_or_else(|| ApiError::unknown_response(id))?;
        if conversation_of(&issued.request_json()).is_none() {
            for item in issued.reply.items() {
                self.objects.items.remove(item["id"].as_str().unwrap_or_default());
            }
        }
        Ok(deleted(id, "response"))
    }

    /// Answers `GET /v1/responses/{id}/input_items`.
    pub(in crate::sim) fn input_items(&self, head: &RecordedHead, id: &str) -> Result<SimResponse, ApiError> {
        let issued = self.find(id)?;
        let request = issued.request_json();
        let names_ids = request
            .get("input")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let mut items = self.stored_input(&request);
        for (index, item) in items.iter_mut().enumerate() {
            // An item without an id gets the same one every time.
            let has_id = names_ids.get(index).is_some_and(|given| given["id"].is_string());
            if !has_id {
                let new = item["id"].as_str().unwrap_or("item_");
                let kind = new.split_once('_').map_or("item", |(kind, _)| kind);
                item["id"] = format!("{kind}_{}", derived(issued.reply.id(), index)).into();
            }
            let id = item["id"].as_str().unwrap_or_default().to_owned();
            self.objects.items.insert(&id, item.clone());
        }
        page(head, items)
    }

    /// Returns the state of a turn that begins with this request; `None` if the turn has begun before.
    fn turn(&self, headers: &HeaderMap) -> Result<Option<String>, ApiError> {
        match headers.get(TURN_STATE) {
            Some(state) if self.config.refuse_foreign => {
                let own = state.to_str().is_ok_and(|state| self.issued.knows_turn(state));
                if own {
                    Ok(None)
                } else {
                    Err(ApiError::foreign_turn_state())
                }
            }
            Some(_) => Ok(None),
            None => Ok(self.config.turn_state.then(|| self.issued.begin_turn())),
        }
    }

    /// Answers `POST /v1/responses/compact`.
    pub(in crate::sim) fn compact(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let model = self.check_model(&request)?;
        let ReadPrompt { mut prefix, mut usage } = self.read_prompt(model, &request)?;
        let mut output: Vec<Value> = match request.get("input") {
            Some(Value::Array(items)) => {
                let own_words = items.iter().filter(|item| item["role"] == "user").cloned();
                own_words.map(responses::input_item).collect()
            }
            Some(Value::String(text)) => vec![responses::user_message(text)],
            _ => Vec::new(),
        };
        let compaction = responses::compaction(self.issued.encrypt());
        self.write_output(std::slice::from_ref(&compaction), &mut prefix, &mut usage);
        output.push(compaction);
        let compacted = json!({"id": new_id("resp"), "object": "response.compaction", "created_at": unix_seconds(),
            "output": output, "usage": usage.json()});
        Ok(SimResponse {
            thinking: self.thinking(),
            ..SimResponse::json(StatusCode::OK, &compacted)
        })
    }

    /// Returns the delay of a response in one piece, which is the time that its text would take to stream.
    pub(super) fn thinking(&self) -> Duration {
        self.config
            .pace
            .saturating_mul(u32::try_from(self.config.deltas).unwrap_or(u32::MAX))
    }
}

/// Returns a random-looking number that is always the same for the same item of the same response.
fn derived(response: &str, index: usize) -> String {
    let half = |seed: usize| XxHash3_64::oneshot_with_seed(seed as u64, response.as_bytes());
    format!("{:016x}{:016x}", half(2 * index), half(2 * index + 1))
}

fn whole(reply: &GeneratedResponse, status: ResponseStatus) -> SimResponse {
    let mut body = BytesMut::new();
    reply.write(status, &mut body);
    SimResponse::whole(StatusCode::OK, body.freeze())
}

fn streamed(events: ResponseEvents) -> SimResponse {
    SimResponse::stream(BodySource::Events(Box::new(events)))
}

/// Streams a response whose output comes after `delay`.
fn held(events: ResponseEvents, delay: Duration) -> SimResponse {
    let hold = Hold {
        after: events.before_output(),
        delay,
    };
    SimResponse {
        hold: Some(hold),
        ..streamed(events)
    }
}

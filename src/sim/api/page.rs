//! Lists of objects in pages: `limit`, `after` and `order`.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::api_error::ApiError;
use super::super::head::RecordedHead;
use super::super::outgoing::SimResponse;

/// The order of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListOrder {
    NewestFirst,
    OldestFirst,
}

/// What a list is like if the query says nothing about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListDefaults {
    pub order: ListOrder,
    /// The number of objects in a page.
    pub limit: usize,
}

/// The defaults of most lists.
pub(super) const USUAL: ListDefaults = ListDefaults {
    order: ListOrder::NewestFirst,
    limit: 20,
};

/// Returns the value of a parameter of the query.
pub(super) fn query_value(head: &RecordedHead, name: &str) -> Option<String> {
    form_urlencoded::parse(head.query().as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// Answers with the page of `objects` (the oldest first) that the query selects. The newest objects come first unless
/// the query says `order=asc`.
pub(super) fn page(head: &RecordedHead, objects: Vec<Value>) -> Result<SimResponse, ApiError> {
    page_of(head, objects, USUAL)
}

/// Answers with the page of `objects` (the oldest first) that the query selects.
pub(super) fn page_of(
    head: &RecordedHead,
    mut objects: Vec<Value>,
    defaults: ListDefaults,
) -> Result<SimResponse, ApiError> {
    let order = match query_value(head, "order").as_deref() {
        None | Some("") => defaults.order,
        Some("asc") => ListOrder::OldestFirst,
        Some("desc") => ListOrder::NewestFirst,
        Some(_) => return Err(ApiError::invalid("order", "must be 'asc' or 'desc'")),
    };
    if order == ListOrder::NewestFirst {
        objects.reverse();
    }
    if let Some(after) = query_value(head, "after").filter(|after| !after.is_empty()) {
        let at = objects.iter().position(|object| object["id"] == after.as_str());
        let at = at.ok_or_else(|| ApiError::invalid("after", "must be the id of an object in the list"))?;
        objects.drain(..=at);
    }
    let limit = match query_value(head, "limit") {
        Some(limit) => limit
            .parse()
            .map_err(|_| ApiError::invalid("limit", "must be an integer"))?,
        None => defaults.limit,
    };
    let has_more = objects.len() > limit;
    objects.truncate(limit);
    let id = |object: Option<&Value>| object.map_or(Value::Null, |object| object["id"].clone());
    let list = json!({"object": "list", "first_id": id(objects.first()), "last_id": id(objects.last()),
        "has_more": has_more, "data": objects});
    Ok(SimResponse::json(StatusCode::OK, &list))
}

/// Answers with an object.
pub(super) fn found(object: &Value) -> SimResponse {
    SimResponse::json(StatusCode::OK, object)
}

/// Answers that an object has been deleted.
pub(super) fn deleted(id: &str, kind: &str) -> SimResponse {
    found(&json!({"id": id, "object": kind, "deleted": true}))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::super::super::body::BodySource;
    use super::*;

    fn listed(query: &str) -> Result<(Vec<u64>, bool), ApiError> {
        let head = RecordedHead {
            method: Method::GET,
            target: format!("/v1/things?{query}"),
            headers: HeaderMap::new(),
            connection: 1,
            nth: 1,
        };
        let objects = (0..30).map(|n| json!({"id": format!("t_{n}"), "n": n})).collect();
        let BodySource::Whole(Some(body)) = page(&head, objects)?.source else {
            panic!("a page is one piece");
        };
        let list: Value = serde_json::from_slice(&body).unwrap();
        let data = list["data"].as_array().unwrap();
        assert_eq!(
            list["last_id"],
            data.last().map_or(Value::Null, |last| last["id"].clone())
        );
        Ok((
            data.iter().map(|object| object["n"].as_u64().unwrap()).collect(),
            list["has_more"] == true,
        ))
    }

    #[test]
    fn pages_follow_the_order_the_limit_and_the_cursor() {
        let newest: Vec<u64> = (10..30).rev().collect();
        assert_eq!(listed("").unwrap(), (newest, true));
        assert_eq!(listed("order=asc&limit=2&after=t_3").unwrap(), (vec![4, 5], true));
        assert_eq!(listed("limit=50&after=t_2").unwrap(), (vec![1, 0], false));
        assert_eq!(listed("after=t_0").unwrap(), (vec![], false));
        for wrong in ["order=up", "limit=x", "after=t_99"] {
            assert_eq!(listed(wrong).unwrap_err().status, StatusCode::BAD_REQUEST, "{wrong}");
        }
    }
}

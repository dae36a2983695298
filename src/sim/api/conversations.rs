//! Conversations and their items.

use serde_json::{Value, json};

use super::super::account::Account;
use super::super::api_error::ApiError;
use super::super::head::RecordedHead;
use super::super::objects::Conversation;
use super::super::outgoing::SimResponse;
use super::super::responses::{input_item, new_id, unix_seconds};
use super::page::{deleted, found, page};
use super::parsed::{ParsedRequest, field_or, replace_fields};

/// The maximum number of items that one request may add.
const MAX_ITEMS: usize = 20;

impl Account {
    /// Answers `POST /v1/conversations`.
    pub(in crate::sim) fn new_conversation(&self, call: ParsedRequest<'_>) -> Result<SimResponse, ApiError> {
        let request = call.json_or_empty()?;
        let items = self.new_items(&request)?;
        let id = new_id("conv");
        let object = json!({"id": id, "object": "conversation", "created_at": unix_seconds(),
            "metadata": field_or(&request, "metadata", json!({}))});
        let conversation = Conversation {
            object: object.clone(),
            items: Vec::new(),
        };
        self.objects.conversations.insert(&id, conversation);
        self.append(&id, items);
        Ok(found(&object))
    }

    /// Answers `GET /v1/conversations/{id}`.
    pub(in crate::sim) fn conversation(&self, id: &str) -> Result<SimResponse, ApiError> {
        self.find_conversation(id)
            .map(|conversation| found(&conversation.object))
    }

    fn find_conversation(&self, id: &str) -> Result<Conversation, ApiError> {
        let known = self.objects.conversations.get(id);
        known.ok_or_else(|| ApiError::unknown_conversation(id))
    }

    /// Answers `POST /v1/conversations/{id}`.
    pub(in crate::sim) fn update_conversation(
        &self,
        call: ParsedRequest<'_>,
        id: &str,
    ) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        let change = |conversation: &mut Conversation| {
            replace_fields(&mut conversation.object, &request, &["metadata"]);
            found(&conversation.object)
        };
        let changed = self.objects.conversations.update(id, change);
        changed.ok_or_else(|| ApiError::unknown_conversation(id))
    }

    /// Answers `DELETE /v1/conversations/{id}`. The items are not deleted.
    pub(in crate::sim) fn delete_conversation(&self, id: &str) -> Result<SimResponse, ApiError> {
        let known = self.objects.conversations.remove(id);
        known
            .map(|_| deleted(id, "conversation.deleted"))
            .ok_or_else(|| ApiError::unknown_conversation(id))
    }

    /// Answers `GET /v1/conversations/{id}/items`.
    pub(in crate::sim) fn conversation_items(&self, head: &RecordedHead, id: &str) -> Result<SimResponse, ApiError> {
        page(head, self.find_conversation(id)?.items)
    }

    /// Answers `POST /v1/conversations/{id}/items`.
    pub(in crate::sim) fn add_items(&self, call: ParsedRequest<'_>, id: &str) -> Result<SimResponse, ApiError> {
        let request = call.json?;
        self.find_conversation(id)?;
        let items = self.new_items(&request)?;
        if items.is_empty() {
            return Err(ApiError::missing("items"));
        }
        self.append(id, items.clone());
        let id = |item: Option<&Value>| item.map_or(Value::Null, |item| item["id"].clone());
        Ok(found(
            &json!({"object": "list", "first_id": id(items.first()), "last_id": id(items.last()),
            "has_more": false, "data": items}),
        ))
    }

    /// Answers `GET /v1/conversations/{id}/items/{item}`.
    pub(in crate::sim) fn conversation_item(&self, id: &str, item: &str) -> Result<SimResponse, ApiError> {
        let items = self.find_conversation(id)?.items;
        let known = items.iter().find(|known| known["id"] == item);
        known
            .map(found)
            .ok_or_else(|| ApiError::unknown_conversation_item(id, item))
    }

    /// Answers `DELETE /v1/conversations/{id}/items/{item}` with the conversation.
    pub(in crate::sim) fn delete_item(&self, id: &str, item: &str) -> Result<SimResponse, ApiError> {
        let change = |conversation: &mut Conversation| {
            let at = conversation.items.iter().position(|known| known["id"] == item);
            conversation
                .items
                .remove(at.ok_or_else(|| ApiError::unknown_conversation_item(id, item))?);
            Ok(found(&conversation.object))
        };
        let changed = self.objects.conversations.update(id, change);
        let changed = changed.ok_or_else(|| ApiError::unknown_conversation(id))?;
        self.objects.items.remove(item);
        changed
    }

    /// Returns the `items` of a request, as the account stores them. They may refer to items and files of this account
    /// only.
    fn new_items(&self, request: &Value) -> Result<Vec<Value>, ApiError> {
        let items = match request.get("items") {
            Some(Value::Array(items)) => items,
            Some(Value::Null) | None => return Ok(Vec::new()),
            Some(_) => return Err(ApiError::wrong_type("items", "an array of items")),
        };
        if items.len() > MAX_ITEMS {
            return Err(ApiError::invalid("items", "must have at most 20 items"));
        }
        self.read_prompt_parts(items)?;
        Ok(items.iter().map(|item| self.resolved(item)).map(input_item).collect())
    }

    /// Appends items to a conversation. An item that the conversation has already is not appended again.
    pub(super) fn append(&self, id: &str, items: Vec<Value>) {
        for item in &items {
            self.objects
                .items
                .insert(item["id"].as_str().unwrap_or_default(), item.clone());
        }
        self.objects.conversations.update(id, |conversation| {
            for item in items {
                if !conversation.items.iter().any(|known| known["id"] == item["id"]) {
                    conversation.items.push(item);
                }
            }
        });
    }
}

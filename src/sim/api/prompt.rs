//! The prompt of a request: the conversation before it, its input, and the objects that it names. The account must own
//! each of them.

use serde_json::Value;

use super::super::account::Account;
use super::super::api_error::ApiError;
use super::super::cache::{Mark, Prefix};
use super::super::issued::IssuedResponse;
use super::super::responses::{self, TokenUsage, conversation_of, tokens};
use super::parsed::strings;

/// A prompt that has been read.
pub(super) struct ReadPrompt {
    /// The whole conversation so far.
    pub prefix: Prefix,
    /// The usage of the prompt.
    pub usage: TokenUsage,
}

impl Account {
    /// Reads the prompt of a request to the Responses API, and counts how much of it is cached.
    pub(super) fn read_prompt(&self, model: &str, request: &Value) -> Result<ReadPrompt, ApiError> {
        let conversation = conversation_of(request);
        let history = match conversation {
            Some(id) => {
                let known = self.objects.conversations.get(id);
                known.ok_or_else(|| ApiError::unknown_conversation(id))?.items
            }
            None => Vec::new(),
        };
        let known = self.previous_response(request)?;
        let (mut prefix, mut marks) = (
            known.as_ref().map_or(Prefix::new(model), |known| known.prefix),
            Vec::new(),
        );
        prefix.mark(&mut marks);
        let instructions = request.get("instructions").and_then(Value::as_str);
        if let (Some(text), None) = (instructions, &known) {
            prefix.message("instructions", text, &mut marks);
        }
        for item in &history {
            self.read_item(item, &mut prefix, &mut marks)?;
        }
        let continues = conversation.is_some() || request.get("previous_response_id").is_some_and(Value::is_string);
        match request.get("input") {
            Some(Value::String(text)) => prefix.message("user", text, &mut marks),
            Some(Value::Array(items)) => {
                if self.config.refuse_foreign && items.iter().any(|item| self.has_foreign_secret(item)) {
                    return Err(ApiError::foreign_encrypted_content());
                }
                for item in items {
                    self.read_item(item, &mut prefix, &mut marks)?;
                }
            }
            Some(Value::Null) | None if continues => {}
            Some(Value::Null) | None => return Err(ApiError::missing("input")),
            Some(_) => return Err(ApiError::wrong_type("input", "a string or an array of items")),
        }
        Ok(self.count(prefix, &marks))
    }

    /// Counts how much of a prompt is cached. All of it is cached from now on.
    pub(super) fn count(&self, prefix: Prefix, marks: &[Mark]) -> ReadPrompt {
        let cached = self.cache.lock().read(marks, self.clock.now());
        let usage = TokenUsage {
            input: tokens(prefix.bytes()),
            cached: tokens(cached),
            ..TokenUsage::default()
        };
        ReadPrompt { prefix, usage }
    }

    /// Returns the response that a request continues, if the account knows it.
    fn previous_response(&self, request: &Value) -> Result<Option<IssuedResponse>, ApiError> {
        let compared = request.pointer("/prompt_cache_options/comparison_response_id");
        if let Some(id) = compared.and_then(Value::as_str)
            && self.issued.find(id).is_none()
        {
            return Err(ApiError::unknown_response(id));
        }
        let Some(id) = request.get("previous_response_id").and_then(Value::as_str) else {
            return Ok(None);
        };
        if conversation_of(request).is_some() {
            return Err(ApiError::exclusive("previous_response_id", "conversation"));
        }
        match self.issued.find(id) {
            None if self.config.refuse_foreign => Err(ApiError::unknown_previous_response(id)),
            known => Ok(known),
        }
    }

    /// Appends an item of the input, or a message, to the prompt, with the files that it names.
    pub(super) fn read_item(&self, item: &Value, prefix: &mut Prefix, marks: &mut Vec<Mark>) -> Result<(), ApiError> {
        if let Some(id) = referenced(item) {
            let stored = self.objects.items.get(id).ok_or_else(|| ApiError::unknown_item(id))?;
            prefix.item(&stored, marks);
            return self.read_files(&stored, prefix, marks);
        }
        // A reasoning item without its content is a reference too, because the account must have kept the content.
        let is_bare = item["type"] == "reasoning" && item["encrypted_content"].as_str().is_none_or(str::is_empty);
        if let Some(id) = item["id"].as_str().filter(|_| is_bare && self.config.refuse_foreign)
            && !self.objects.items.contains(id)
        {
            return Err(ApiError::unknown_item(id));
        }
        prefix.item(item, marks);
        self.read_files(item, prefix, marks)
    }

    /// Appends the files that a part of the prompt names.
    fn read_files(&self, value: &Value, prefix: &mut Prefix, marks: &mut Vec<Mark>) -> Result<(), ApiError> {
        match value {
            Value::Array(values) => values
                .iter()
                .try_for_each(|value| self.read_files(value, prefix, marks)),
            Value::Object(fields) => fields
                .iter()
                .try_for_each(|(name, value)| match (name.as_str(), value) {
                    ("file_id", Value::String(id)) => {
                        let file = self.objects.files.get(id).ok_or_else(|| ApiError::unknown_file(id))?;
                        prefix.file(&file.content, marks);
                        Ok(())
                    }
                    // These repeat what a tool found, and name files for information only.
                    ("annotations" | "results" | "outputs", _) => Ok(()),
                    (_, value) => self.read_files(value, prefix, marks),
                }),
            _ => Ok(()),
        }
    }

    fn has_foreign_secret(&self, value: &Value) -> bool {
        match value {
            Value::Array(values) => values.iter().any(|value| self.has_foreign_secret(value)),
            Value::Object(fields) => fields.iter().any(|(name, value)| match value {
                Value::String(content) => name == "encrypted_content" && !self.issued.decrypts(content),
                value => self.has_foreign_secret(value),
            }),
            _ => false,
        }
    }

    /// Checks that the account owns each object that the tools of a request name.
    pub(super) fn check_tools(&self, request: &Value) -> Result<(), ApiError> {
        let tools = request.get("tools").and_then(Value::as_array);
        for tool in tools.into_iter().flatten() {
            for id in strings(tool, "vector_store_ids") {
                if !self.objects.vector_stores.contains(id) {
                    return Err(ApiError::unknown_vector_store(id));
                }
            }
            let Some(container) = tool.get("container") else {
                continue;
            };
            if let Some(id) = container.as_str()
                && !self.objects.containers.contains(id)
            {
                return Err(ApiError::unknown_container(id));
            }
            strings(container, "file_ids").try_for_each(|id| self.check_file(id))?;
        }
        Ok(())
    }

    /// Checks that the account owns a file.
    pub(super) fn check_file(&self, id: &str) -> Result<(), ApiError> {
        if self.objects.files.contains(id) {
            Ok(())
        } else {
            Err(ApiError::unknown_file(id))
        }
    }

    /// Checks that the account owns each item and file that these items name.
    pub(super) fn read_prompt_parts(&self, items: &[Value]) -> Result<(), ApiError> {
        let (mut prefix, mut marks) = (Prefix::new(""), Vec::new());
        items
            .iter()
            .try_for_each(|item| self.read_item(item, &mut prefix, &mut marks))
    }

    /// Returns the item that a reference names, or the item itself.
    pub(super) fn resolved(&self, item: &Value) -> Value {
        let named = referenced(item).and_then(|id| self.objects.items.get(id));
        named.unwrap_or_else(|| item.clone())
    }

    /// Returns the input items of a request as the account stores them, with references replaced by what they name.
    pub(super) fn stored_input(&self, request: &Value) -> Vec<Value> {
        let stored = |item: &Value| responses::input_item(self.resolved(item));
        match request.get("input") {
            Some(Value::Array(items)) => items.iter().map(stored).collect(),
            Some(Value::String(text)) => vec![responses::user_message(text)],
            _ => Vec::new(),
        }
    }
}

/// Returns the id that an `item_reference` names. Its type may be omitted.
fn referenced(item: &Value) -> Option<&str> {
    let fields = item.as_object()?;
    let is_reference = match fields.get("type") {
        Some(Value::Null) | None => fields.keys().all(|name| matches!(name.as_str(), "id" | "type")),
        Some(kind) => kind == "item_reference",
    };
    fields.get("id").and_then(Value::as_str).filter(|_| is_reference)
}

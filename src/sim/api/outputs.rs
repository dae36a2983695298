//! The usual output of a response: a message, and the calls of the tools that the request offers.

use serde_json::{Value, json};

use super::super::account::Account;
use super::super::cache::Prefix;
use super::super::responses::{self, TokenUsage, answer_text, new_id, tokens};
use super::parsed::strings;

impl Account {
    /// Returns the account's usual output.
    pub(super) fn output(&self, request: &Value) -> Vec<Value> {
        let last = request
            .get("input")
            .and_then(Value::as_array)
            .and_then(|items| items.last());
        if last.is_some_and(|item| item["type"] == "compaction_trigger") {
            return vec![responses::compaction(self.issued.encrypt())];
        }
        let mut output = Vec::new();
        if includes(request, "reasoning.encrypted_content") {
            output.push(responses::reasoning(self.issued.encrypt()));
        }
        let tools = request.get("tools").and_then(Value::as_array);
        for tool in tools.into_iter().flatten() {
            match tool["type"].as_str() {
                Some("code_interpreter") => output.push(self.interpret(tool, request)),
                Some("file_search") => output.push(self.search_files(tool, request)),
                _ => {}
            }
        }
        output.push(responses::message(&answer_text(&self.config.name, self.config.deltas)));
        output
    }

    /// Calls the code interpreter, in the container that the tool names. An automatic container is the one of the
    /// conversation so far, or a new one.
    fn interpret(&self, tool: &Value, request: &Value) -> Value {
        let named = tool["container"].as_str().map(str::to_owned);
        let before = || {
            let items = request.get("input")?.as_array()?;
            let used = items.iter().rev().find_map(|item| item["container_id"].as_str())?;
            self.objects.containers.contains(used).then(|| used.to_owned())
        };
        let container = named.or_else(before).unwrap_or_else(|| {
            let files: Vec<&str> = strings(&tool["container"], "file_ids").collect();
            self.new_container("auto", &files)
        });
        json!({"type": "code_interpreter_call", "id": new_id("ci"), "status": "completed", "code": "print(6 * 7)",
            "container_id": container, "outputs": null})
    }

    /// Searches the vector stores that the tool names for the last words of the user.
    fn search_files(&self, tool: &Value, request: &Value) -> Value {
        let query = last_words(request);
        let results: Vec<Value> = strings(tool, "vector_store_ids")
            .flat_map(|id| self.search_store(id, std::slice::from_ref(&query)))
            .map(|result| {
                json!({"file_id": result["file_id"], "filename": result["filename"], "score": result["score"],
                    "attributes": result["attributes"], "text": result["content"][0]["text"]})
            })
            .collect();
        let shown = includes(request, "file_search_call.results").then_some(results);
        json!({"type": "file_search_call", "id": new_id("fs"), "status": "completed", "queries": [query],
            "results": shown})
    }

    /// Appends the output to the conversation, so that a client that replays it finds it in the cache.
    pub(super) fn write_output(&self, items: &[Value], prefix: &mut Prefix, usage: &mut TokenUsage) {
        let mut marks = Vec::new();
        for item in items {
            let before = prefix.bytes();
            prefix.item(item, &mut marks);
            let written = tokens(prefix.bytes() - before);
            usage.output += written;
            if item["type"] == "reasoning" {
                usage.reasoning += written;
            }
        }
        self.cache.lock().read(&marks, self.clock.now());
    }
}

fn includes(request: &Value, what: &str) -> bool {
    strings(request, "include").any(|name| name == what)
}

/// Returns the text of the last message of the user.
fn last_words(request: &Value) -> String {
    let text = match request.get("input") {
        Some(Value::Array(items)) => {
            let message = items.iter().rev().find(|item| item["role"] == "user");
            message.and_then(|message| {
                let content = &message["content"];
                content.as_str().or_else(|| content[0]["text"].as_str())
            })
        }
        Some(input) => input.as_str(),
        None => None,
    };
    text.unwrap_or_default().to_owned()
}

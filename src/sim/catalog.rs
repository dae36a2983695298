//! The simulated account's models: `GET /v1/models` in the shapes that the SDKs and Codex expect.

use serde_json::{Value, json};

/// The creation time of every simulated model, as Unix time: 2025-01-01.
const CREATED: u64 = 1_735_689_600;

/// Returns one model in OpenAI's shape.
pub(super) fn model(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": CREATED, "owned_by": "steadfast-sim"})
}

/// Returns the list of models in OpenAI's shape.
pub(super) fn list(models: &[String]) -> Value {
    let data: Vec<Value> = models.iter().map(|id| model(id)).collect();
    json!({"object": "list", "data": data})
}

/// Returns the list of models in the shape that Codex requests with `?client_version=`.
pub(super) fn codex_list(models: &[String]) -> Value {
    let models: Vec<Value> = models
        .iter()
        .enumerate()
        .map(|(priority, id)| {
            json!({
                "slug": id, "display_name": id, "description": "A simulated model.", "priority": priority,
                "visibility": "list", "supported_in_api": true, "shell_type": "shell_command", "upgrade": null,
                "default_reasoning_level": "medium",
                "supported_reasoning_levels": [{"effort": "medium", "description": "The only one."}],
                "base_instructions": "You are a coding agent.", "supports_reasoning_summaries": true,
                "support_verbosity": false, "default_verbosity": null, "apply_patch_tool_type": null,
                "truncation_policy": {"mode": "bytes", "limit": 10_000}, "supports_parallel_tool_calls": true,
                "context_window": 272_000, "experimental_supported_tools": [], "input_modalities": ["text"],
            })
        })
        .collect();
    json!({ "models": models })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lists_contain_every_model() {
        let models = ["gpt-a".to_owned(), "gpt-b".to_owned()];
        let sdk = list(&models);
        assert_eq!(
            (&sdk["object"], &sdk["data"][1]["id"]),
            (&json!("list"), &json!("gpt-b"))
        );
        assert_eq!(codex_list(&models)["models"][1]["slug"], "gpt-b");
        assert_eq!(codex_list(&[]), json!({"models": []}));
    }
}

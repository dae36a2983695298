//! Messages which say that an account does not have a model, for errors whose code does not say it.
//!
//! The model must be the subject of the sentence. Many messages name a model and say that something else is missing or not
//! supported: a parameter, a tool, an endpoint. Every account with the model would answer those.

/// Phrases that say it on their own, in lower-case letters.
const PHRASES: [&str; 18] = [
    // Azure.
    "api deployment for this resource does not exist",
    // OpenAI, for a project or an organization.
    "have access to model",
    "have access to the model `",
    "have access to the requested model",
    "have access to this model",
    "invalid model name",
    "invalid model:",
    // OpenRouter.
    "is not a valid model id",
    // Amazon Bedrock.
    "model identifier is invalid",
    // The backend of Codex.
    "model is not supported when using codex",
    "model not exist",
    "model not found",
    "no endpoints found for ",
    // Moonshot.
    "not found the model",
    "requested model does not exist",
    "that model does not exist",
    "this model does not exist",
    "unknown model:",
];

/// What follows the name of a model that is missing.
const PREDICATES: [&str; 10] = [
    "cannot be found",
    "could not be found",
    "does not exist",
    "doesn't exist",
    "is not available",
    "is not deployed",
    "is not found",
    "not found",
    "was not found",
    "model is not supported when using codex",
];

/// Whether `message` says that the account does not have the model. `model` is the requested model, which the upstream may call
/// by another name.
pub(super) fn is_in(message: &str, model: Option<&str>) -> bool {
    let message = message.to_ascii_lowercase();
    let message = message.trim();
    if PHRASES.iter().any(|phrase| message.contains(phrase)) {
        return true;
    }
    let model = model.map(str::to_ascii_lowercase);
    is_only_name(message, model.as_deref()) || is_missing(message, model.as_deref())
}

/// Whether the message is `model: NAME`, as Anthropic writes it.
fn is_only_name(message: &str, model: Option<&str>) -> bool {
    let name = message.strip_prefix("model:").map(str::trim);
    name.is_some_and(|name| Some(name) == model || (!name.is_empty() && !name.contains(char::is_whitespace)))
}

/// Whether the name of a model follows the word `model`, and a predicate follows the name. The name is quoted, or it is the
/// requested model.
fn is_missing(message: &str, model: Option<&str>) -> bool {
    let mut places = message.match_indices("model");
    places.any(|(at, word)| {
        let rest = &message[at + word.len()..];
        // Google writes `models/NAME`.
        let rest = rest.strip_prefix("s/").unwrap_or(rest).trim_start_matches([' ', ':']);
        let (name, rest) = split_name(rest);
        let is_name = name.is_some_and(|name| name.is_quoted || Some(name.text) == model);
        is_name && PREDICATES.iter().any(|predicate| rest.starts_with(predicate))
    })
}

struct Name<'a> {
    text: &'a str,
    is_quoted: bool,
}

/// Splits the name at the beginning of `text` from the rest of the sentence.
fn split_name(text: &str) -> (Option<Name<'_>>, &str) {
    let quote = text.chars().next().filter(|first| matches!(first, '\'' | '"' | '`'));
    let split = match quote {
        Some(quote) => text[1..].split_once(quote),
        None => text.split_once(' '),
    };
    match split {
        Some((text, rest)) => {
            let is_quoted = quote.is_some();
            (Some(Name { text, is_quoted }), rest.trim_start())
        }
        None => (None, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_say_that_the_model_is_missing() {
        for message in [
            "The model `gpt-5.2` does not exist or you do not have access to it.",
            "The model `my-deployment` does not exist.",
            "The model gpt-5.2 does not exist or your team does not have access to it.",
            "The model: `gpt-5.2` does not exist",
            "Project `proj_1` does not have access to model `gpt-5.2`",
            "model: gpt-5.2",
            "model: claude-opus-9",
            "model \"llama9\" not found, try pulling it first",
            "model 'llama9' not found",
            "Model 'gpt-5.2' was not found.",
            "models/gpt-5.2 is not found for API version v1beta, or is not supported for generateContent.",
            "The 'gpt-5.2' model is not supported when using Codex with a ChatGPT account.",
            "The API deployment for this resource does not exist. If you created the deployment within the last 5 minutes, \
             please wait a moment and try again.",
            "gpt-9 is not a valid model ID",
            "No endpoints found for org/gpt-9.",
            "Model Not Exist",
            "Model not found, inaccessible, and/or not deployed",
            "Not found the model gpt-9 or Permission denied",
            "Unknown model: gpt-9",
            "Invalid model: gpt-9",
            "The provided model identifier is invalid.",
            "/chat/completions: Invalid model name passed in model=gpt-9. Call `/v1/models` to view available models for your key.",
        ] {
            assert!(is_in(message, Some("gpt-5.2")), "{message}");
        }
    }

    #[test]
    fn messages_that_say_something_else() {
        for message in [
            "",
            "model:",
            "models",
            "model `",
            "model 'gpt-5.2",
            "Unsupported value: 'temperature' does not support 0.5 with this model.",
            "Unsupported parameter: 'reasoning.effort' is not supported with the 'gpt-5.2' model.",
            "The tool `web_search` is not supported with gpt-5.2.",
            "Previous response with id 'resp_1' not found.",
            "Item 'rs_1' of the model response not found.",
            "This is not a chat model and thus not supported in the v1/chat/completions endpoint.",
            "The model `gpt-5.2` is overloaded. Try again later.",
            "Rate limit reached for gpt-5.2 in organization org-1: Limit 1, Used 1.",
            "The model produced invalid content: the file was not found.",
            "This model's maximum context length is 8192 tokens.",
            "No endpoints found that support tool use.",
            "No such file: file-1",
        ] {
            assert!(!is_in(message, Some("gpt-5.2")), "{message}");
        }
    }
}

//! Conversations without a session key: each stays at one account, and conversations that differ only in their questions spread.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::kit::{client, gateway::Gateway, sims};

/// The number of conversations.
const SESSIONS: usize = 60;

/// The way in which a client writes a conversation.
struct Form {
    name: &'static str,
    path: &'static str,
    /// The body of a turn, from the number of the turn, the system prompt and the question.
    body: fn(usize, &str, &str) -> Value,
}

/// The messages after the first one of the user, which later turns have.
fn history(turn: usize) -> Vec<Value> {
    let exchange = |number| {
        [
            json!({"role": "assistant", "content": format!("answer {number}")}),
            json!({"role": "user", "content": format!("more {number}")}),
        ]
    };
    (0..turn).flat_map(exchange).collect()
}

fn list(first: Vec<Value>, turn: usize) -> Value {
    first.into_iter().chain(history(turn)).collect()
}

const FORMS: [Form; 8] = [
    Form {
        name: "a string, then a list",
        path: "/v1/responses",
        body: |turn, system, question| match turn {
            0 => json!({"model": "m", "input": question, "instructions": system}),
            _ => {
                json!({"model": "m", "instructions": system, "input": list(vec![json!({"role": "user", "content": question})], turn)})
            }
        },
    },
    Form {
        name: "a text, then parts with ids",
        path: "/v1/responses",
        body: |turn, system, question| {
            let first = match turn {
                0 => json!({"content": question, "role": "user"}),
                _ => {
                    json!({"id": format!("msg_{turn}"), "content": [{"text": question, "type": "input_text"}], "role": "user",
                    "status": "completed", "type": "message"})
                }
            };
            json!({"model": "m", "input": list(vec![first], turn), "instructions": system})
        },
    },
    Form {
        name: "a developer item",
        path: "/v1/responses",
        body: |turn, system, question| {
            let first = vec![
                json!({"role": "developer", "content": system, "type": "message"}),
                json!({"type": "message", "content": [{"type": "input_text", "text": question}], "role": "user"}),
            ];
            json!({"model": "m", "input": list(first, turn)})
        },
    },
    Form {
        name: "chat completions",
        path: "/v1/chat/completions",
        body: |turn, system, question| {
            let first = vec![
                json!({"role": "system", "content": system}),
                json!({"content": question, "role": "user"}),
            ];
            json!({"messages": list(first, turn), "model": "m"})
        },
    },
    Form {
        name: "chat completions with an image",
        path: "/v1/chat/completions",
        body: |turn, system, question| {
            let url = format!("data:image/png;base64,{}", hex(question).repeat(40));
            let first = vec![
                json!({"role": "system", "content": [{"type": "text", "text": system}]}),
                json!({"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]}),
            ];
            json!({"messages": list(first, turn), "model": "m"})
        },
    },
    Form {
        name: "messages",
        path: "/v1/messages",
        body: |turn, system, question| json!({"max_tokens": 10, "messages": list(vec![json!({"role": "user", "content": question})], turn), "model": "m", "system": system}),
    },
    Form {
        name: "messages with a mark that moves",
        path: "/v1/messages",
        body: |turn, system, question| {
            let mut text = json!({"type": "text", "text": question});
            if turn == 0 {
                text["cache_control"] = json!({"type": "ephemeral"});
            }
            let system = json!([{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]);
            let first = vec![json!({"role": "user", "content": [text]})];
            json!({"model": "m", "max_tokens": 10, "system": system, "messages": list(first, turn)})
        },
    },
    Form {
        name: "a tool call before the first message",
        path: "/v1/responses",
        body: |turn, system, question| {
            let first = vec![
                json!({"type": "function_call", "name": "hello", "call_id": "c1", "arguments": "{}"}),
                json!({"type": "function_call_output", "call_id": "c1", "output": "hi"}),
                json!({"role": "user", "content": question}),
            ];
            json!({"model": "m", "input": list(first, turn), "instructions": system})
        },
    },
];

/// Letters and digits that differ for different texts.
fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn conversations_spread_by_their_questions_and_each_stays_at_its_account() {
    let sims = sims(3).await;
    let gateway = Gateway::before(&sims, "").await;
    for system in [6 << 10, 600 << 10].map(|length| "You are helpful. ".repeat(length / 17)) {
        // A long prompt takes long, so that one form of request has to do.
        let forms = if system.len() > 100_000 {
            &FORMS[..1]
        } else {
            &FORMS[..]
        };
        for form in forms {
            let mut sessions: HashMap<String, usize> = HashMap::new();
            for session in 0..SESSIONS {
                let question = format!("{} {session}", "What is the answer to question number".repeat(3));
                let mut home = None;
                for turn in 0..3 {
                    let body = (form.body)(turn, &system, &question);
                    let reply = client::post_json(gateway.address, form.path, &body).await;
                    assert_eq!(reply.status, 200, "{}: {}", form.name, reply.text());
                    let account = reply.routed().0.to_owned();
                    let home = home.get_or_insert_with(|| account.clone());
                    assert_eq!(account, *home, "{}: turn {turn} of session {session}", form.name);
                }
                *sessions.entry(home.expect("a turn")).or_default() += 1;
            }
            let most = *sessions.values().max().expect("an account");
            assert!(most * 3 <= SESSIONS * 3 / 2, "{}: {sessions:?}", form.name);
        }
    }
}

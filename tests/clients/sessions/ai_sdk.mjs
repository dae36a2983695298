// The AI SDK with its provider for OpenAI: chat completions and Responses.

import assert from "node:assert/strict";
import { load, plan, run } from "./flow.mjs";

const { generateText, streamText } = await load("ai");
const { createOpenAI } = await load("@ai-sdk/openai");

const providerOf = (session) => createOpenAI({ baseURL: `${plan.root}/v1`, apiKey: plan.api_key, headers: session.headers });

// A conversation with its whole history; every second turn is streamed.
async function* converse(session, model, more = {}) {
  const messages = [];
  for (const [turn, question] of session.questions.entries()) {
    messages.push({ role: "user", content: question });
    const openai = { ...(session.bodyKey && { promptCacheKey: session.bodyKey }), ...more };
    const asked = { model, instructions: plan.system, messages, maxRetries: 0, providerOptions: { openai } };
    const result = turn % 2 ? streamText({ ...asked, onError: ({ error }) => { throw error; } }) : await generateText(asked);
    assert.ok(await result.text);
    messages.push(...(await result.response).messages);
    yield;
  }
}

async function* chat(session) {
  yield* converse(session, providerOf(session).chat(plan.model));
}

async function* responses(session) {
  yield* converse(session, providerOf(session).responses(plan.model));
}

// The SDK replaces stored answers by references to their items, if the model does no reasoning.
async function* item_reference(session) {
  yield* converse(session, providerOf(session).responses("gpt-4.1"));
}

// Nothing is stored, and encrypted reasoning is sent back.
async function* without_storage(session) {
  yield* converse(session, providerOf(session).responses(plan.model), { store: false });
}

// Only the new message, with the id of the response before.
async function* previous_response(session) {
  let previousResponseId;
  for (const prompt of session.questions) {
    const openai = { ...(session.bodyKey && { promptCacheKey: session.bodyKey }), previousResponseId };
    const model = providerOf(session).responses(plan.model);
    const result = await generateText({ model, instructions: plan.system, prompt, maxRetries: 0, providerOptions: { openai } });
    previousResponseId = result.providerMetadata.openai.responseId;
    yield;
  }
}

await run([chat, responses, item_reference, without_storage, previous_response]);

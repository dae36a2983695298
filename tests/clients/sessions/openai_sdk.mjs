// openai-node: the main ways to name a conversation and its objects.

import assert from "node:assert/strict";
import { load, plan, run } from "./flow.mjs";

const { default: OpenAI, toFile } = await load("openai");
const { model, system } = plan;

const clientOf = (session) => new OpenAI({
  baseURL: `${plan.root}/v1`, apiKey: plan.api_key, maxRetries: 0, timeout: 60_000, defaultHeaders: session.headers,
});
const keyOf = (session) => (session.bodyKey ? { prompt_cache_key: session.bodyKey } : {});
const user = (content) => ({ role: "user", content });

async function ask(session, more) {
  const answer = await clientOf(session).responses.create({ model, instructions: system, ...keyOf(session), ...more });
  assert.ok(answer.output_text);
  return answer;
}

async function* previous_response(session) {
  const made = [];
  for (const question of session.questions) {
    made.push((await ask(session, { input: question, previous_response_id: made.at(-1) })).id);
    yield;
  }
  for (const id of made) assert.equal((await clientOf(session).responses.retrieve(id)).id, id);
}

async function* string_then_list(session) {
  const history = [];
  for (const [turn, question] of session.questions.entries()) {
    history.push(user(question));
    history.push(...(await ask(session, { input: turn ? history : question })).output);
    yield;
  }
}

async function* conversation(session) {
  const client = clientOf(session);
  const made = await client.conversations.create({});
  for (const question of session.questions) {
    await ask(session, { input: question, conversation: made.id });
    yield;
  }
  const items = [];
  for await (const item of client.conversations.items.list(made.id, { limit: 50 })) items.push(item);
  assert.equal(items.length, 2 * plan.turns);
  await client.conversations.delete(made.id);
}

// A file, a vector store with it, and both in one request.
async function* files(session) {
  const client = clientOf(session);
  const file = await client.files.create({ file: await toFile(Buffer.from(session.name), "log.txt"), purpose: "user_data" });
  const store = await client.vectorStores.create({ file_ids: [file.id] });
  const tools = [{ type: "file_search", vector_store_ids: [store.id] }];
  const history = [];
  for (const [turn, text] of session.questions.entries()) {
    const attached = turn ? [] : [{ type: "input_file", file_id: file.id }];
    history.push(user([...attached, { type: "input_text", text }]));
    history.push(...(await ask(session, { input: history, tools })).output);
    yield;
  }
  assert.equal(await (await client.files.content(file.id)).text(), session.name);
  await client.vectorStores.delete(store.id);
  await client.files.delete(file.id);
}

// Chat completions with the whole history; every second turn is streamed.
async function* chat(session) {
  const messages = [{ role: "system", content: system }];
  const { completions } = clientOf(session).chat;
  for (const [turn, question] of session.questions.entries()) {
    messages.push(user(question));
    const body = { model, messages, ...keyOf(session) };
    let content = "";
    if (turn % 2) {
      for await (const chunk of await completions.create({ ...body, stream: true, stream_options: { include_usage: true } })) {
        content += chunk.choices[0]?.delta.content ?? "";
      }
    } else {
      content = (await completions.create(body)).choices[0].message.content;
    }
    messages.push({ role: "assistant", content });
    yield;
  }
}

await run([previous_response, string_then_list, conversation, files, chat]);

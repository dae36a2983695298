// Tests openai-node through Steadfast. The argument is the name of a part. A failed assertion prints a stack trace.
// The environment variables are those of openai_python.py.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const OpenAI = createRequire(`${process.env.CLIENT_MODULES}/`)("openai");

const root = process.env.STEADFAST_URL;
const model = process.env.STEADFAST_MODEL;
const byAccount = Object.entries(JSON.parse(process.env.STEADFAST_KEYS));
const keys = byAccount.flatMap(([account, own]) => own.map((key) => [account, key]));
const settings = { apiKey: process.env.STEADFAST_API_KEY, maxRetries: 0, timeout: 30_000 };
const instructions = "You are a patient pilot who knows every rock of this coast. ".repeat(40);

const client = new OpenAI({ baseURL: `${root}/v1`, ...settings });

const session = (name) => ({ headers: { "x-test-session": name } });
// openai-node keeps the order of the fields, so the key comes first here.
const keyed = (key, more) => ({ prompt_cache_key: key, model, instructions, ...more });

function assertAnsweredBy(text, account) {
  assert.ok(text.startsWith(`${account} answers:`), `'${text}' is not from ${account}`);
}

async function assertRefused(kind, code, promise) {
  const error = await promise.then(() => assert.fail(`expected ${kind.name}`), (error) => error);
  assert.equal(error.constructor, kind, String(error));
  assert.equal(error.code, code);
  assert.ok(error.requestID, "every error carries x-request-id");
  return error;
}

const parts = {
  async create() {
    for (const [account, key] of keys) {
      const first = client.responses.create(keyed(key, { input: "Where are we?" }), session(key));
      const { data, response } = await first.withResponse();
      assertAnsweredBy(data.output_text, account);
      assert.equal(response.headers.get("x-steadfast-upstream"), account);
      const again = await client.responses.create(keyed(key, { input: "Where are we?" }), session(key));
      assert.ok(again.usage.input_tokens_details.cached_tokens > 500);
    }
    const [account, key] = keys[0];
    const late = { model, input: "log entry; ".repeat(45_000), prompt_cache_key: key };
    const short = new OpenAI({ baseURL: root, ...settings });
    assertAnsweredBy((await short.responses.create(late, session(key))).output_text, account);
  },

  // A text that was cut inside of an emoji stays in the history: JSON.stringify writes the escape of a lone surrogate.
  async cut_text() {
    for (const name of ["reef", "mole", "buoy", "shoal"]) {
      const cut = `What is at the ${name}? \u{1f6a2}`.slice(0, -1);
      const history = [];
      const accounts = new Set();
      for (const turn of [0, 1, 2]) {
        history.push({ role: "user", content: turn === 1 ? `${cut} Again` : cut });
        const body = { model, instructions, input: history };
        assert.match(JSON.stringify(body), /\\ud83d/);
        const { data, response } = await client.responses.create(body, session(name)).withResponse();
        accounts.add(response.headers.get("x-steadfast-upstream"));
        history.push(...data.output);
      }
      assert.equal(accounts.size, 1);
      const messages = [{ role: "system", content: cut }, { role: "user", content: cut }];
      assert.ok((await client.chat.completions.create({ model, messages }, session(`${name}-chat`))).choices[0].message.content);
    }
  },

  // All sessions run concurrently with three turns each, and replay their encrypted reasoning.
  async stream() {
    await Promise.all(keys.map(async ([account, key]) => {
      const history = [];
      for (const turn of [0, 1, 2]) {
        history.push({ role: "user", content: `Turn ${turn} of ${key}` });
        const body = keyed(key, { input: history, store: false, include: ["reasoning.encrypted_content"], stream: true });
        const events = [];
        for await (const event of await client.responses.create(body, session(key))) events.push(event);
        assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, index) => index));
        assert.equal(events.at(-1).type, "response.completed");
        const deltas = events.filter((event) => event.type === "response.output_text.delta");
        assertAnsweredBy(deltas.map((event) => event.delta).join(""), account);
        history.push(...events.at(-1).response.output);
      }
    }));
  },

  async compact() {
    for (const [account, key] of keys) {
      const input = [{ role: "user", content: "Remember the anchor." }, { role: "assistant", content: "Aye." }];
      const compacted = await client.responses.compact(keyed(key, { input }), session(key));
      assert.equal(compacted.object, "response.compaction");
      assert.equal(compacted.output.at(-1).type, "compaction");
      const next = [...compacted.output, { role: "user", content: "What was it?" }];
      assertAnsweredBy((await client.responses.create(keyed(key, { input: next }), session(key))).output_text, account);
    }
  },

  async models() {
    const listed = [];
    for await (const one of client.models.list()) listed.push(one.id);
    assert.ok(listed.includes(model) && new Set(listed).size === listed.length, String(listed));
    assert.equal((await client.models.retrieve(model)).id, model);
  },

  async follow_up() {
    for (const [account, key] of keys) {
      const first = await client.responses.create(keyed(key, { input: "One." }), session(key));
      const more = { model, input: "Two.", previous_response_id: first.id };
      const second = await client.responses.create(more, session(key));
      assertAnsweredBy(second.output_text, account);
      const third = client.responses.stream({ ...more, previous_response_id: second.id }, session(key));
      assertAnsweredBy((await third.finalResponse()).output_text, account);
    }
  },

  async stored() {
    for (const [account, key] of keys) {
      const made = await client.responses.create(keyed(key, { input: "Keep this." }), session(key));
      assertAnsweredBy((await client.responses.retrieve(made.id, {}, session(key))).output_text, account);
      const items = await client.responses.inputItems.list(made.id, {}, session(key));
      assert.equal(items.data[0].content[0].text, "Keep this.");
      assert.equal((await client.responses.cancel(made.id, session(key))).id, made.id);
      await client.responses.delete(made.id, session(key));
      await assertRefused(OpenAI.NotFoundError, null, client.responses.retrieve(made.id, {}, session(key)));
    }
  },

  async chat() {
    for (const [account, key] of keys) {
      const body = { model, messages: [{ role: "user", content: "Ahoy?" }], prompt_cache_key: key };
      assertAnsweredBy((await client.chat.completions.create(body, session(key))).choices[0].message.content, account);
      let text = "";
      for await (const chunk of await client.chat.completions.create({ ...body, stream: true }, session(key))) {
        text += chunk.choices[0]?.delta.content ?? "";
      }
      assertAnsweredBy(text, account);
    }
  },

  async errors() {
    const wrongPath = new OpenAI({ baseURL: `${root}/v2`, ...settings });
    const error = await assertRefused(OpenAI.NotFoundError, "unknown_path", wrongPath.responses.create({ model, input: "Hello" }));
    assert.match(error.message, /\/v2\/responses.*\/v1\/responses/);
    const foreign = client.responses.create({ model, input: "Hello", previous_response_id: "resp_absent" });
    await assertRefused(OpenAI.BadRequestError, "previous_response_not_found", foreign);
  },

  // A gateway with client keys: each refusal is a typed error of the SDK with the gateway's message.
  async access() {
    const given = Object.fromEntries(byAccount.map(([name, [key]]) => [name, key]));
    const caller = (name) => new OpenAI({ baseURL: `${root}/v1`, ...settings, apiKey: given[name] ?? name });
    const ask = (name, more) => caller(name).responses.create({ model, input: "Hello", ...more });
    const made = await ask("good");
    for (const [name, words] of [["sk-steadfast-unknown", /Incorrect/], ["old", /expired/], ["off", /disabled/]]) {
      assert.match((await assertRefused(OpenAI.AuthenticationError, "invalid_api_key", ask(name))).message, words);
    }
    const forbidden = await assertRefused(OpenAI.PermissionDeniedError, "model_not_allowed", ask("narrow"));
    assert.match(forbidden.message, /gpt-4\*/);
    await assertRefused(OpenAI.NotFoundError, "model_not_found", caller("narrow").models.retrieve(model));
    await assertRefused(OpenAI.NotFoundError, "response_not_found", caller("other").responses.retrieve(made.id));
    const foreign = ask("other", { previous_response_id: made.id });
    await assertRefused(OpenAI.BadRequestError, "previous_response_not_found", foreign);
    assert.ok((await ask("spent")).output_text);
    const limited = await assertRefused(OpenAI.RateLimitError, "rate_limit_exceeded", ask("spent"));
    assert.match(limited.message, /1 requests per minute/);
    assert.equal(limited.headers.get("x-ratelimit-remaining-requests"), "0");
    assert.ok(Number(limited.headers.get("retry-after")) >= 50);
  },
};

await parts[process.argv[2]]();

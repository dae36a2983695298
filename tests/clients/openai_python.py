"""Tests openai-python through Steadfast. The argument is the name of a part. A failed assertion prints a traceback.

The keys in STEADFAST_KEYS are grouped by the account that `steadfast route` names for them. The header x-test-session tells
the taps behind Steadfast to which session a request belongs, with or without a session key.
"""

import asyncio
import http.client
import json
import os
import sys
from urllib.parse import urlsplit

import openai
from openai import AsyncOpenAI, OpenAI

ROOT = os.environ["STEADFAST_URL"]
MODEL = os.environ["STEADFAST_MODEL"]
KEYS = json.loads(os.environ["STEADFAST_KEYS"])
SETTINGS = {"api_key": os.environ["STEADFAST_API_KEY"], "max_retries": 0, "timeout": 30}
INSTRUCTIONS = "You are a patient pilot who knows every rock of this coast. " * 40

client = OpenAI(base_url=f"{ROOT}/v1", **SETTINGS)


def session(name):
    return {"x-test-session": name}


def every_key():
    return [(account, key) for account, keys in KEYS.items() for key in keys]


def keyed(key, **more):
    return {"model": MODEL, "instructions": INSTRUCTIONS, "prompt_cache_key": key, "extra_headers": session(key), **more}


def assert_answered_by(text, account):
    assert text.startswith(f"{account} answers:"), f"{text!r} is not from {account}"


def user(text):
    return {"role": "user", "content": text}


def create():
    for account, key in every_key():
        raw = client.responses.with_raw_response.create(**keyed(key, input="Where are we?"))
        assert_answered_by(raw.parse().output_text, account)
        assert raw.headers["x-steadfast-upstream"] == account and raw.headers["x-request-id"]
        assert raw.headers["openai-model"] == MODEL, "an upstream's headers reach the client"
        assert "authorization" not in raw.headers
        again = client.responses.create(**keyed(key, input="Where are we?"))
        assert again.usage.input_tokens_details.cached_tokens > 500, again.usage
    # The key comes after half a megabyte of input, and the base URL has no /v1.
    account, key = every_key()[0]
    short = OpenAI(base_url=ROOT, **SETTINGS)
    assert_answered_by(short.responses.create(**keyed(key, input="log entry; " * 45_000)).output_text, account)


def stream():
    for account, key in every_key():
        events = list(client.responses.create(stream=True, **keyed(key, input="Tell a story.")))
        assert [event.sequence_number for event in events] == list(range(len(events))), "events were lost or reordered"
        assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        assert_answered_by(text, account)
        assert text == events[-1].response.output_text
        with client.responses.stream(**keyed(key, input="Another one.")) as helper:
            for event in helper:
                pass
            final = helper.get_final_response()
        assert_answered_by(final.output_text, account)
        assert final.usage.input_tokens_details.cached_tokens > 500


def together():
    """All sessions run concurrently over one client, with three turns each, streamed or not, and replay encrypted reasoning."""

    async def conversation(client, account, key):
        history = []
        for turn in range(3):
            history.append(user(f"Turn {turn} of {key}"))
            more = {"store": False, "include": ["reasoning.encrypted_content"], "input": history}
            if turn % 2:
                async with client.responses.stream(**keyed(key, **more)) as helper:
                    answer = await helper.get_final_response()
            else:
                answer = await client.responses.create(**keyed(key, **more))
            assert_answered_by(answer.output_text, account)
            history += [item.model_dump(exclude_none=True, exclude={"parsed"}) for item in answer.output]

    async def main():
        async with AsyncOpenAI(base_url=f"{ROOT}/v1", **SETTINGS) as client:
            await asyncio.gather(*(conversation(client, *pair) for pair in every_key()))

    asyncio.run(main())


def keyless():
    """Without a key a conversation is recognized by its beginning, short or long."""
    openings = ["Hello number {}", "A long beginning {}. " + "It was a dark and stormy night. " * 300]
    for number, opening in enumerate(openings * 3):
        name = f"keyless-{number}"
        history, accounts = [], set()
        for turn in range(3):
            history.append(user(opening.format(number) if turn == 0 else f"And then, {turn}?"))
            answer = client.responses.create(
                model=MODEL, input=history, store=False, include=["reasoning.encrypted_content"], extra_headers=session(name)
            )
            accounts.add(answer.output_text.split(" answers:")[0])
            history += [item.model_dump(exclude_none=True) for item in answer.output]
        assert len(accounts) == 1, f"{name} was answered by {accounts}"


def compact():
    for account, key in every_key():
        history = [user("Remember the anchor."), {"role": "assistant", "content": "Aye."}, user("And the chain.")]
        assert_answered_by(client.responses.create(**keyed(key, input=history)).output_text, account)
        compacted = client.responses.compact(**keyed(key, input=history))
        assert compacted.object == "response.compaction" and compacted.usage.input_tokens > 0
        assert compacted.output[-1].type == "compaction" and account in compacted.output[-1].encrypted_content
        carried = [item.model_dump(exclude_none=True) for item in compacted.output]
        assert_answered_by(client.responses.create(**keyed(key, input=carried + [user("What was it?")])).output_text, account)
    # Without a key a compaction is routed to the account of its conversation by the encrypted reasoning that it contains.
    for number in range(4):
        history = [user(f"Voyage {number} begins.")]
        common = {"model": MODEL, "instructions": INSTRUCTIONS, "extra_headers": session(f"keyless-compaction-{number}")}
        answer = client.responses.create(input=history, store=False, include=["reasoning.encrypted_content"], **common)
        history += [item.model_dump(exclude_none=True) for item in answer.output]
        assert client.responses.compact(input=history, **common).output[-1].type == "compaction"


def models():
    listed = [model.id for model in client.models.list()]
    assert MODEL in listed and len(listed) == len(set(listed)), listed
    assert client.models.retrieve(MODEL).id == MODEL
    assert_refused(openai.NotFoundError, "model_not_found", lambda: client.models.retrieve("gpt-none"))


def follow_up():
    """`previous_response_id` routes to its account, with or without a session key."""
    for account, key in every_key():
        first = client.responses.create(**keyed(key, input="One."))
        second = client.responses.create(**keyed(key, input="Two.", previous_response_id=first.id))
        more = {"model": MODEL, "input": "Three.", "extra_headers": session(key)}
        third = client.responses.create(previous_response_id=second.id, **more)
        assert_answered_by(third.output_text, account)
        assert third.usage.input_tokens_details.cached_tokens > 500, "the previous turns were cached"
        with client.responses.stream(previous_response_id=third.id, **more) as helper:
            assert_answered_by(helper.get_final_response().output_text, account)


def stored():
    """Requests that name a response in their path reach the account that made it, also if it was streamed."""
    for account, key in every_key():
        headers = session(key)
        streamed = list(client.responses.create(stream=True, **keyed(key, input="Keep this.")))[-1].response
        for made in (client.responses.create(**keyed(key, input="And this.")), streamed):
            found = client.responses.retrieve(made.id, extra_headers=headers)
            assert found.id == made.id
            assert_answered_by(found.output_text, account)
            items = list(client.responses.input_items.list(made.id, extra_headers=headers))
            assert items[0].content[0].text in ("Keep this.", "And this."), items
            assert client.responses.cancel(made.id, extra_headers=headers).id == made.id
            client.responses.delete(made.id, extra_headers=headers)
            gone = lambda: client.responses.retrieve(made.id, extra_headers=headers)
            assert made.id in str(assert_refused(openai.NotFoundError, None, gone))


def chat():
    for account, key in every_key():
        messages = [{"role": "system", "content": INSTRUCTIONS}, user("Ahoy?")]
        common = {"model": MODEL, "messages": messages, "prompt_cache_key": key, "extra_headers": session(key)}
        assert_answered_by(client.chat.completions.create(**common).choices[0].message.content, account)
        chunks = list(client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **common))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert_answered_by(text, account)
        assert chunks[-1].usage.prompt_tokens_details.cached_tokens > 500
    assert client.chat.completions.create(model=MODEL, messages=[user("Who?")]).choices[0].message.content


def embeddings():
    made = client.embeddings.create(model="text-embedding-3-small", input=["one", "two", "one"])
    assert [one.index for one in made.data] == [0, 1, 2] and len(made.data[0].embedding) == 16
    assert made.data[0].embedding == made.data[2].embedding != made.data[1].embedding


def assert_refused(kind, code, call):
    """Returns the error of the type `kind` that `call` raises."""
    try:
        answer = call()
    except kind as error:
        assert type(error) is kind and error.code == code, (type(error), error.code, error.body)
        assert error.request_id, "every error carries x-request-id"
        return error
    raise AssertionError(f"expected {kind.__name__}, not {answer}")


def errors():
    """Errors of Steadfast have the shape of OpenAI's errors and say what to do. Errors of an account pass unchanged."""
    wrong_path = OpenAI(base_url=f"{ROOT}/v2", **SETTINGS)
    error = assert_refused(openai.NotFoundError, "unknown_path", lambda: wrong_path.responses.create(model=MODEL, input="Hello"))
    assert "/v2/responses" in str(error) and "/v1/responses" in error.body["message"].replace("/v2/responses", ""), error
    assert error.type == "invalid_request_error"

    unknown = lambda: client.responses.create(model=MODEL, input="Hello", previous_response_id="resp_none")
    error = assert_refused(openai.BadRequestError, "previous_response_not_found", unknown)
    assert error.body["message"] == "Previous response with id 'resp_none' not found." and error.param == "previous_response_id"
    missing = lambda: client.responses.create(model=MODEL)
    assert assert_refused(openai.BadRequestError, "missing_required_parameter", missing).param == "input"

    account, key = every_key()[0]
    twice = f'{{"model":"{MODEL}","prompt_cache_key":"{key}","input":"Hello","prompt_cache_key":"other"}}'
    status, body = raw(twice)
    assert (status, body["error"]["code"]) == (400, "ambiguous_body"), body
    message = body["error"]["message"]
    assert "prompt_cache_key" in message and str(twice.rindex('"prompt_cache_key"')) in message, message
    status, body = raw('{"model":"x","input":')
    assert (status, body["error"]["code"]) == (400, "invalid_json"), body


def access():
    """A gateway with client keys: each refusal is a typed error of the SDK with the gateway's message."""
    caller = lambda name: OpenAI(base_url=f"{ROOT}/v1", **{**SETTINGS, "api_key": KEYS[name][0] if name in KEYS else name})
    ask = lambda name, **more: (lambda: caller(name).responses.create(**{"model": MODEL, "input": "Hello", **more}))

    made = ask("good")()
    assert made.output_text
    listed = [model.id for model in caller("good").models.list()]
    assert MODEL in listed
    for name, code, words in [
        ("sk-steadfast-unknown", "invalid_api_key", "Incorrect API key provided"),
        ("old", "invalid_api_key", "has expired"),
        ("off", "invalid_api_key", "is disabled"),
    ]:
        error = assert_refused(openai.AuthenticationError, code, ask(name))
        assert words in error.body["message"] and error.type == "authentication_error", error.body
    error = assert_refused(openai.PermissionDeniedError, "model_not_allowed", ask("narrow"))
    assert MODEL in error.body["message"] and "gpt-4*" in error.body["message"] and error.param == "model", error.body
    for name, model in [("good", "gpt-none"), ("narrow", MODEL)]:
        assert_refused(openai.NotFoundError, "model_not_found", lambda: caller(name).models.retrieve(model))
    assert_refused(openai.NotFoundError, "response_not_found", lambda: caller("other").responses.retrieve(made.id))
    foreign = ask("other", previous_response_id=made.id)
    assert assert_refused(openai.BadRequestError, "previous_response_not_found", foreign).param == "previous_response_id"
    assert caller("good").responses.retrieve(made.id).id == made.id
    assert_refused(openai.PermissionDeniedError, "path_not_allowed", lambda: caller("good").files.list())
    assert assert_refused(openai.NotFoundError, "unknown_path", lambda: OpenAI(base_url=f"{ROOT}/v2", **SETTINGS).models.list())

    first = caller("tight").responses.with_raw_response.create(model=MODEL, input="Hello")
    assert first.headers["x-ratelimit-remaining-requests"] == "0" and first.headers["x-ratelimit-limit-requests"] == "1"
    error = assert_refused(openai.RateLimitError, "rate_limit_exceeded", ask("tight"))
    assert "1 requests per minute" in error.body["message"] and error.type == "requests", error.body
    assert 50 <= int(error.response.headers["retry-after"]) <= 60, error.response.headers


def raw(text):
    """Posts a body that no client library would send."""
    connection = http.client.HTTPConnection(urlsplit(ROOT).netloc, timeout=30)
    connection.request("POST", "/v1/responses", text.encode(), {"content-type": "application/json"})
    response = connection.getresponse()
    return response.status, json.loads(response.read())


if __name__ == "__main__":
    {part.__name__: part for part in (
        create, stream, together, keyless, compact, models, follow_up, stored, chat, embeddings, errors, access
    )}[sys.argv[1]]()

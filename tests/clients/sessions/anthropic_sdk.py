"""The Anthropic SDK: `/v1/messages`."""

import base64

import flow
from anthropic import Anthropic
from flow import MODEL, PLAN, ROOT, SYSTEM

shared = Anthropic(base_url=ROOT, api_key=PLAN["api_key"], max_retries=0, timeout=60)


def client_of(session):
    return shared.with_options(default_headers=session.headers)


def body_of(session):
    return {"metadata": {"user_id": session.key}} if session.kind == "body" else {}


def converse(session, system, first):
    """A conversation with its whole history; every second turn is streamed. `first` makes the first user message."""
    messages, client = [], client_of(session)
    for turn, question in enumerate(session.questions()):
        messages.append({"role": "user", "content": question if turn else first(question)})
        asked = {"model": MODEL, "max_tokens": 1000, "system": system, "messages": messages, **body_of(session)}
        if turn % 2:
            with client.messages.stream(**asked) as stream:
                answer = stream.get_final_message()
        else:
            answer = client.messages.create(**asked)
        assert answer.content[0].text, answer
        messages.append({"role": "assistant", "content": answer.content})
        yield turn


def text(session):
    return converse(session, SYSTEM, lambda question: question)


def cached_blocks(session):
    """The system prompt and the newest user message are marked for the cache, so the mark moves from turn to turn."""
    marked = lambda text: {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
    messages, client = [], client_of(session)
    for turn, question in enumerate(session.questions()):
        asked = {"model": MODEL, "max_tokens": 1000, "system": [marked(SYSTEM)], **body_of(session)}
        answer = client.messages.create(messages=[*messages, {"role": "user", "content": [marked(question)]}], **asked)
        messages.append({"role": "user", "content": [{"type": "text", "text": question}]})
        messages.append({"role": "assistant", "content": answer.content})
        yield turn


def image(session):
    """The first message has an image."""
    data = base64.b64encode(session.name.encode() * 100).decode()
    source = {"type": "base64", "media_type": "image/png", "data": data}
    return converse(session, SYSTEM, lambda text: [{"type": "image", "source": source}, {"type": "text", "text": text}])


if __name__ == "__main__":
    flow.run([text, cached_blocks, image])

"""openai-python: every way to name a conversation and its objects."""

import json
import time

import flow
from flow import MODEL, SETTINGS, SYSTEM
from openai import OpenAI

shared = OpenAI(**SETTINGS)


def client_of(session):
    return shared.with_options(default_headers=session.headers)


def user(content):
    return {"role": "user", "content": content}


def ask(session, **more):
    """Asks for a response, and checks that it is complete."""
    answer = client_of(session).responses.create(model=MODEL, instructions=SYSTEM, **session.body, **more)
    assert answer.output_text, answer
    return answer


def replayed(answer):
    return [item.model_dump(exclude_none=True) for item in answer.output]


def wait_until(found, status):
    """Asks again until the object has this status."""
    for _ in range(100):
        if (made := found()).status == status:
            return made
        time.sleep(0.05)
    raise AssertionError(f"it did not become {status}: {made}")


def previous_response(session):
    """`previous_response_id`; every second turn is streamed, and the responses are found later."""
    made = []
    for turn, question in enumerate(session.questions()):
        previous = {"previous_response_id": made[-1].id} if made else {}
        if turn % 2:
            helper = client_of(session).responses.stream(
                model=MODEL, instructions=SYSTEM, input=question, **previous, **session.body
            )
            with helper as events:
                made.append(events.get_final_response())
        else:
            made.append(ask(session, input=question, **previous))
        yield turn
    client = client_of(session)
    for response in made:
        assert client.responses.retrieve(response.id).id == response.id
        assert list(client.responses.input_items.list(response.id))
        client.responses.delete(response.id)


def string_then_list(session):
    """The first input is a string, the later ones are lists with the whole history."""
    history = []
    for turn, question in enumerate(session.questions()):
        history.append(user(question))
        answer = ask(session, input=history if turn else question)
        history += replayed(answer)
        yield turn


def without_storage(session):
    """The history is a list, nothing is stored, and encrypted reasoning is sent back."""
    history = []
    for turn, question in enumerate(session.questions()):
        history.append(user([{"type": "input_text", "text": question}]))
        answer = ask(session, input=history, store=False, include=["reasoning.encrypted_content"])
        assert answer.output[0].encrypted_content
        history += replayed(answer)
        yield turn


def item_reference(session):
    """The history names the answers by the ids of their items."""
    history = []
    for turn, question in enumerate(session.questions()):
        history.append(user(question))
        answer = ask(session, input=history)
        history += [{"type": "item_reference", "id": item.id} for item in answer.output]
        yield turn


def conversation(session):
    """A conversation object keeps the history."""
    client = client_of(session)
    made = client.conversations.create(metadata={"topic": session.name})
    for turn, question in enumerate(session.questions()):
        ask(session, input=question, conversation=made.id)
        yield turn
    assert client.conversations.retrieve(made.id).metadata["topic"] == session.name
    items = list(client.conversations.items.list(made.id, order="asc", limit=50))
    assert len(items) == 2 * flow.TURNS, items
    assert client.conversations.items.retrieve(items[1].id, conversation_id=made.id).id == items[1].id
    assert client.conversations.delete(made.id).deleted


def input_file(session):
    """The first message names an uploaded file."""
    client = client_of(session)
    text = f"The log of {session.name}. ".encode() * 20
    file = client.files.create(file=("log.txt", text), purpose="user_data")
    history = []
    for turn, question in enumerate(session.questions()):
        attached = [] if turn else [{"type": "input_file", "file_id": file.id}]
        history.append(user([*attached, {"type": "input_text", "text": question}]))
        answer = ask(session, input=history)
        history += replayed(answer)
        yield turn
    assert client.files.retrieve(file.id).bytes == len(text)
    assert client.files.content(file.id).read() == text
    assert client.files.delete(file.id).deleted


def file_search(session):
    """A vector store of an uploaded file is searched in each turn."""
    client = client_of(session)
    file = client.files.create(file=("chart.txt", f"The chart of {session.name}.".encode()), purpose="assistants")
    store = client.vector_stores.create(name=session.name, file_ids=[file.id])
    wait_until(lambda: client.vector_stores.retrieve(store.id), "completed")
    assert [held.id for held in client.vector_stores.files.list(store.id)] == [file.id]
    tools = [{"type": "file_search", "vector_store_ids": [store.id]}]
    previous = {}
    for turn, question in enumerate(session.questions()):
        answer = ask(session, input=question, tools=tools, **previous)
        previous = {"previous_response_id": answer.id}
        yield turn
    assert client.vector_stores.delete(store.id).deleted
    assert client.files.delete(file.id).deleted


def batch(session):
    """A batch of an uploaded file; its results are read from the file that it names."""
    client = client_of(session)
    asked = {"model": MODEL, "messages": [user(session.questions()[0])]}
    line = {"custom_id": session.name, "method": "POST", "url": "/v1/chat/completions", "body": asked}
    file = client.files.create(file=("asked.jsonl", json.dumps(line).encode()), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    for turn in range(flow.TURNS):
        assert client.batches.retrieve(made.id).input_file_id == file.id
        yield turn
    done = wait_until(lambda: client.batches.retrieve(made.id), "completed")
    results = [json.loads(result) for result in client.files.content(done.output_file_id).text.splitlines()]
    assert [result["custom_id"] for result in results] == [session.name], results


def background(session):
    """Responses are made in the background, polled, and continued."""
    client = client_of(session)
    previous = {}
    for turn, question in enumerate(session.questions()):
        made = client.responses.create(
            model=MODEL, instructions=SYSTEM, input=question, background=True, **previous, **session.body
        )
        wait_until(lambda: client.responses.retrieve(made.id), "completed")
        previous = {"previous_response_id": made.id}
        yield turn


def chat(session):
    """Chat completions with the whole history; every second turn is streamed."""
    messages = [{"role": "system", "content": SYSTEM}]
    for turn, question in enumerate(session.questions()):
        messages.append(user(question))
        messages.append({"role": "assistant", "content": completed(session, messages, is_stream=turn % 2)})
        yield turn


def completed(session, messages, is_stream):
    """Returns the text of a chat completion."""
    asked = {"model": MODEL, "messages": messages, **session.body}
    create = client_of(session).chat.completions.create
    if not is_stream:
        return create(**asked).choices[0].message.content
    chunks = list(create(stream=True, stream_options={"include_usage": True}, **asked))
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def stored_chat(session):
    """Chat completions are stored, and found by their ids in a later turn."""
    client = client_of(session)
    messages, made = [{"role": "developer", "content": SYSTEM}], []
    for turn, question in enumerate(session.questions()):
        messages.append(user(question))
        answer = client.chat.completions.create(model=MODEL, messages=messages, store=True, **session.body)
        messages.append({"role": "assistant", "content": answer.choices[0].message.content})
        made.append(answer.id)
        assert client.chat.completions.retrieve(made[0]).id == made[0]
        yield turn
    for id in made:
        assert list(client.chat.completions.messages.list(id))
        assert client.chat.completions.update(id, metadata={"topic": "water"}).metadata == {"topic": "water"}
        assert client.chat.completions.delete(id).deleted


if __name__ == "__main__":
    flow.run([
        previous_response, string_then_list, without_storage, item_reference, conversation, input_file, file_search, batch,
        background, chat, stored_chat,
    ])

"""openai-python: objects that an account keeps, and turns that name them."""

import json

from flow import MODEL, SYSTEM, TURNS
from openai_common import ask, client_of, replayed, user, wait_until


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
    for turn in range(TURNS):
        assert client.batches.retrieve(made.id).input_file_id == file.id
        yield turn
    done = wait_until(lambda: client.batches.retrieve(made.id), "completed")
    results = [json.loads(result) for result in client.files.content(done.output_file_id).text.splitlines()]
    assert [result["custom_id"] for result in results] == [session.name], results


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


def container(session):
    """Code runs in a container that the session made."""
    client = client_of(session)
    made = client.containers.create(name=session.name)
    tools = [{"type": "code_interpreter", "container": made.id}]
    history = []
    for turn, question in enumerate(session.questions()):
        history.append(user(question))
        answer = ask(session, input=history, tools=tools)
        history += replayed(answer)
        assert client.containers.retrieve(made.id).name == session.name
        yield turn
    client.containers.delete(made.id)


def upload(session):
    """A file is uploaded in parts, and then named by the first message."""
    client = client_of(session)
    parts = [f"Part {number} of {session.name}. ".encode() for number in range(2)]
    made = client.uploads.create(
        bytes=sum(map(len, parts)), filename="log.txt", mime_type="text/plain", purpose="user_data"
    )
    ids = [client.uploads.parts.create(made.id, data=part).id for part in parts]
    file = client.uploads.complete(made.id, part_ids=ids).file
    history = []
    for turn, question in enumerate(session.questions()):
        attached = [] if turn else [{"type": "input_file", "file_id": file.id}]
        history.append(user([*attached, {"type": "input_text", "text": question}]))
        answer = ask(session, input=history)
        history += replayed(answer)
        yield turn
    assert client.files.content(file.id).read() == b"".join(parts)


def fine_tuning(session):
    """A job that is trained with an uploaded file."""
    client = client_of(session)
    line = {"messages": [user(session.name), {"role": "assistant", "content": "Aye."}]}
    file = client.files.create(file=("train.jsonl", json.dumps(line).encode()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(model="gpt-4.1", training_file=file.id)
    for turn in range(TURNS):
        assert client.fine_tuning.jobs.retrieve(job.id).training_file == file.id
        yield turn
    list(client.fine_tuning.jobs.list_events(job.id))


def evaluation(session):
    """An evaluation and its run."""
    client = client_of(session)
    schema = {"type": "object", "properties": {"answer": {"type": "string"}}}
    check = {"type": "string_check", "name": "same", "input": "{{item.answer}}", "reference": "Aye", "operation": "eq"}
    made = client.evals.create(
        name=session.name, data_source_config={"type": "custom", "item_schema": schema}, testing_criteria=[check]
    )
    content = [{"item": {"answer": "Aye"}}]
    source = {"type": "jsonl", "source": {"type": "file_content", "content": content}}
    run = client.evals.runs.create(made.id, name="first", data_source=source)
    for turn in range(TURNS):
        assert client.evals.retrieve(made.id).name == session.name
        assert client.evals.runs.retrieve(run.id, eval_id=made.id).id == run.id
        yield turn
    client.evals.delete(made.id)


FLOWS = [input_file, file_search, batch, stored_chat, container, upload, fine_tuning, evaluation]

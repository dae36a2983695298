"""openai-python: the ways to name the conversation of a turn."""

from flow import MODEL, SYSTEM, TURNS
from openai_common import ask, client_of, replayed, user, wait_until


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
    assert len(items) == 2 * TURNS, items
    assert client.conversations.items.retrieve(items[1].id, conversation_id=made.id).id == items[1].id
    assert client.conversations.delete(made.id).deleted


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


def compared(session):
    """Each turn asks the account to compare its cache with the response before."""
    history, before = [], {}
    for turn, question in enumerate(session.questions()):
        history.append(user(question))
        answer = ask(session, input=history, **before)
        before = {"prompt_cache_options": {"comparison_response_id": answer.id}}
        history += replayed(answer)
        yield turn


FLOWS = [
    previous_response, string_then_list, without_storage, item_reference, conversation, background, chat, compared,
]

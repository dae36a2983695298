"""LangChain: `ChatOpenAI` on chat completions and on Responses."""

import flow
from flow import MODEL, SETTINGS, SYSTEM
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI


def model_of(session, **more):
    return ChatOpenAI(model=MODEL, default_headers=session.headers, stream_usage=True, **SETTINGS, **more)


def converse(session, model):
    """A conversation with its whole history; every second turn is streamed."""
    messages = [SystemMessage(SYSTEM)]
    for turn, question in enumerate(session.questions()):
        messages.append(HumanMessage(question))
        if turn % 2:
            pieces = list(model.stream(messages, **session.body))
            answer = sum(pieces[1:], pieces[0])
        else:
            answer = model.invoke(messages, **session.body)
        assert answer.text, answer
        messages.append(answer)
        yield turn


def chat(session):
    return converse(session, model_of(session))


def responses(session):
    """The history with the ids of its items."""
    return converse(session, model_of(session, use_responses_api=True))


def previous_response(session):
    """Only the new message, with `previous_response_id`."""
    return converse(session, model_of(session, use_previous_response_id=True))


def reasoning(session):
    """Nothing is stored, and encrypted reasoning is sent back."""
    return converse(session, model_of(session, use_responses_api=True, store=False, include=["reasoning.encrypted_content"]))


if __name__ == "__main__":
    flow.run([chat, responses, previous_response, reasoning])

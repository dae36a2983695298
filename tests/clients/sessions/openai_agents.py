"""openai-agents: an agent per session, on Responses or chat completions, that remembers in a session or at the account."""

import asyncio

import flow
from agents import (
    Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIConversationsSession, OpenAIResponsesModel, Runner, SQLiteSession,
    set_tracing_disabled,
)
from flow import MODEL, SETTINGS, SYSTEM, TURNS
from openai import AsyncOpenAI

set_tracing_disabled(True)
shared = AsyncOpenAI(**SETTINGS)


def client_of(session):
    return shared.with_options(default_headers=session.headers)


def agent_of(session, model=OpenAIResponsesModel):
    settings = ModelSettings(extra_args=session.body or None, include_usage=True)
    return Agent(name="Pilot", instructions=SYSTEM, model=model(MODEL, client_of(session)), model_settings=settings)


async def answer(agent, question, is_stream=False, **memory):
    """Runs one turn of the agent."""
    if is_stream:
        result = Runner.run_streamed(agent, question, **memory)
        async for _ in result.stream_events():
            pass
    else:
        result = await Runner.run(agent, question, **memory)
    assert result.final_output
    return result


async def responses_sqlite(session):
    """Responses with a `SQLiteSession`, which replays the items."""
    memory = SQLiteSession(session.name)
    for turn, question in enumerate(session.questions()):
        await answer(agent_of(session), question, is_stream=turn % 2, session=memory)
        yield turn
    memory.close()


async def chat_sqlite(session):
    """Chat completions with a `SQLiteSession`."""
    memory = SQLiteSession(session.name)
    for turn, question in enumerate(session.questions()):
        await answer(agent_of(session, OpenAIChatCompletionsModel), question, is_stream=turn % 2, session=memory)
        yield turn
    memory.close()


async def conversations_session(session):
    """Responses with an `OpenAIConversationsSession`, which keeps the items in a conversation at the account."""
    memory = OpenAIConversationsSession(openai_client=client_of(session))
    for turn, question in enumerate(session.questions()):
        await answer(agent_of(session), question, session=memory)
        yield turn
    assert len(await memory.get_items()) == 2 * TURNS
    await memory.clear_session()


async def conversation_id(session):
    """The account appends to a conversation that the agent names."""
    made = await client_of(session).conversations.create()
    for turn, question in enumerate(session.questions()):
        await answer(agent_of(session), question, conversation_id=made.id)
        yield turn


async def previous_response(session):
    """`previous_response_id` of the turn before."""
    previous = None
    for turn, question in enumerate(session.questions()):
        previous = (await answer(agent_of(session), question, previous_response_id=previous)).last_response_id
        yield turn


if __name__ == "__main__":
    asyncio.run(
        flow.run_async([responses_sqlite, chat_sqlite, conversations_session, conversation_id, previous_response])
    )

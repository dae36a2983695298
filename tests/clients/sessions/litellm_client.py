"""LiteLLM as a client library."""

import flow
import litellm
from flow import MODEL, PLAN, ROOT, SYSTEM

litellm.telemetry = False
litellm.suppress_debug_info = True


def common(session):
    return {
        "model": f"openai/{MODEL}",
        "api_base": f"{ROOT}/v1",
        "api_key": PLAN["api_key"],
        "extra_headers": session.headers,
        "max_retries": 0,
        "timeout": 60,
        **session.body,
    }


def chat(session):
    """`litellm.completion`; every second turn is streamed."""
    messages = [{"role": "system", "content": SYSTEM}]
    for turn, question in enumerate(session.questions()):
        messages.append({"role": "user", "content": question})
        if turn % 2:
            chunks = list(
                litellm.completion(messages=messages, stream=True, stream_options={"include_usage": True}, **common(session))
            )
            answer = litellm.stream_chunk_builder(chunks, messages=messages)
        else:
            answer = litellm.completion(messages=messages, **common(session))
        assert answer.choices[0].message.content
        messages.append(answer.choices[0].message.model_dump(include={"role", "content"}))
        yield turn


def responses(session):
    """`litellm.responses` with the whole history."""
    history = []
    for turn, question in enumerate(session.questions()):
        history.append({"role": "user", "content": question})
        answer = litellm.responses(input=history, instructions=SYSTEM, **common(session))
        history += [item.model_dump(exclude_none=True) for item in answer.output]
        yield turn


def previous_response(session):
    """`litellm.responses` with `previous_response_id`."""
    previous = {}
    for turn, question in enumerate(session.questions()):
        answer = litellm.responses(input=question, instructions=SYSTEM, **previous, **common(session))
        previous = {"previous_response_id": answer.id}
        yield turn


if __name__ == "__main__":
    flow.run([chat, responses, previous_response])

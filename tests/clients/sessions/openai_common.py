"""What all flows of openai-python share."""

import time

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

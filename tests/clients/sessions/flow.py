"""Runs the flows of a Python client: several sessions of several turns, all side by side.

A flow is a generator function of one session. Each `yield` ends a turn. What follows the last `yield` puts the session's
objects away. The plan of the run comes as JSON in the environment variable SESSIONS_PLAN.
"""

import asyncio
import json
import os
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PLAN = json.loads(os.environ["SESSIONS_PLAN"])
ROOT, MODEL, SYSTEM, TURNS = PLAN["root"], PLAN["model"], PLAN["system"], PLAN["turns"]
# The client libraries must not repeat a request, because that would hide a failure.
SETTINGS = {"base_url": f"{ROOT}/v1", "api_key": PLAN["api_key"], "max_retries": 0, "timeout": 60}
WORKERS = 4
HERE = Path(__file__).parent


@dataclass
class Session:
    """A session of a flow, with or without a session key."""

    name: str
    # `keyless`, `body` (the key is in the field of the API) or `header` (every request has the key in a header).
    kind: str

    @property
    def key(self):
        return None if self.kind == "keyless" else f"key-{self.name}"

    @property
    def body(self):
        """The session's key as fields of a request body, of the OpenAI API."""
        return {"prompt_cache_key": self.key} if self.kind == "body" else {}

    @property
    def headers(self):
        """The headers of all requests of the session. The first is only for the tests."""
        return {"x-test-session": self.name} | ({"x-session-id": self.key} if self.kind == "header" else {})

    def questions(self):
        """The questions of all turns. Sessions differ only in these, and the first of them only at its end."""
        first = f"How deep is the water at the buoy of {self.name}?"
        later = (f"Report {turn} of {self.name}: " + "the wind backs and the tide turns. " * 30 for turn in range(1, TURNS))
        return [first, *later]


def sessions(flows):
    """Returns every session of the plan with its flow."""
    wanted = PLAN["flows"] or [flow.__name__ for flow in flows]
    return [
        (flow, Session(f"{flow.__name__}-{kind}-{number}", kind))
        for flow in flows
        if flow.__name__ in wanted
        for kind, count in PLAN["sessions"].items()
        for number in range(count)
    ]


def pause(turn):
    """Tells the driver that all sessions have had this turn, and waits until it says to go on."""
    print(f"turn {turn}", flush=True)
    if not input():
        raise SystemExit("the driver has ended")


class Failures:
    """The sessions that have failed. The others go on, so that the report is complete."""

    def __init__(self):
        self.told = {}

    def add(self, session, turn, error):
        frames = traceback.extract_tb(error.__traceback__)
        own = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames if Path(frame.filename).parent == HERE]
        self.told[session.name] = f"{session.name}, turn {turn}: {type(error).__name__}: {error} ({', '.join(own[1:])})"

    def left(self, running):
        return [(session, steps) for session, steps in running if session.name not in self.told]

    def finish(self):
        if self.told:
            sys.exit("\n".join(self.told.values()))


def expect_turn(turn, step):
    """A flow yields in each turn and then ends."""
    if (step == "over") != (turn == TURNS):
        raise AssertionError(f"the flow does not have {TURNS} turns")


def run(flows):
    """Runs the flows of a synchronous client."""
    running, failures = [(session, flow(session)) for flow, session in sessions(flows)], Failures()

    def advance(session, steps, turn):
        try:
            expect_turn(turn, next(steps, "over"))
        except Exception as error:
            failures.add(session, turn, error)

    with ThreadPoolExecutor(WORKERS) as pool:
        for turn in range(TURNS + 1):
            list(pool.map(lambda one: advance(*one, turn), failures.left(running)))
            pause(turn)
    failures.finish()


async def run_async(flows):
    """Runs the flows of an asynchronous client."""
    running, failures = [(session, flow(session)) for flow, session in sessions(flows)], Failures()
    gate = asyncio.Semaphore(WORKERS)

    async def advance(session, steps, turn):
        async with gate:
            try:
                expect_turn(turn, await anext(steps, "over"))
            except Exception as error:
                failures.add(session, turn, error)

    for turn in range(TURNS + 1):
        await asyncio.gather(*(advance(session, steps, turn) for session, steps in failures.left(running)))
        await asyncio.to_thread(pause, turn)
    failures.finish()

"""Clients that run many sessions at once: no turn changes its account, every object is found, and the cache stays warm.

Each program in `sessions` runs several flows, each with several sessions, and each session has several turns. It runs
against one account for comparison, and then against three accounts: without trouble, with a restart, and with two processes.
"""

import json
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

from kit import child
from kit.arena import Arena, ReplicatedArena, RestartedArena
from kit.child import Failure
from kit.codex import expect
from kit.rig import ACCOUNTS, CALLER_KEY
from kit.usage import Tokens, is_generation, tokens_of
from kit.verify import Expected, credentials, sessions

PROGRAMS = Path(__file__).resolve().parent.parent / "sessions"
TIMEOUT = 150
TURNS = 4
# The number of sessions of each flow, by where they have their key.
KINDS = {"keyless": 2, "body": 1, "header": 1}
# The difference between cached shares that is tolerated.
TOLERANCE = 0.01
# The flows that name files whose ids stand only inside of other objects. Steadfast has to search for their accounts.
SEARCHED = {"batch", "upload"}
# The share of the input that is cached at least from the second turn on, because the shared prompt is long.
WARM = 0.5
# The system prompt of all sessions, of about 6 KB.
SYSTEM = "\n".join(f"Rule {number}: a pilot reports the depth, the wind and the set of the tide in plain words." for number in range(75))
# How many lines of one kind a report has at most.
MOST = 30
# How many of these parts run at once.
AT_ONCE = threading.Semaphore(2)


@dataclass
class Client:
    """A program with its recording against a single account."""

    name: str
    program: str
    model: str = "gpt-5.2"
    lock: threading.Lock = field(default_factory=threading.Lock)
    alone: dict = field(default_factory=dict)

    def command(self, setup):
        runner = "node" if self.program.endswith(".mjs") else setup.installed / "venv/bin/python"
        return [runner, PROGRAMS / self.program]

    def run(self, setup, arena, workload):
        """Runs the program against a started arena. Returns its problems and the sessions that reached the accounts."""
        plan = {"root": arena.root, "api_key": CALLER_KEY, "model": self.model, "system": SYSTEM, **workload}
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(arena.folder),
            "CLIENT_MODULES": str(setup.installed / "node/node_modules"),
            "SESSIONS_PLAN": json.dumps(plan),
            "PYTHONDONTWRITEBYTECODE": "1",
            # The libraries must not look for anything on the network.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "OPENAI_AGENTS_DISABLE_TRACING": "1",
            "LANGSMITH_TRACING": "false",
        }
        code, errors = child.run_in_turns(self.command(setup), environment, TIMEOUT, arena.after_turn)
        return [f"{self.program} ended with {code}:\n{errors}"] if code else [], sessions(arena.seen)

    def at_one_account(self, setup, label, workload):
        """Returns the sessions of the same workload at a single account. It runs once."""
        with self.lock:
            if label not in self.alone:
                arena = Arena(setup.rig.binary, setup.folder / f"{self.name}-{label}-alone", ACCOUNTS[:1])
                problems, self.alone[label] = inside(arena, lambda: self.run(setup, arena, workload))
                if problems:
                    self.alone[label] = Failure("\n".join(["at a single account:", *problems, journey(arena.seen)]))
            if isinstance(self.alone[label], Failure):
                raise self.alone[label]
            return self.alone[label]


def inside(arena, work):
    """Starts an arena, does the work, and ends the arena."""
    try:
        arena.start()
        done = work()
        arena.finish()
        return done
    finally:
        arena.stop()


def journey(seen):
    """Returns how many requests were at each account, and those that were not answered with 200."""
    counts = {account: sum(request.account == account for request in seen) for account in ACCOUNTS}
    failed = [f"  {request.method} {request.path} → {request.account}: {request.status}" for request in seen if request.status != 200]
    return "\n".join([f"requests by account: {counts}; not answered with 200:", *(shortened(failed) or ["  none"])])


def shortened(lines):
    return lines if len(lines) <= MOST else [*lines[:MOST], f"  and {len(lines) - MOST} more"]


def part(client, kind):
    """Returns a part that runs all flows of a client."""
    workload = {"turns": TURNS, "sessions": KINDS, "flows": []}

    def run(setup):
        with AT_ONCE:
            alone = client.at_one_account(setup, "flows", workload)
            arena = kind(setup.rig.binary, setup.folder / f"{client.name}-{kind.__name__}")
            inside(arena, lambda: check(arena, *client.run(setup, arena, workload), alone))
        return Expected()

    return run


def check(arena, problems, found, alone):
    """Raises a `Failure` that names every rule that does not hold, after the program's own problems."""
    problems += [problem for request in arena.seen for problem in credentials(request)]
    if found.keys() != alone.keys():
        problems.append(f"the sessions {sorted(found.keys() ^ alone.keys())} ran only with one or with three accounts")
    for name in sorted(found.keys() & alone.keys()):
        problems += one_account(arena, name, found[name], alone[name])
    problems += cached_shares(found, alone)
    if unused := set(ACCOUNTS) - {request.account for request in arena.seen}:
        problems.append(f"no session used {sorted(unused)}")
    if type(arena) is Arena:
        problems += refused(found)
    if problems:
        raise Failure("\n".join([*shortened(problems), journey(arena.seen)]))


def refused(found):
    """An account that made an object is known, so no other account is asked for it."""
    for name, session in sorted(found.items()):
        lost = [f"{request.method} {request.path} at {request.account}" for request in session.requests if request.status != 200]
        if lost and flow_of(name) not in SEARCHED:
            yield f"session {name} had requests refused: {', '.join(lost)}"


def flow_of(name):
    """Returns the flow of a session, which has the name FLOW-KIND-NUMBER."""
    return name.rsplit("-", 2)[0]


def generations(session):
    """Returns the generations of a session that an account has answered."""
    return [request for request in session.requests if is_generation(request) and request.status == 200]


def one_account(arena, name, session, alone):
    """All turns of a session are at one account. If the session began with a key, it is the key's."""
    turns, expected = generations(session), len(generations(alone))
    if len(turns) != expected:
        yield f"session {name} had {len(turns)} turns of {expected}"
    path = [request.account for request in turns]
    if len(set(path)) > 1:
        yield f"session {name} changed its account: {', '.join(path)}"
    elif path and (key := key_in(session.requests[0])) and path[0] != (home := arena.home(key, turns[0].json.get("model"))):
        yield f"session {name} is at {path[0]}, but `steadfast route` names {home}"


def key_in(request):
    metadata = request.json.get("metadata") or {}
    return request.json.get("prompt_cache_key") or request.headers.get("x-session-id") or metadata.get("user_id")


def cached_shares(found, alone):
    """From the second turn on, each flow reads as much from the cache as at a single account.

    The first turns are left out: whether the shared prompt is cached then depends on the sessions before.
    """
    for flow in sorted({flow_of(name) for name in found.keys() & alone.keys()}):
        mine, other = (later_tokens(sessions, flow) for sessions in (found, alone))
        if not mine.input and not other.input:
            continue
        if other.share < WARM:
            yield f"{flow}: at a single account only {other} of the input from the second turn on is cached"
        elif abs(mine.share - other.share) > TOLERANCE:
            yield f"{flow}: {mine} of the input from the second turn on is cached, at a single account {other}"


def later_tokens(sessions, flow):
    later = [
        request
        for name, session in sessions.items()
        if flow_of(name) == flow
        for request in generations(session)[1:]
        if not request.json.get("background")
    ]
    return total(later)


def total(requests):
    """Returns the tokens of generations, each of which must have told them."""
    read = [(request, tokens_of(request)) for request in requests]
    if silent := [request for request, tokens in read if not tokens]:
        raise Failure(f"{len(silent)} answers have no usage, for example {bytes(silent[0].answer[-500:])}")
    return sum((tokens for _, tokens in read), Tokens())


def spread(client, flow):
    """Returns a part in which 60 keyless sessions with a common prompt spread over the accounts."""
    workload = {"turns": 5, "sessions": {"keyless": 60}, "flows": [flow]}

    def run(setup):
        with AT_ONCE:
            alone = client.at_one_account(setup, f"spread-{flow}", workload)
            arena = Arena(setup.rig.binary, setup.folder / f"{client.name}-spread-{flow}")
            inside(arena, lambda: check_spread(arena, *client.run(setup, arena, workload), alone))
        return Expected()

    return run


def check_spread(arena, problems, found, alone):
    check(arena, problems, found, alone)
    expect(len(found) == 60, f"{len(found)} sessions reached the accounts, expected 60")
    homes = [generations(session)[0].account for session in found.values()]
    counts = {account: homes.count(account) for account in ACCOUNTS}
    expect(max(counts.values()) * len(ACCOUNTS) <= 1.5 * len(homes), f"the sessions are not spread: {counts}")
    shares = [total([turn for session in run.values() for turn in generations(session)]).share for run in (found, alone)]
    expect(abs(shares[0] - shares[1]) <= TOLERANCE, f"{shares[0]:.1%} of the input is cached, at a single account {shares[1]:.1%}")


def parts(name, program, spread_flow=None, **more):
    """Returns the parts of a client. `spread_flow` is the flow of the part `spread`, if it has one."""
    client = Client(name, program, **more)
    kinds = {"accounts": Arena, "restart": RestartedArena, "replicas": ReplicatedArena}
    found = {label: part(client, kind) for label, kind in kinds.items()}
    return found | ({"spread": spread(client, spread_flow)} if spread_flow else {})


CLIENTS = {
    "openai-python": parts("openai-python", "openai_sdk.py", "chat"),
    "openai-node": parts("openai-node", "openai_sdk.mjs"),
    "openai-agents": parts("openai-agents", "openai_agents.py"),
    "langchain": parts("langchain", "langchain_chat.py", "responses"),
    "ai-sdk": parts("ai-sdk", "ai_sdk.mjs", "responses"),
    "litellm": parts("litellm", "litellm_client.py", "responses"),
    "anthropic": parts("anthropic", "anthropic_sdk.py", "text", model="claude-opus-5"),
}
# The parts that run beside all others.
BESIDE = {"accounts", "restart", "replicas", "spread"}

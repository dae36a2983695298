"""Codex CLI while accounts fail or are limited for a short time: its turns succeed, and failures are not multiplied."""

import time
from contextlib import contextmanager

from kit.codex import Codex, expect
from kit.limits import strained
from kit.tap import Stream
from kit.verify import Expected

# Accounts echo the instructions and tools in each lifecycle event.
ECHO = "You are a coding agent. " * 1600


def generations(rig):
    return [seen for seen in rig.seen if seen.method == "POST"]


def client_requests(rig):
    """Returns the access log lines of the generations of Codex, once those that reached an account are there."""
    ids = {seen.headers["x-request-id"] for seen in generations(rig)}
    rig.wait_for_log(0, ids, 0)
    return [line for line in rig.log() if line.get("endpoint") == "responses"]


@contextmanager
def strained_rig(setup, label, refuse):
    """Runs a setup whose accounts refuse generations with `refuse(seen)`."""
    inner, _ = strained(setup, label, [])
    for tap in inner.rig.taps.values():
        tap.refuse = lambda seen: refuse(seen) if seen.method == "POST" else None
    try:
        yield inner
    finally:
        code = inner.rig.stop()
    expect(code == 0, f"steadfast ended with {code}")


def rate_limited(seconds):
    message = f"Rate limit reached for gpt-5.2-codex on tokens per min (TPM). Please try again in {seconds:.3f}s."
    error = {"type": "tokens", "code": "rate_limit_exceeded", "message": message, "param": None}
    return 429, {"retry-after": str(max(1, round(seconds)))}, {"error": error}


def limited_briefly(setup):
    """All accounts are limited for 2, 4 and 10 s. A new session and a running one wait, and their turns succeed."""
    for seconds in (2, 4, 10):
        until = None

        def refuse(_):
            left = until - time.monotonic() if until else 0
            return rate_limited(left) if left > 0.05 else None

        with strained_rig(setup, f"brief-{seconds}", refuse) as inner:
            user = Codex(inner, f"codex-brief-{seconds}")
            until = time.monotonic() + seconds
            first = user.turn("Say something.")
            expect(not first.errors, f"codex reported {first.errors}")
            until = time.monotonic() + seconds
            second = user.turn("resume", first.thread, "And again.")
            expect(not second.errors, f"codex reported {second.errors}")
            sent = len(client_requests(inner.rig))
            expect(sent == 2, f"Codex sent {sent} requests for two turns")
    return Expected()


def own_account_limited(setup):
    """Only the session's own account is limited, for 4 s. The session carries encrypted items, so it waits for its account."""
    until, own = 0, None

    def refuse(seen):
        left = until - time.monotonic()
        return rate_limited(left) if seen.account == own and left > 0.05 else None

    with strained_rig(setup, "own-limited", refuse) as inner:
        user = Codex(inner, "codex-own-limited")
        first = user.turn("Say something.")
        own, until = generations(inner.rig)[0].account, time.monotonic() + 4
        second = user.turn("resume", first.thread, "And again.")
        expect(not second.errors, f"codex reported {second.errors}")
        used = {seen.account for seen in generations(inner.rig)}
        expect(used == {own}, f"the session used {used}")
    return Expected()


def lifecycle(account):
    """Returns the events with which a response begins, as long as real ones."""
    response = {"id": f"resp_{account}", "object": "response", "status": "in_progress", "instructions": ECHO, "output": []}
    return [{"type": f"response.{kind}", "response": response} for kind in ("created", "in_progress")]


def failed(account, code, message):
    response = {"id": f"resp_{account}", "object": "response", "status": "failed", "instructions": ECHO}
    return {"type": "response.failed", "response": response | {"error": {"code": code, "message": message}}}


def stream_failures(account):
    """Returns the endings of a stream that has begun and has no output yet."""
    rate = "Rate limit reached. Please try again in 44s."
    error = {"type": "error", "code": None, "message": "The server had an error.", "param": None}
    return {
        "overload": [failed(account, "server_is_overloaded", "Our servers are currently overloaded.")],
        "rate": [failed(account, "rate_limit_exceeded", rate)],
        "quota": [
            {"type": "error", "error": {"type": "insufficient_quota", "code": "insufficient_quota", "message": "Quota."}},
            failed(account, "insufficient_quota", "You exceeded your current quota."),
        ],
        "server error": [error, failed(account, "server_error", "The server had an error.")],
        "cut": [],
    }


def fails_in_stream(setup):
    """A session's account fails after `response.created`. The turn succeeds with one request of Codex."""
    for kind in stream_failures(""):
        broken = []

        def refuse(seen):
            if not broken:
                broken.append(seen.account)
            if seen.account != broken[0]:
                return None
            return 200, {}, Stream(lifecycle(seen.account) + stream_failures(seen.account)[kind], is_cut=kind == "cut")

        label = kind.replace(" ", "-")
        with strained_rig(setup, f"stream-{label}", refuse) as inner:
            turn = Codex(inner, f"codex-stream-{label}").turn("Say something.")
            expect(not turn.errors, f"{kind}: codex reported {turn.errors}")
            sent = len(client_requests(inner.rig))
            expect(sent == 1, f"{kind}: Codex sent {sent} requests")
            accounts = [seen.account for seen in generations(inner.rig)]
            expect(len(accounts) == 2 and accounts[0] != accounts[1], f"{kind}: the request went to {accounts}")
    return Expected()


def all_fail(setup):
    """Every account answers 500. Codex repeats its request 30 times, and the accounts receive at most 12 requests.

    Codex waits as long as `retry-after` says, which makes this part long.
    """

    def refuse(_):
        return 500, {}, {"error": {"type": "server_error", "code": None, "message": "Internal error."}}

    with strained_rig(setup, "all-fail", refuse) as inner:
        ran, turn = Codex(inner, "codex-all-fail").run("Say something.", timeout=360)
        expect(ran.returncode != 0 and not turn.messages, f"the turn succeeded: {turn.messages}")
        sent, reached = len(client_requests(inner.rig)), len(generations(inner.rig))
        expect(sent >= 20, f"Codex sent only {sent} requests")
        expect(reached <= 12, f"{sent} requests of Codex became {reached} requests to accounts")
    return Expected()


# The parts that run beside all others.
BESIDE = {"all-fail"}

PARTS = {
    "limited-briefly": limited_briefly,
    "own-account-limited": own_account_limited,
    "fails-in-stream": fails_in_stream,
    "all-fail": all_fail,
}

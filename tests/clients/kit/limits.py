"""Codex CLI with accounts that are limited or fail: what it prints, and how often it sends a request."""

import time
from dataclasses import replace

from kit import codex
from kit.codex import Codex, expect, expect_clean
from kit.rig import ACCOUNTS, SecondRig
from kit.verify import Expected

RESET = 3 * 24 * 3600


def limited(_):
    error = {"type": "usage_limit_reached", "message": "The usage limit has been reached", "resets_at": int(time.time()) + RESET}
    return 429, {}, {"error": error}


def overloaded(_):
    return 503, {}, {"error": {"type": "server_error", "code": "server_is_overloaded", "message": "Overloaded."}}


def strained(setup, label, refusals):
    """Returns a setup and a list. The accounts of the setup refuse requests with `refusals`, in the order in which they are
    tried. The list contains the accounts in that order."""
    # The rig is new, because cooldowns last longer than a part.
    rig = SecondRig(setup.rig, setup.folder / label)
    rig.start()
    asked = []

    def refuse(seen):
        if seen.method != "POST":
            return None
        if seen.account not in asked:
            asked.append(seen.account)
        place = asked.index(seen.account)
        return refusals[place](seen) if place < len(refusals) and refusals[place] else None

    for tap in rig.taps.values():
        tap.refuse = refuse
    return replace(setup, rig=rig), asked


def third_account(setup):
    """The first account is limited and the second overloaded. The third serves the turn and keeps the session."""
    inner, asked = strained(setup, "strained-third", [limited, overloaded])
    try:
        user = Codex(inner, "codex-third")
        first = user.turn("Say something.")
        expect(len(asked) == 3, f"the accounts tried were {asked}")
        expect_clean(first, asked[2])
        statuses = [seen.status for seen in inner.rig.seen if seen.method == "POST"]
        expect(statuses == [429, 503, 200], f"the accounts answered {statuses}")
        ids = {seen.headers["x-request-id"] for seen in inner.rig.seen if seen.method == "POST"}
        served = [line for line in inner.rig.wait_for_log(0, ids, 0) if line["endpoint"] == "responses"]
        expect(len(served) == 1 and served[0]["attempts"] == 3, f"Codex sent more than one request: {served}")
        second = user.turn("resume", first.thread, "And again.")
        expect_clean(second, asked[2])
        accounts = [seen.account for seen in inner.rig.seen if seen.method == "POST"][3:]
        expect(accounts == [asked[2]], f"the next turn went to {accounts}")
    finally:
        code = inner.rig.stop()
    expect(code == 0, f"steadfast ended with {code}")
    return Expected()


def all_limited(setup):
    """All accounts are limited. Codex prints when the limit ends, and sends only one request."""
    inner, _ = strained(setup, "strained-all", [limited] * 3)
    try:
        user = Codex(inner, "codex-limited")
        ran, turn = user.run("Say something.")
        log = inner.rig.wait_for_log(0, set(), 1)
        asked = [line for line in log if line["endpoint"] == "responses"]
        expect(ran.returncode != 0 and not turn.messages, f"the turn succeeded: {turn.messages}")
        expect(len(asked) == 1 and asked[0]["status"] == 429, f"Codex sent {len(asked)} requests: {asked}")
        told = " ".join(dict.fromkeys(turn.errors))
        expect("usage limit" in told.lower(), f"Codex said {turn.errors}")
        day = time.localtime(time.time() + RESET)
        when = f"{time.strftime('%b', day)} {day.tm_mday}"
        expect(when in told, f"Codex did not say {when!r}: {turn.errors}")
    finally:
        code = inner.rig.stop()
    expect(code == 0, f"steadfast ended with {code}")
    return Expected()


PARTS = {**codex.PARTS, "third-account": third_account, "all-limited": all_limited}

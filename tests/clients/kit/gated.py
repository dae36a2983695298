"""A gateway with client keys: the errors for unknown, expired and disabled keys, missing rights and used up limits."""

import hashlib
import json
import os
from dataclasses import replace

from kit import child
from kit.codex import Codex, expect, expect_clean
from kit.rig import SecondRig
from kit.sdks import MODEL, PART_TIMEOUT, SCRIPTS
from kit.verify import Expected

# The name of each client key, and its group.
KEYS = {"good": "team", "old": "team", "off": "team", "other": "others", "narrow": "narrow", "tight": "tight", "spent": "tight"}
GROUPS = {"team": "", "others": "", "narrow": 'models = ["gpt-4*"]', "tight": "requests_per_minute = 1"}
LINES = {"old": "expires = 2020-01-01", "off": "disabled = true"}


def secret(name):
    return f"sk-steadfast-{name}-0123456789abcdefghijklmnopqrstuvwxyz"


class Gated(SecondRig):
    """A Steadfast that requires client keys, in front of the accounts of another rig."""

    def configuration(self):
        groups = "".join(f'[[group]]\nname = "{name}"\n{lines}\n' for name, lines in GROUPS.items())
        digest = lambda name: hashlib.sha256(secret(name).encode()).hexdigest()
        keys = "".join(
            f'[[key]]\nname = "{name}"\nsha256 = "{digest(name)}"\ngroup = "{group}"\n{LINES.get(name, "")}\n'
            for name, group in KEYS.items()
        )
        return super().configuration() + "\n" + groups + keys


def gated(setup, label):
    rig = Gated(setup.rig, setup.folder / label)
    rig.start()
    return replace(setup, rig=rig)


def finish(rig):
    """Stops the gateway, and checks that no client key is in its log or reached an account."""
    code = rig.stop()
    expect(code == 0, f"steadfast ended with {code}")
    told = "\n".join(rig.proxy.lines["stdout"] + rig.proxy.lines["stderr"])
    reached = json.dumps([dict(seen.headers.items()) for seen in rig.seen])
    for name in KEYS:
        expect(secret(name) not in told, f"the key {name!r} is in the log")
        expect(secret(name) not in reached, f"the key {name!r} reached an account")


def typed_errors(command):
    """Returns a part that runs the part `access` of a script with all keys."""

    def run(setup):
        inner = gated(setup, f"gated-{command(setup)[-1].stem}")
        try:
            environment = {
                "PATH": os.environ["PATH"],
                "CLIENT_MODULES": str(setup.installed / "node/node_modules"),
                "STEADFAST_URL": inner.rig.root,
                "STEADFAST_API_KEY": secret("good"),
                "STEADFAST_MODEL": MODEL,
                "STEADFAST_KEYS": json.dumps({name: [secret(name)] for name in KEYS}),
            }
            ran = child.run(command(setup) + ["access"], environment, PART_TIMEOUT)
            expect(ran.returncode == 0, f"the script ended with {ran.returncode}:\n{ran.stdout}\n{ran.stderr}")
        finally:
            finish(inner.rig)
        return Expected()

    return run


def codex_shows_why(setup):
    """Codex prints the gateway's message about a key or a model; with a valid key it works."""
    inner = gated(setup, "gated-codex")
    once = "request_max_retries = 0\nstream_max_retries = 0"
    try:
        for name, words in {
            "unknown": "Incorrect API key provided",
            "old": "This API key has expired",
            "narrow": "Your API key may not use the model 'gpt-5.2-codex'. It may use: gpt-4*",
        }.items():
            user = Codex(inner, f"codex-{name}", provider_settings=once)
            user.environment["STEADFAST_API_KEY"] = secret(name)
            ran, turn = user.run("Say something.")
            expect(ran.returncode != 0 and not turn.messages, f"with {name} the turn succeeded: {turn.messages}")
            expect(any(words in error for error in turn.errors), f"with {name} Codex said {turn.errors}")
        expect(not inner.rig.seen, f"{len(inner.rig.seen)} requests reached an account")
        user = Codex(inner, "codex-tight", provider_settings=once)
        user.environment["STEADFAST_API_KEY"] = secret("tight")
        first = user.turn("Say something.")
        expect_clean(first, inner.rig.seen[-1].account)
        _, second = user.run("resume", first.thread, "And again.")
        # Codex has its own message for this error. With retries enabled it would wait for `retry-after` and try again.
        expect(any("429 Too Many Requests" in error for error in second.errors), f"limited, Codex said {second.errors}")
    finally:
        finish(inner.rig)
    return Expected()


PYTHON = {"access": typed_errors(lambda setup: [setup.installed / "venv/bin/python", SCRIPTS / "openai_python.py"])}
NODE = {"access": typed_errors(lambda setup: ["node", SCRIPTS / "openai_node.mjs"])}
CODEX = {"gated": codex_shows_why}

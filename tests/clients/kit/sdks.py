"""The parts of openai-python and openai-node: each runs a script in the client's language, which asserts the results."""

import json
import os
from pathlib import Path

from kit import child
from kit.codex import expect
from kit.rig import CALLER_KEY
from kit.verify import Expected, sessions

MODEL = "gpt-5.2"
PART_TIMEOUT = 60
SCRIPTS = Path(__file__).resolve().parent.parent


def python(part, expected=Expected, minimum=1):
    return runner(lambda setup: [setup.installed / "venv/bin/python", SCRIPTS / "openai_python.py"], part, expected, minimum)


def node(part, expected=Expected, minimum=1):
    return runner(lambda setup: ["node", SCRIPTS / "openai_node.mjs"], part, expected, minimum)


def runner(command, part, expected, minimum):
    """Returns a part that runs a script. At least `minimum` sessions must reach the accounts."""

    def run(setup):
        since = len(setup.rig.seen)
        keys = setup.rig.keys(part, MODEL, per_account=2)
        environment = {
            "PATH": os.environ["PATH"],
            "CLIENT_MODULES": str(setup.installed / "node/node_modules"),
            "STEADFAST_URL": setup.rig.root,
            "STEADFAST_API_KEY": CALLER_KEY,
            "STEADFAST_MODEL": MODEL,
            "STEADFAST_KEYS": json.dumps(keys),
        }
        ran = child.run(command(setup) + [part], environment, PART_TIMEOUT)
        expect(ran.returncode == 0, f"the script ended with {ran.returncode}:\n{ran.stdout}\n{ran.stderr}")
        found = sessions(setup.rig.seen[since:])
        expect(len(found) >= minimum, f"only {len(found)} sessions reached the accounts, expected {minimum}")
        return expected()

    return run


# An unknown response is looked for at all three accounts.
PYTHON = {
    "create": python("create", minimum=6),
    "stream": python("stream", minimum=6),
    "together": python("together", minimum=6),
    "keyless": python("keyless", minimum=6),
    "compact": python("compact", minimum=10),
    "models": python("models", lambda: Expected(refused={"model_not_found": 1}), minimum=0),
    "follow_up": python("follow_up", minimum=6),
    "stored": python("stored", lambda: Expected(statuses={404: 12}), minimum=6),
    "chat": python("chat", minimum=6),
    "embeddings": python("embeddings", minimum=0),
    "errors": python("errors", lambda: Expected({"unknown_path": 1, "ambiguous_body": 1, "invalid_json": 1}, {400: 4}), minimum=0),
}
NODE = {
    "create": node("create", minimum=6),
    "stream": node("stream", minimum=6),
    "cut_text": node("cut_text", minimum=8),
    "compact": node("compact", minimum=6),
    "models": node("models", minimum=0),
    "follow_up": node("follow_up", minimum=6),
    "stored": node("stored", lambda: Expected(statuses={404: 6}), minimum=6),
    "chat": node("chat", minimum=6),
    "errors": node("errors", lambda: Expected({"unknown_path": 1}, {400: 3}), minimum=0),
}

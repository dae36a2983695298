"""Codex CLI as a user runs it: `codex exec` with a custom provider, resumed sessions, subagents, compaction, WebSocket."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from kit import child
from kit.child import Failure
from kit.rig import CALLER_KEY
from kit.verify import Expected, sessions

MODEL = "gpt-5.2-codex"
TURN_TIMEOUT = 60
# Codex prints this for every model that is not in its own list, and continues.
HARMLESS = "Model metadata for"


@dataclass
class Turn:
    """The output of `codex exec --json` for one turn."""

    thread: str
    messages: list
    errors: list
    usage: dict


class Codex:
    """The Codex of one user: its own CODEX_HOME, an empty working folder, and none of this machine's settings."""

    def __init__(self, setup, label, provider="Steadfast", base_path="/v1", settings="", provider_settings=""):
        self.command = [str(setup.codex), "exec"]
        self.home = setup.folder / label
        self.work = self.home / "work"
        self.work.mkdir(parents=True)
        (self.home / "config.toml").write_text(
            f'model = "{MODEL}"\nmodel_provider = "steadfast"\ncheck_for_update_on_startup = false\n{settings}\n'
            f'[analytics]\nenabled = false\n\n[model_providers.steadfast]\nname = "{provider}"\n'
            f'base_url = "{setup.rig.root}{base_path}"\nwire_api = "responses"\nenv_key = "STEADFAST_API_KEY"\n'
            f"{provider_settings}\n"
        )
        # Requests of Codex to other hosts fail, because this proxy does not exist.
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "CODEX_HOME": str(self.home),
            "STEADFAST_API_KEY": CALLER_KEY,
            "HTTPS_PROXY": "http://127.0.0.1:9",
            "NO_PROXY": "127.0.0.1",
        }

    def turn(self, *arguments):
        """Runs one turn that must succeed."""
        ran, turn = self.run(*arguments)
        if ran.returncode or not turn.messages or not turn.usage:
            raise Failure(f"codex ended with {ran.returncode}\n{ran.stdout}\n{ran.stderr}")
        return turn

    def run(self, *arguments, timeout=TURN_TIMEOUT):
        """Runs one turn that may fail, for at most `timeout` seconds. Returns the process and the turn."""
        flags = ["--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "--json"]
        verb = [arguments[0]] if arguments[0] == "resume" else []
        command = self.command + verb + flags + list(arguments[len(verb) :])
        ran = child.run(command, self.environment, timeout, folder=self.work)
        events = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
        return ran, told(events)


def told(events):
    turn = Turn("", [], [], {})
    for event in events:
        item = event.get("item", {})
        match event["type"], item.get("type"):
            case "thread.started", _:
                turn.thread = event["thread_id"]
            case "item.completed", "agent_message":
                turn.messages.append(item["text"])
            case "item.completed", "error":
                turn.errors += [] if item["message"].startswith(HARMLESS) else [item["message"]]
            case "error", _:
                turn.errors.append(event["message"])
            case "turn.failed", _:
                turn.errors.append(event["error"]["message"])
            case "turn.completed", _:
                turn.usage = event["usage"]
    return turn


def call(name, arguments, namespace=None):
    """Returns output items with a function call of the model."""
    made = {"type": "function_call", "name": name, "arguments": json.dumps(arguments), "call_id": f"call_{name}"}
    made |= {"id": f"fc_{name}", "status": "completed"}
    return [made | ({"namespace": namespace} if namespace else {})]


def last(request):
    return request.items[-1] if request.items and isinstance(request.items[-1], dict) else {}


def asks(request, words):
    """Returns whether the last input item is a user message with these words."""
    return last(request).get("role") == "user" and words in json.dumps(last(request))


def expect(condition, problem):
    if not condition:
        raise Failure(problem)


def expect_clean(turn, account):
    expect(not turn.errors, f"codex reported {turn.errors}")
    for message in turn.messages:
        expect(message.startswith(f"{account} answers:"), f"codex received {message!r}, but its session is on {account}")


def whole_session(setup, since, thread, count):
    """Returns the requests of one session since `since`, and checks that there are `count` with one key."""
    requests = sessions(setup.rig.seen[since:]).get(thread)
    expect(requests, f"no request of session {thread} reached an account")
    requests = requests.requests
    expect(len(requests) == count, f"session {thread} sent {len(requests)} requests, expected {count}")
    for request in requests:
        keys = {request.json["prompt_cache_key"], request.headers["session-id"], request.json["client_metadata"]["session_id"]}
        expect(keys == {thread}, f"a request of session {thread} names {keys}")
    return requests


def sessions_resumed(setup):
    """Four users at once. Each runs a command in the first turn and then resumes the session, by id or as the last one."""
    since = len(setup.rig.seen)
    setup.rig.script(lambda request: call("exec_command", {"cmd": "echo steady"}) if asks(request, "Run a command") else None)

    def user(number):
        codex = Codex(setup, f"codex-session-{number}", base_path="/v1" if number % 2 else "")
        first = codex.turn("Run a command.")
        second = codex.turn("resume", *(["--last"] if number % 2 else [first.thread]), "And what now?")
        expect(second.thread == first.thread, f"{first.thread} was resumed as {second.thread}")
        return first, second

    with ThreadPoolExecutor(4) as users:
        for first, second in users.map(user, range(4)):
            asked, followed, resumed = whole_session(setup, since, first.thread, 3)
            for turn in (first, second):
                expect_clean(turn, asked.account)
            expect(last(followed).get("type") == "function_call_output", f"no output of the command: {last(followed)}")
            state = followed.headers.get("x-codex-turn-state", "")
            expect(state.startswith(f"{asked.account}-"), f"the follow-up has the turn state {state!r}")
            expect("x-codex-turn-state" not in resumed.headers, "a turn state was sent after its turn")
            expect(second.usage["cached_input_tokens"] > first.usage["cached_input_tokens"] > 0, f"not cached: {second.usage}")
    return Expected()


def subagent(setup):
    """The model spawns a subagent, which shares the session key of the root agent, and waits for it."""
    since = len(setup.rig.seen)

    def answer(request):
        item = last(request)
        if asks(request, "Delegate this") and "x-openai-subagent" not in request.headers:
            return call("spawn_agent", {"message": "Do the errand."}, "multi_agent_v1")
        if item.get("call_id") == "call_spawn_agent" and item.get("type") == "function_call_output":
            return call("wait_agent", {"targets": [json.loads(item["output"])["agent_id"]]}, "multi_agent_v1")
        return None

    setup.rig.script(answer)
    turn = Codex(setup, "codex-subagent").turn("Delegate this.")
    requests = whole_session(setup, since, turn.thread, 4)
    expect_clean(turn, requests[0].account)
    kinds = [request.headers.get("x-openai-subagent") for request in requests]
    expect(sorted(filter(None, kinds)) == ["collab_spawn"], f"the requests were of subagents {kinds}")
    expect(len({request.headers["thread-id"] for request in requests}) == 2, "the subagent has no thread of its own")
    return Expected()


def compaction(setup):
    """The context exceeds Codex's limit. Codex compacts it remotely and continues with an item that only its account can read."""
    since = len(setup.rig.seen)
    codex = Codex(setup, "codex-compaction", provider="OpenAI", settings="model_auto_compact_token_limit = 4000")
    first = codex.turn("Remember the word anchor.")
    account = whole_session(setup, since, first.thread, 1)[0].account
    turns = [first, codex.turn("resume", "--last", "Which word?"), codex.turn("resume", first.thread, "Once more?")]
    for turn in turns:
        expect_clean(turn, account)
    requests = whole_session(setup, since, first.thread, 5)
    kinds = ["compaction" if last(request).get("type") == "compaction_trigger" else "turn" for request in requests]
    expect(kinds == ["turn", "compaction", "turn", "compaction", "turn"], f"the requests were {kinds}")
    for request in (requests[2], requests[4]):
        carried = [item for item in request.items if item.get("type") == "compaction"]
        expect(len(carried) == 1, f"the turn after a compaction carries {len(carried)} compaction items")
    return Expected()


def websocket(setup):
    """A provider with WebSockets: Steadfast responds with 426, and Codex falls back to SSE without an error or a delay."""
    since = len(setup.rig.seen)
    codex = Codex(setup, "codex-websocket", provider_settings="supports_websockets = true")
    first = codex.turn("Say something.")
    second = codex.turn("resume", first.thread, "And again.")
    requests = whole_session(setup, since, first.thread, 2)
    for turn in (first, second):
        expect_clean(turn, requests[0].account)
    return Expected(refused={"websocket_unsupported": 2})


PARTS = {"sessions": sessions_resumed, "subagent": subagent, "compaction": compaction, "websocket": websocket}

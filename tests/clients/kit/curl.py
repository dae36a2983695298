"""curl: the command that Steadfast prints for a first request, and requests to the accounts."""

import json
import os
import re

from kit import child
from kit.child import Failure, Process
from kit.codex import expect
from kit.rig import CALLER_KEY, START_TIMEOUT
from kit.sdks import MODEL
from kit.verify import Expected


def shell(line):
    """Runs a shell line. Returns the status, headers and body of the response."""
    ran = child.run(["bash", "-c", line], {"PATH": os.environ["PATH"]}, timeout=60)
    expect(ran.returncode == 0, f"curl ended with {ran.returncode}: {line}\n{ran.stdout}\n{ran.stderr}")
    head, _, body = ran.stdout.replace("\r\n", "\n").partition("\n\n")
    first, *lines = head.split("\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(first.split()[1]), headers, body


def pasted(setup):
    """The program without a configuration has two simulated accounts. The curl command that it prints is run twice."""
    rig = setup.rig
    command = [rig.binary, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    process = Process(command, {"PATH": os.environ["PATH"]}, setup.folder / "bare.log")
    try:
        ends = r"""prompt_cache_key":"session-1"}'"""
        process.wait_for(lambda: any(ends in line for line in process.lines["stdout"]), START_TIMEOUT, "the printed curl command")
        printed = "\n".join(process.lines["stdout"])
        line = re.search(r"curl .*?" + ends, printed, re.DOTALL).group()
        first, second = shell(line), shell(line)
        expect((first[0], second[0]) == (200, 200), f"{first} {second}")
        cached = [json.loads(answer[2])["usage"]["input_tokens_details"]["cached_tokens"] for answer in (first, second)]
        expect(cached[0] == 0 < cached[1], f"cached tokens: {cached}")
        homes = {shell(line.replace("session-1", f"session-{n}"))[1]["x-steadfast-upstream"] for n in range(2, 12)}
        expect(len(homes) == 2, f"ten sessions all had the home {homes}")
    finally:
        code = process.stop()
    if code:
        raise Failure(f"Steadfast ended with {code}:\n{process.tail()}")
    return Expected()


def sessions(setup):
    """Sessions with the key in the body or in a header, plain or streamed, and a path without /v1."""
    rig = setup.rig
    for account, keys in rig.keys("curl", MODEL, per_account=1).items():
        common = f"curl -isSN --max-time 30 -H 'authorization: Bearer {CALLER_KEY}' -H 'content-type: application/json'"
        key = keys[0]
        body = {"model": MODEL, "input": "Hello"}
        by_body = f"{common} {rig.root}/v1/responses -d '{json.dumps(body | {'prompt_cache_key': key})}'"
        by_header = f"{common} -H 'session-id: {key}' {rig.root}/responses -d '{json.dumps(body | {'stream': True})}'"
        for line in (by_body, by_header):
            status, headers, body = shell(line)
            expect(status == 200 and headers["x-steadfast-upstream"] == account, f"{status} {headers}")
            expect(f"{account} answers:" in body, body)
            sealed = headers["x-codex-turn-state"]
            expect(not sealed.startswith(account), f"the turn state was returned unsealed: {sealed}")
        expect(body.rstrip().split("\n")[-2] == "event: response.completed", body[-500:])
    return Expected()


PARTS = {"pasted": pasted, "sessions": sessions}

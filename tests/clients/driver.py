"""Runs real clients through Steadfast against simulated accounts. Called by `run`, which installs and builds what it needs."""

import argparse
import shutil
import signal
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from kit import affinity, child, curl, failing, gated, limits, refusals, sdks, verify
from kit.child import Failure
from kit.rig import Rig

CLIENTS = {
    "codex": {**limits.PARTS, **failing.PARTS, **gated.CODEX},
    "openai-python": {**sdks.PYTHON, **gated.PYTHON},
    "openai-node": {**sdks.NODE, **gated.NODE},
    "curl": {**curl.PARTS, **refusals.CURL},
    "httpx": refusals.HTTPX_PARTS,
}
for name, more in affinity.CLIENTS.items():
    CLIENTS.setdefault(name, {}).update(more)
# These parts have servers of their own and take long, so they run beside the others.
BESIDE = failing.BESIDE | affinity.BESIDE


@dataclass
class Setup:
    """The arguments that a part receives."""

    rig: Rig
    # The folder for files of this run, removed after a run without failures.
    folder: Path
    # The folder in which the clients are installed.
    installed: Path

    @property
    def codex(self):
        return self.installed / "node/node_modules/.bin/codex"


def main():
    arguments = parse()
    parts = [(client, part) for client, parts in CLIENTS.items() for part in parts if wanted(arguments.only, client, part)]
    if not parts:
        sys.exit(f"no such part; the parts are {', '.join(f'{client}/{part}' for client in CLIENTS for part in CLIENTS[client])}")
    signal.signal(signal.SIGTERM, stop)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=arguments.work))
    rig = Rig(arguments.binary, folder)
    failed = 0
    try:
        rig.start()
        failed = run_all(Setup(rig, folder, arguments.work), parts, arguments.only)
    finally:
        code = rig.stop()
    if code:
        failed += 1
        print(f"FAIL steadfast: exited with {code}")
    if failed:
        print(f"The logs are in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{len(parts) - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


def stop(*_):
    """Ends the run and all processes that it started."""
    child.end_all()
    sys.exit("stopped")


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--binary", type=Path, required=True, help="the steadfast to test")
    parser.add_argument("--work", type=Path, required=True, help="where the clients are installed")
    parser.add_argument("only", nargs="*", metavar="CLIENT[/PART]", help="the clients and parts to run [default: all]")
    return parser.parse_args()


def wanted(only, client, part):
    return not only or client in only or f"{client}/{part}" in only


def run_all(setup, parts, only):
    """Runs the parts and prints a line for each client. Returns the number of failures."""
    with ThreadPoolExecutor() as beside:
        begun = {part: beside.submit(result, setup, *part) for part in parts if part[1] in BESIDE}
        return run_in_order(setup, parts, only, begun)


def run_in_order(setup, parts, only, begun):
    """Runs all parts but those that have begun, for whose end it waits."""
    failed = 0
    for client in CLIENTS:
        began, names, well = time.monotonic(), [part for of, part in parts if of == client], True
        for part in names:
            running = begun.get((client, part))
            if problem := running.result() if running else run_one(setup, client, part):
                well = False
                failed += 1
                print(f"FAIL {client}/{part}\n{indent(problem)}", flush=True)
        if names and well:
            # Parts that ran beside others have no time of their own.
            took = "" if all((client, part) in begun for part in names) else f" ({time.monotonic() - began:.1f} s)"
            print(f"ok   {client}: {', '.join(names)}{took}", flush=True)
    if left := setup.rig.in_flight():
        failed += 1
        print(f"FAIL overall: Steadfast counts {left} requests in flight after all clients have ended")
    accounts = {request.account for request in setup.rig.seen}
    if not only and len(accounts) != len(setup.rig.taps):
        failed += 1
        print(f"FAIL overall: only {sorted(accounts)} were used")
    return failed


def run_one(setup, client, part):
    """Runs one part and checks its requests. Returns a description of the failure, or None."""
    rig = setup.rig
    seen, logged = len(rig.seen), len(rig.log())
    complaints = len(rig.complaints())
    rig.script(lambda request: None)
    try:
        expected = CLIENTS[client][part](setup)
        reached = rig.seen[seen:]
        ids = {request.headers["x-request-id"] for request in reached if "x-request-id" in request.headers}
        log = rig.wait_for_log(logged, ids, sum(expected.refused.values()))
        verify.check(rig, reached, log, expected)
        if warned := rig.complaints()[complaints:]:
            raise Failure("Steadfast warned:\n" + "\n".join(warned))
    except Failure as failure:
        return f"{failure}\n{requests(rig.seen[seen:])}"
    except Exception:
        return f"{traceback.format_exc()}\n{requests(rig.seen[seen:])}"
    return None


def result(setup, client, part):
    """Runs one part that checks its requests itself. Returns a description of the failure, or None."""
    try:
        CLIENTS[client][part](setup)
    except Failure as failure:
        return str(failure)
    except Exception:
        return traceback.format_exc()
    return None


def requests(seen):
    """Returns the requests that reached the accounts, as text."""
    told = [
        f"  {request.method} {request.path} → {request.account}: {request.status}, session {verify.session_of(request)}"
        for request in seen
    ]
    return "requests that reached the accounts:\n" + "\n".join(told or ["  none"])


def indent(text):
    return "\n".join(f"     {line}" for line in text.splitlines())


if __name__ == "__main__":
    main()

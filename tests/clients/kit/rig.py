"""What the clients talk to: three simulated accounts, a tap on each, and Steadfast in front of them.

Everything is started here, listens on loopback at ports that the kernel picks, and is stopped here by its own process id.
"""

import json
import os
import re
import subprocess
import threading
import time

from kit.tap import Tap

ACCOUNTS = ("account-a", "account-b", "account-c")
# What clients show to Steadfast. No account may ever see it.
CALLERS_KEY = "sk-caller-0123456789abcdef"
START_TIMEOUT = 20
LOG_TIMEOUT = 15


class Failure(Exception):
    """Something is not as it has to be; the text is for the person who reads the report."""


def key_of(account):
    """The credential that an account accepts, and no other does."""
    return f"sk-upstream-{account}-fedcba9876543210"


class Process:
    """A child process whose output is read as it comes."""

    def __init__(self, command, environment, output):
        self.output = open(output, "w")
        self.child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines = {"stdout": [], "stderr": []}
        self.news = threading.Condition()
        for name in self.lines:
            threading.Thread(target=self._read, args=(name,), daemon=True).start()

    def _read(self, name):
        for line in getattr(self.child, name):
            with self.news:
                self.lines[name].append(line.rstrip("\n"))
                self.output.write(line)
                self.output.flush()
                self.news.notify_all()

    def wait_for(self, found, timeout, what):
        """Waits until `found()` is true of the lines, and returns what it returned."""
        deadline = time.monotonic() + timeout
        with self.news:
            while not (result := found()):
                left = deadline - time.monotonic()
                if left <= 0 or (self.child.poll() is not None and not self.news.wait(0.2)):
                    raise Failure(f"waited in vain for {what}; its output:\n{self.tail()}")
                self.news.wait(min(left, 0.5))
            return result

    def address(self, pattern, what):
        """The first group of `pattern` in a line of standard output."""
        match = self.wait_for(
            lambda: next((m for line in self.lines["stdout"] if (m := re.search(pattern, line))), None), START_TIMEOUT, what
        )
        return match.group(1)

    def tail(self):
        return "\n".join(self.lines["stdout"][-20:] + self.lines["stderr"][-20:])

    def stop(self):
        """Asks it to end, and ends it if it does not. Returns the exit code."""
        self.child.terminate()
        try:
            return self.child.wait(15)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return self.child.wait()


class Rig:
    """The accounts, the taps and Steadfast. `seen` is what reached the accounts, `log` what Steadfast wrote about it."""

    def __init__(self, binary, folder):
        self.binary = str(binary)
        self.folder = folder
        self.seen = []
        self.sims, self.taps, self.proxy = [], {}, None
        self.config = folder / "steadfast.toml"
        self.environment = {"PATH": os.environ["PATH"]}
        self.environment |= {variable(account): key_of(account) for account in ACCOUNTS}

    def start(self):
        for account in ACCOUNTS:
            command = [self.binary, "sim", "--listen", "127.0.0.1:0", "--name", account, "--pace", "2ms"]
            command += ["--api-key", key_of(account)]
            sim = Process(command, self.environment, self.folder / f"{account}.log")
            self.sims.append(sim)
            port = sim.address(r"listening on http://127\.0\.0\.1:(\d+)", f"the address of {account}")
            self.taps[account] = Tap(account, "127.0.0.1", int(port), self.seen)
        self.config.write_text(self.configuration())
        command = [self.binary, "serve", "-c", str(self.config), "--log-format", "json"]
        self.proxy = Process(command, self.environment, self.folder / "steadfast.log")
        self.root = self.proxy.address(r"Steadfast listens on (http://\S+)", "Steadfast's address")
        self.admin = self.proxy.address(r"admin side is on (http://\S+)", "the admin side's address")

    def configuration(self):
        upstreams = "\n".join(
            f'[[upstream]]\nname = "{name}"\nbase_url = "{tap.base_url}"\napi_key = "env:{variable(name)}"\n'
            for name, tap in self.taps.items()
        )
        return f'[server]\nlisten = "127.0.0.1:0"\n\n[admin]\nlisten = "127.0.0.1:0"\n\n{upstreams}'

    def script(self, answer):
        """Has the accounts answer with what `answer` returns for a request; see `Tap.script`."""
        for tap in self.taps.values():
            tap.script = answer

    def home(self, key, model=None):
        """The account that `steadfast route` names first."""
        command = [self.binary, "route", key, "-c", str(self.config), "--json"]
        command += ["--model", model] if model else []
        routed = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=20)
        if routed.returncode:
            raise Failure(f"steadfast route failed: {routed.stderr}")
        return json.loads(routed.stdout)["upstreams"][0]["name"]

    def keys(self, prefix, model, per_account):
        """Session keys beginning with `prefix`: that many for every account."""
        found = {account: [] for account in ACCOUNTS}
        for number in range(1000):
            if all(len(keys) == per_account for keys in found.values()):
                return found
            key = f"{prefix}-{number}"
            home = self.home(key, model)
            if len(found[home]) < per_account:
                found[home].append(key)
        raise Failure(f"of 1000 keys too few go to one of the accounts: {found}")

    def log(self, since=0):
        """The access log from line `since` on."""
        lines = [line for line in self.proxy.lines["stderr"] if '"target":"access"' in line]
        return [json.loads(line) for line in lines[since:]]

    def wait_for_log(self, since, request_ids, refused):
        """The access log from line `since` on, once the requests with these ids, and so many refused ones, have ended."""

        def ended():
            log = self.log(since)
            enough = sum(line["outcome"] == "refused" for line in log) >= refused
            return (log, True) if enough and request_ids <= {line["request_id"] for line in log} else None

        return self.proxy.wait_for(ended, LOG_TIMEOUT, "the access log to tell of every request")[0]

    def complaints(self):
        """What Steadfast logged beside the access log at level WARN or ERROR."""
        return [line for line in self.proxy.lines["stderr"] if '"level":"WARN"' in line or '"level":"ERROR"' in line]

    def stop(self):
        """Stops everything. Returns Steadfast's exit code."""
        code = self.proxy.stop() if self.proxy else None
        for tap in self.taps.values():
            tap.close()
        for sim in self.sims:
            sim.stop()
        return code


def variable(account):
    return account.upper().replace("-", "_") + "_KEY"

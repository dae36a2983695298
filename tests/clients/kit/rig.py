"""The servers of a run: three simulated accounts, a tap on each, and Steadfast in front of them.

This module starts all of them on loopback ports that the kernel chooses, and stops them by their process ids.
"""

import json
import os
import re
import urllib.request

from kit import child
from kit.child import Failure, Process
from kit.tap import Tap

ACCOUNTS = ("account-a", "account-b", "account-c")
# The API key that clients send to Steadfast. It must not reach any account.
CALLER_KEY = "sk-caller-0123456789abcdef"
START_TIMEOUT = 20
LOG_TIMEOUT = 15


def key_of(account):
    """Returns the only credential that the account accepts."""
    return f"sk-upstream-{account}-fedcba9876543210"


class Rig:
    """The accounts, the taps and Steadfast. `seen` has the requests that reached the accounts, `log` the access log."""

    def __init__(self, binary, folder, accounts=ACCOUNTS):
        self.binary = str(binary)
        self.folder = folder
        self.accounts = accounts
        # Where Steadfast listens; port 0 is a free port.
        self.listen = "127.0.0.1:0"
        self.seen = []
        self.homes = {}
        self.sims, self.taps, self.proxy = [], {}, None
        self.config = folder / "steadfast.toml"
        self.environment = {"PATH": os.environ["PATH"]}
        self.environment |= {variable(account): key_of(account) for account in accounts}

    def start(self):
        self.start_accounts()
        self.serve()

    def start_accounts(self):
        for account in self.accounts:
            command = [self.binary, "sim", "--listen", "127.0.0.1:0", "--name", account, "--pace", "2ms"]
            command += ["--api-key", key_of(account)]
            sim = Process(command, self.environment, self.folder / f"{account}.log")
            self.sims.append(sim)
            port = printed(sim, r"listening on http://127\.0\.0\.1:(\d+)")
            self.taps[account] = Tap(account, "127.0.0.1", int(port), self.seen)

    def serve(self, log="steadfast.log"):
        """Starts Steadfast in front of the taps."""
        self.config.write_text(self.configuration())
        command = [self.binary, "serve", "-c", str(self.config), "--log-format", "json"]
        self.proxy = Process(command, self.environment, self.folder / log)
        self.root = printed(self.proxy, r"Steadfast listens on (https?://\S+)")
        self.admin = printed(self.proxy, r"admin listener is on (http://\S+)")

    def configuration(self):
        upstreams = "\n".join(
            f'[[upstream]]\nname = "{name}"\nbase_url = "{tap.base_url}"\napi_key = "env:{variable(name)}"\n'
            for name, tap in self.taps.items()
        )
        return f'[server]\nlisten = "{self.listen}"\n\n[admin]\nlisten = "127.0.0.1:0"\n\n{upstreams}'

    def script(self, answer):
        """Sets the script of all taps; see `Tap.script`."""
        for tap in self.taps.values():
            tap.script = answer

    def home(self, key, model=None):
        """Returns the account that `steadfast route` names first."""
        if (key, model) not in self.homes:
            command = [self.binary, "route", key, "-c", self.config, "--json"] + (["--model", model] if model else [])
            routed = child.run(command, self.environment, timeout=20)
            if routed.returncode:
                raise Failure(f"steadfast route failed: {routed.stderr}")
            self.homes[key, model] = json.loads(routed.stdout)["upstreams"][0]["name"]
        return self.homes[key, model]

    def keys(self, prefix, model, per_account):
        """Returns `per_account` session keys that begin with `prefix` for each account."""
        found = {account: [] for account in self.accounts}
        for number in range(1000):
            if all(len(keys) == per_account for keys in found.values()):
                return found
            key = f"{prefix}-{number}"
            home = self.home(key, model)
            if len(found[home]) < per_account:
                found[home].append(key)
        raise Failure(f"too few of 1000 keys have their home at one of the accounts: {found}")

    def log(self, since=0):
        """Returns the access log from line `since` on."""
        lines = [line for line in self.proxy.lines["stderr"] if '"target":"access"' in line]
        return [json.loads(line) for line in lines[since:]]

    def wait_for_log(self, since, request_ids, refused):
        """Waits until the access log has the requests with these ids and `refused` refusals. Returns it from line `since` on."""

        def ended():
            log = self.log(since)
            enough = sum(line["outcome"] == "refused" for line in log) >= refused
            return (log, True) if enough and request_ids <= {line["request_id"] for line in log} else None

        return self.proxy.wait_for(ended, LOG_TIMEOUT, "the access log lines of all requests")[0]

    def in_flight(self):
        """Returns the number of requests in flight according to Steadfast's metrics."""
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=10) as metrics:
            lines = metrics.read().decode().splitlines()
        counted = [line for line in lines if line.startswith("steadfast_in_flight_requests{")]
        if len(counted) != len(self.accounts):
            raise Failure(f"steadfast_in_flight_requests has {len(counted)} series, not one for each account")
        return sum(float(line.rsplit(" ", 1)[1]) for line in counted)

    def complaints(self):
        """Returns the log lines of level WARN or ERROR."""
        return [line for line in self.proxy.lines["stderr"] if '"level":"WARN"' in line or '"level":"ERROR"' in line]

    def stop(self):
        """Stops everything. Returns Steadfast's exit code."""
        code = self.proxy.stop() if self.proxy else None
        for tap in self.taps.values():
            tap.close()
        for sim in self.sims:
            sim.stop()
        return code


class SecondRig(Rig):
    """The accounts of another rig behind new taps and a Steadfast of its own."""

    def __init__(self, rig, folder):
        folder.mkdir()
        super().__init__(rig.binary, folder)
        self.first = rig

    def start(self):
        for account in ACCOUNTS:
            self.taps[account] = Tap(account, *self.first.taps[account].upstream, self.seen)
        self.serve()


def variable(account):
    return account.upper().replace("-", "_") + "_KEY"


def printed(process, pattern):
    """Waits for a line of the process that matches `pattern`. Returns the first group."""
    found = lambda: next((match for line in process.lines["stdout"] if (match := re.search(pattern, line))), None)
    return process.wait_for(found, START_TIMEOUT, pattern).group(1)

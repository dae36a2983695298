"""The works: what is done to a proxy, and what is read off."""

import json
import os
import statistics
import subprocess
from pathlib import Path

from .processes import Process, spent

LOAD = Path(__file__).resolve().parent.parent / "load.lua"
# Enough to keep a core busy; fewer where bodies are long, so that they do not queue in the kernel.
CONNECTIONS = {"POST 512 KB": 16, "POST 4 MB": 4}


class Bench:
    """Where things are, and on which cores."""

    def __init__(self, sink, bodies, folder, proxy_core, load_core):
        self.sink = sink
        self.bodies = bodies
        self.folder = folder
        self.proxy_core = proxy_core
        self.load_core = load_core


def wrk(bench, address, work, seconds, connections):
    """Runs wrk; what it says at its end."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "-s", LOAD, f"http://{address}/"]
    # wrk knows whole seconds only.
    command[3] = f"-d{max(1, round(seconds))}s"
    command = ["taskset", "-c", str(bench.load_core), *map(str, command)]
    env = {**os.environ, "BODY": bench.bodies[work]}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=seconds + 30, check=False)
    last = done.stdout.strip().splitlines()[-1:] or [""]
    if done.returncode or not last[0].startswith("{"):
        raise RuntimeError(f"wrk failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    return json.loads(last[0])


def requests(bench, proxy, work, seconds):
    """As many requests as the proxy's core, or the load's, can do."""
    before = proxy.process.cpu()
    result = wrk(bench, proxy.address, work, seconds, CONNECTIONS.get(work, 64))
    busy = spent(before, proxy.process.cpu())
    refuse_failures(proxy, work, result["failed"])
    return {
        "per_second": result["requests"] / result["seconds"],
        "p50": result["p50"],
        "p99": result["p99"],
        "p999": result["p999"],
        "cpu_us": busy * 1e6 / max(1, result["requests"]),
        "core": busy / result["seconds"],
        "rss_mb": proxy.process.rss() / 1e6,
    }


def latency(bench, proxy, work, direct, seconds):
    """One connection, and everything on one core: what the proxy adds to the way without it."""
    proxy.process.pin(bench.load_core)
    try:
        without = wrk(bench, f"127.0.0.1:{direct}", work, seconds, 1)
        result = wrk(bench, proxy.address, work, seconds, 1)
    finally:
        proxy.process.pin(bench.proxy_core)
    refuse_failures(proxy, work, result["failed"])
    return {"added_us": result["p50"] - without["p50"], "direct_us": without["p50"]}


class Holder:
    """Many connections held open to one proxy."""

    def __init__(self, bench, proxy, *arguments):
        command = [bench.sink, arguments[0], proxy.address, *arguments[1:]]
        log = Path(bench.folder) / "holder.log"
        self.proxy = proxy
        self.process = Process(command, bench.load_core, log, stdout=subprocess.PIPE)
        line = self.process.child.stdout.readline()
        if not line.startswith("open"):
            said = log.read_text().strip().splitlines()[-1:]
            self.process.stop()
            raise RuntimeError(f"{proxy.name}: connections were not held: {' '.join(said)}")

    def end(self):
        line = self.process.child.stdout.readline()
        self.process.stop()
        result = json.loads(line or '{"lost":1}')
        if result["lost"]:
            raise RuntimeError(f"{self.proxy.name}: {result['lost']} connections were lost")
        return result


def events(bench, proxy, rate, seconds, streams=500):
    """Relays event streams."""
    holder = Holder(bench, proxy, "streams", streams, rate, seconds)
    before = proxy.process.cpu()
    result = holder.end()
    busy = spent(before, proxy.process.cpu())
    return {
        "per_second": result["events"] / result["seconds"],
        "cpu_us": busy * 1e6 / max(1, result["events"]),
        "core": busy / result["seconds"],
        "rss_mb": proxy.process.rss() / 1e6,
    }


def idle(bench, proxy, what, count):
    """Resident memory that each of many idle connections costs; `proxy` is fresh."""
    before = proxy.process.rss()
    arguments = ("streams", count, "0", 0.5) if what == "streams" else ("connections", count, 0.5)
    holder = Holder(bench, proxy, *arguments)
    after = proxy.process.rss()
    holder.end()
    return {"kb_each": (after - before) / count / 1024, "rss_mb": after / 1e6}


def refuse_failures(proxy, work, failed):
    if failed:
        raise RuntimeError(f"{proxy.name}, {work}: {failed} requests failed")


def medians(runs):
    """The median of each figure."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}

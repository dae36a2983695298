"""The workloads: the load on a proxy, and the measured values."""

import json
import os
import statistics
import subprocess
from pathlib import Path

from .processes import Process, spent

LOAD = Path(__file__).resolve().parent.parent / "load.lua"
# The number of connections for workloads that do not use 64. With 64 a core is busy. Long bodies use fewer connections, so that
# they do not queue in the kernel.
CONNECTIONS = {"POST 512 KB": 16, "POST 4 MB": 4}


class Bench:
    """The paths and cores of a comparison."""

    def __init__(self, sink, bodies, folder, cores):
        self.sink = sink
        self.bodies = bodies
        self.folder = folder
        self.cores = cores


def wrk(bench, url, load, seconds, connections):
    """Runs wrk and returns its result. `load` is the name of a body."""
    # wrk accepts only whole seconds.
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", str(LOAD), url]
    command = ["taskset", "-c", str(bench.cores.load), *command]
    env = {**os.environ, "BODY": bench.bodies[load]}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=seconds + 30, check=False)
    last = done.stdout.strip().splitlines()[-1:] or [""]
    if done.returncode or not last[0].startswith("{"):
        raise RuntimeError(f"wrk failed: {done.stdout[-500:]}{done.stderr[-500:]}")
    result = json.loads(last[0])
    if result["failed"]:
        raise RuntimeError(f"{url}, {load}: {result['failed']} requests failed")
    return result


def requests(bench, proxy, load, seconds):
    """Sends as many requests as the core of the proxy or of the load can handle."""
    before = proxy.process.cpu()
    result = wrk(bench, proxy.url, load, seconds, CONNECTIONS.get(load, 64))
    busy = spent(before, proxy.process.cpu())
    return {
        "per_second": result["requests"] / result["seconds"],
        "p50": result["p50"],
        "p99": result["p99"],
        "p999": result["p999"],
        "cpu_us": busy * 1e6 / max(1, result["requests"]),
        "core": busy / result["seconds"],
        "rss_mb": proxy.process.rss() / 1e6,
    }


def median_latency(bench, url, load, seconds):
    """Returns the median latency with one connection in microseconds."""
    return wrk(bench, url, load, seconds, 1)["p50"]


def scaling(bench, one, two, load, seconds):
    """Measures the CPU time of a request with one worker and with two. If CPU is the limit, two workers handle twice the requests
    divided by the increase of that time."""
    one, two = (requests(bench, proxy, load, seconds) for proxy in (one, two))
    return {
        "one_us": one["cpu_us"],
        "two_us": two["cpu_us"],
        "carries": 2 * one["cpu_us"] / two["cpu_us"],
        "one_per_second": one["per_second"],
        "two_per_second": two["per_second"],
        "two_cores": two["core"],
    }


class Holder:
    """A process that holds many connections to one proxy."""

    def __init__(self, bench, proxy, *arguments):
        command = [bench.sink, arguments[0], proxy.address, *arguments[1:]]
        log = Path(bench.folder) / "holder.log"
        self.proxy = proxy
        self.process = Process(command, [bench.cores.load], log, stdout=subprocess.PIPE)
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
    """Measures the relay of event streams."""
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
    """Measures the resident memory of an idle connection. `proxy` has been started for this measurement."""
    before = proxy.process.rss()
    arguments = ("streams", count, "0", 0.5) if what == "streams" else ("connections", count, 0.5)
    holder = Holder(bench, proxy, *arguments)
    after = proxy.process.rss()
    holder.end()
    return {"kb_each": (after - before) / count / 1024, "rss_mb": after / 1e6}


def medians(runs):
    """Returns the median of each value."""
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}

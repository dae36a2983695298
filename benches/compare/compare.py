"""Runs every work on every proxy in turn, several times, and prints the medians. Started by `run`."""

import argparse
import json
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from kit import bodies, processes, proxies, table, works

EVENTS = {"SSE 500 × 50/s": "50", "SSE 500, all they take": "max"}
IDLE = {"5,000 idle SSE streams": "streams", "5,000 idle connections": "connections"}
LATENCY = ["GET", "POST 64 KB", "POST 512 KB"]
QUICK = ["GET", "POST 40 KB", "POST 512 KB"]


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("steadfast", "sink", "recordings", "out"):
        parser.add_argument(f"--{name}", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="one repetition, fewer works: under a minute")
    parser.add_argument("--only", default="", help="works whose names contain one of these, separated by commas")
    parser.add_argument("--proxies", default="", help="these only, separated by commas")
    parser.add_argument("--repeat", type=int, help="repetitions of each work [default: 3]")
    return parser.parse_args()


class Comparison:
    def __init__(self, args, bench, kinds, upstreams):
        self.args = args
        self.bench = bench
        self.kinds = kinds
        self.upstreams = upstreams
        self.repeat = args.repeat or (1 if args.quick else 3)
        self.results = {"requests": {}, "latency": {}, "events": {}, "idle": {}}
        self.problems = []

    def wanted(self, work):
        only = [part.strip().lower() for part in self.args.only.split(",") if part.strip()]
        return not only or any(part in work.lower() for part in only)

    def start(self, kind):
        return proxies.Proxy(kind, self.upstreams, self.bench.proxy_core, self.bench.folder)

    def interleaved(self, kind, work, running, measure, repeat=None):
        """A B C A B C …, so that what disturbs the machine disturbs all alike."""
        runs = {proxy.name: [] for proxy in running}
        failed = {}
        for _ in range(repeat or self.repeat):
            for proxy in running:
                if proxy.name in failed:
                    continue
                try:
                    runs[proxy.name].append(measure(proxy))
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    failed[proxy.name] = "failed"
                    self.problems.append(f"{proxy.name}, {work}: {error}")
                proxy.tidy()
        figures = {name: failed.get(name) or works.medians(all_runs) for name, all_runs in runs.items()}
        self.results[kind][work] = figures
        print(f"  {kind} {work}: {summary(figures)}", file=sys.stderr, flush=True)

    def requests(self, running, seconds):
        for work in self.bench.bodies:
            if not self.wanted(work) or (self.args.quick and work not in QUICK):
                continue
            size = Path(self.bench.bodies[work]).stat().st_size if self.bench.bodies[work] else 0
            able = [proxy for proxy in running if size < (proxy.kind.largest or size + 1)]
            self.interleaved("requests", work, able, lambda proxy: works.requests(self.bench, proxy, work, seconds))
            for proxy in running:
                if proxy not in able:
                    self.results["requests"][work][proxy.name] = "the body is larger than its buffer"

    def everything(self):
        running = [self.start(kind) for kind in self.kinds]
        # The first requests open connections.
        for proxy in running:
            works.wrk(self.bench, proxy.address, "GET", 1, 64)
            proxy.tidy()
        self.requests(running, 1)
        for work in LATENCY:
            if self.wanted(f"latency {work}") and not self.args.quick:
                direct = self.upstreams[0]
                self.interleaved(
                    "latency", work, running, lambda proxy: works.latency(self.bench, proxy, work, direct, 1)
                )
        for work, rate in EVENTS.items():
            if self.wanted(work):
                seconds = 1 if self.args.quick else 2
                self.interleaved("events", work, running, lambda proxy: works.events(self.bench, proxy, rate, seconds))
        for proxy in running:
            proxy.process.stop()
        for work, what in IDLE.items():
            if self.wanted(work) and (not self.args.quick or what == "streams"):
                self.interleaved("idle", work, [Fresh(self, kind, what) for kind in self.kinds], Fresh.measure, 1)


class Fresh:
    """A proxy that is started for one measurement: allocators keep what others needed."""

    def __init__(self, comparison, kind, what):
        self.comparison = comparison
        self.kind = kind
        self.name = kind.name
        self.what = what

    def measure(self):
        proxy = self.comparison.start(self.kind)
        try:
            works.wrk(self.comparison.bench, proxy.address, "GET", 1, 8)
            return works.idle(self.comparison.bench, proxy, self.what, 5000)
        finally:
            proxy.process.stop()

    def tidy(self):
        pass


def summary(figures):
    def main_figure(some):
        if isinstance(some, str):
            return some
        name = next(name for name in ("cpu_us", "added_us", "kb_each") if name in some)
        return f"{some[name]:.1f} {name}"

    return " · ".join(f"{name} {main_figure(some)}" for name, some in figures.items())


def versions(kinds):
    """Name and number of each program."""
    found = {}
    for kind in kinds:
        flag = "--version" if kind.name in ("steadfast", "envoy-body") else "-v"
        said = subprocess.run([kind.program, flag], capture_output=True, text=True, timeout=10, check=False)
        number = re.search(r"(?<=[ /])\d+\.\d+\.\d+", said.stdout + said.stderr)
        found[kind.name.split("-")[0]] = number[0] if number else "?"
    return [f"{name} {number}" for name, number in found.items()]


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def start_upstreams(args, core, folder):
    sink = processes.Process([args.sink, "serve", 4], core, Path(folder) / "sink.log", stdout=subprocess.PIPE)
    line = sink.child.stdout.readline()
    if not line.startswith("ports "):
        raise RuntimeError("the upstreams did not start")
    return [int(port) for port in line.split()[1:]]


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    kinds, missing = proxies.kinds(args.steadfast)
    names = [name.strip() for name in args.proxies.split(",") if name.strip()]
    kinds = [kind for kind in kinds if not names or kind.name in names]
    for line in missing:
        print(line, file=sys.stderr)
    proxy_core, load_core = processes.cores()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="steadfast-compare-") as folder:
        try:
            upstreams = start_upstreams(args, load_core, folder)
            bench = works.Bench(args.sink, bodies.write(folder, args.recordings), folder, proxy_core, load_core)
            comparison = Comparison(args, bench, kinds, upstreams)
            comparison.everything()
        finally:
            processes.stop_all()
    notes = [
        f"{processor()}, Linux {platform.release()}; {', '.join(versions(kinds))}.",
        f"Medians of {comparison.repeat} interleaved runs; in brackets the ratio to {proxies.REFERENCE} in the same run.",
        *missing,
    ]
    text = table.markdown(comparison.results, notes)
    (out / "result.md").write_text(text)
    (out / "result.json").write_text(json.dumps(comparison.results, indent=1, ensure_ascii=False))
    print(text)
    seconds = time.monotonic() - started
    print(f"{seconds:.0f} s; written to {out}/result.md and result.json", file=sys.stderr)
    for problem in comparison.problems:
        print(problem, file=sys.stderr)
    return 1 if comparison.problems else 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs every workload on every proxy, several times and in turn."""

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import proxies, works
from .proxies import Way

# Workload → the load that it sends.
TLS_IN = {"GET, TLS in": "GET", "POST 40 KB, TLS in": "POST 40 KB"}
TLS_OUT = {"POST 40 KB, TLS out": "POST 40 KB"}
SCALING = {"GET, two workers": "GET"}
LATENCY = {f"latency {load}": load for load in ("GET", "POST 64 KB", "POST 512 KB")}
EVENTS = {"SSE 500 × 50/s": "50", "SSE 500, unthrottled": "max"}
IDLE = {"5,000 idle SSE streams": "streams", "5,000 idle connections": "connections"}
QUICK = {"GET", "POST 40 KB", "POST 512 KB", *EVENTS, "5,000 idle SSE streams"}


class Comparison:
    """`upstreams` has the ports of the upstreams without and with TLS."""

    def __init__(self, args, bench, kinds, upstreams):
        self.args = args
        self.bench = bench
        self.kinds = kinds
        self.upstreams = upstreams
        self.repeat = args.repeat or (1 if args.quick else 3)
        self.results = {"requests": {}, "scaling": {}, "latency": {}, "events": {}, "idle": {}}
        self.problems = []
        self.started = time.monotonic()

    def wanted(self, some):
        """Returns those of `some` workloads that the arguments select."""
        only = [part.strip().lower() for part in self.args.only.split(",") if part.strip()]
        asked = {work: what for work, what in some.items() if not only or any(part in work.lower() for part in only)}
        return {work: what for work, what in asked.items() if not self.args.quick or work in QUICK}

    def start(self, kind, way=Way()):
        cores = [self.bench.cores.proxy] if way.workers == 1 else self.bench.cores.pair
        return proxies.Proxy(kind, self.upstreams, cores, self.bench.folder, way)

    def start_all(self, way=Way()):
        running = [self.start(kind, way) for kind in self.kinds]
        # A first load, so that the connections are open before the measurement.
        with ThreadPoolExecutor() as at_once:
            list(at_once.map(lambda proxy: works.wrk(self.bench, proxy.url, "GET", 1, 64), running))
        return running

    def interleaved(self, kind, work, running, measure, repeat=None):
        """Measures in the order A B C A B C …, so that a disturbance of the machine affects all proxies alike."""
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
        elapsed = time.monotonic() - self.started
        print(f"{elapsed:4.0f} s  {work}: {summary(figures)}", file=sys.stderr, flush=True)

    def requests(self, running, some):
        for work, load in self.wanted(some).items():
            path = self.bench.bodies[load]
            size = Path(path).stat().st_size if path else 0
            able = [proxy for proxy in running if size < (proxy.kind.largest or size + 1)]
            self.interleaved("requests", work, able, lambda proxy: works.requests(self.bench, proxy, load, 1))
            for proxy in running:
                if proxy not in able:
                    self.results["requests"][work][proxy.name] = "the body is larger than the buffer"

    def over_tls(self):
        for some, way in ((TLS_IN, Way(tls_in=True)), (TLS_OUT, Way(tls_out=True))):
            if self.wanted(some):
                running = self.start_all(way)
                self.requests(running, some)
                stop(running)

    def scaling(self, running):
        some = self.wanted(SCALING)
        if not some:
            return
        pairs = {proxy.name: proxy for proxy in self.start_all(Way(workers=2))}
        for work, load in some.items():
            self.interleaved(
                "scaling", work, running, lambda proxy: works.scaling(self.bench, proxy, pairs[proxy.name], load, 1)
            )
        stop(pairs.values())

    def latency(self, running):
        """Measures the latency that a proxy adds, with one connection and all processes on one core."""
        direct = f"http://127.0.0.1:{self.upstreams[False][0]}/"
        some = self.wanted(LATENCY)
        for proxy in running if some else []:
            proxy.process.pin([self.bench.cores.load])
        for work, load in some.items():
            without = {}

            def measure(proxy, load=load, without=without):
                # The latency without a proxy is measured once in each round.
                if proxy is running[0]:
                    without["p50"] = works.median_latency(self.bench, direct, load, 1)
                p50 = works.median_latency(self.bench, proxy.url, load, 1)
                return {"added_us": p50 - without["p50"], "direct_us": without["p50"]}

            self.interleaved("latency", work, running, measure)
        for proxy in running if some else []:
            proxy.process.pin(proxy.cores)

    def events(self, running):
        for work, rate in self.wanted(EVENTS).items():
            self.interleaved("events", work, running, lambda proxy: works.events(self.bench, proxy, rate, 1))

    def idle(self):
        for work, what in self.wanted(IDLE).items():
            self.interleaved("idle", work, [Fresh(self, kind, what) for kind in self.kinds], Fresh.measure, 1)

    def everything(self):
        running = self.start_all()
        self.requests(running, {load: load for load in self.bench.bodies})
        self.over_tls()
        self.scaling(running)
        self.latency(running)
        self.events(running)
        stop(running)
        self.idle()


class Fresh:
    """A proxy that is started for one measurement, because allocators keep the memory of earlier workloads."""

    def __init__(self, comparison, kind, what):
        self.comparison = comparison
        self.kind = kind
        self.name = kind.name
        self.what = what

    def measure(self):
        proxy = self.comparison.start(self.kind)
        try:
            works.wrk(self.comparison.bench, proxy.url, "GET", 1, 8)
            return works.idle(self.comparison.bench, proxy, self.what, 5000)
        finally:
            proxy.process.stop()

    def tidy(self):
        pass


def stop(running):
    for proxy in running:
        proxy.process.stop()


def summary(figures):
    def main_figure(some):
        if isinstance(some, str):
            return some
        name = next(name for name in ("cpu_us", "carries", "added_us", "kb_each") if name in some)
        return f"{some[name]:.1f} {name}"

    return " · ".join(f"{name} {main_figure(some)}" for name, some in figures.items())

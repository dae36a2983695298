"""Runs the comparison and prints the medians. Started by `run`."""

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
from kit.comparison import Comparison


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("steadfast", "sink", "recordings", "out"):
        parser.add_argument(f"--{name}", required=True, help=argparse.SUPPRESS)
    parser.add_argument("--quick", action="store_true", help="one repetition of fewer workloads: under a minute")
    parser.add_argument("--only", default="", help="only workloads with one of these texts, separated by commas, in their names")
    parser.add_argument("--proxies", default="", help="only these proxies, separated by commas")
    parser.add_argument("--repeat", type=int, help="repetitions of each workload [default: 3]")
    return parser.parse_args()


def versions(kinds):
    """Returns the name and version of each program."""
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
    """Starts the upstreams, which write their certificate into `folder`. Returns their ports without and with TLS."""
    command = [args.sink, "serve", 4, folder]
    sink = processes.Process(command, [core], Path(folder) / "sink.log", stdout=subprocess.PIPE)
    lines = [sink.child.stdout.readline().split() for _ in range(2)]
    if [line[:1] for line in lines] != [["ports"], ["tls"]]:
        raise RuntimeError("the upstreams did not start")
    plain, tls = ([int(port) for port in line[1:]] for line in lines)
    return {False: plain, True: tls}


def main():
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    kinds, missing = proxies.kinds(args.steadfast)
    names = [name.strip() for name in args.proxies.split(",") if name.strip()]
    kinds = [kind for kind in kinds if not names or kind.name in names]
    for line in missing:
        print(line, file=sys.stderr)
    cores = processes.Cores()
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="steadfast-compare-") as folder:
        try:
            upstreams = start_upstreams(args, cores.load, folder)
            bench = works.Bench(args.sink, bodies.write(folder, args.recordings), folder, cores)
            comparison = Comparison(args, bench, kinds, upstreams)
            comparison.everything()
        finally:
            processes.stop_all()
    notes = [
        f"{processor()}, Linux {platform.release()}; {', '.join(versions(kinds))}.",
        f"Medians of {comparison.repeat} interleaved runs; in brackets the ratio to {proxies.REFERENCE} in the same run.",
        *missing,
    ]
    if comparison.results["scaling"] and cores.shares:
        notes.append("Two workers share the second core with the load: compare their CPU per request, not their requests/s.")
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

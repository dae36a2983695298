"""Starts, measures and stops processes."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

started = []


class Cores:
    """The cores of the processes. With two cores a proxy's second worker shares the core of the load."""

    def __init__(self):
        usable = sorted(os.sched_getaffinity(0))
        self.proxy, self.load = usable[:2]
        self.pair = [self.proxy, usable[2] if len(usable) > 2 else self.load]
        self.shares = self.load in self.pair


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Process:
    """A command in its own session, pinned to some cores."""

    def __init__(self, command, cores, log, env=None, stdout=None):
        self.command = command
        # The log is opened for appending, so that it can be truncated while the process writes to it.
        with open(log, "ab") as file:
            self.child = subprocess.Popen(
                ["taskset", "-c", ",".join(map(str, cores)), *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=stdout or file,
                stderr=file,
                start_new_session=True,
                env={**os.environ, **(env or {})},
                text=True,
            )
        self.log = Path(log)
        started.append(self)

    def members(self):
        """Returns all processes of the process group, such as the master and the workers of nginx."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if int(fields[2]) == self.child.pid:
                    found.append(entry)
        return found

    def threads(self):
        return [task for member in self.members() for task in tasks(member)]

    def cpu(self):
        """Returns the CPU time of each thread in nanoseconds."""
        spent = {}
        for thread in self.threads():
            try:
                spent[thread.name] = int((thread / "schedstat").read_text().split()[0])
            except OSError:
                continue
        return spent

    def rss(self):
        """Returns the resident memory in bytes. Pages that the processes share are counted once."""
        total = 0
        for member in self.members():
            try:
                lines = (member / "smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        return total * 1024

    def pin(self, cores):
        for thread in self.threads():
            try:
                os.sched_setaffinity(int(thread.name), set(cores))
            except OSError:
                continue

    def stop(self):
        if self in started:
            started.remove(self)
        for request in (signal.SIGTERM, signal.SIGKILL):
            if self.child.poll() is None:
                # The process group contains only this command and its children.
                os.killpg(self.child.pid, request)
                try:
                    self.child.wait(3)
                except subprocess.TimeoutExpired:
                    continue
        if self.child.stdout:
            self.child.stdout.close()


def tasks(member):
    try:
        return list((member / "task").iterdir())
    except OSError:
        return []


def spent(before, after):
    """Returns the CPU time between two results of Process.cpu in seconds."""
    return sum(now - before.get(thread, 0) for thread, now in after.items()) / 1e9


def stop_all():
    for process in list(started):
        process.stop()


def wait_for_port(port, process, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.child.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"{process.command[0]} does not listen:\n{process.log.read_text()[-2000:]}")

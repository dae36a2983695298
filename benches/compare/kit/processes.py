"""Processes that are started here, what the kernel says about them, and their end."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

started = []


class Cores:
    """Who runs where. With two cores, a proxy's second worker shares the load's core."""

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
    """A command in a session of its own, pinned to some cores."""

    def __init__(self, command, cores, log, env=None, stdout=None):
        self.command = command
        # Appended to, so that it can be emptied while it is written.
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
        """Everything in its process group: nginx has a worker beside its master."""
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
        """Nanoseconds on a processor, of each thread."""
        spent = {}
        for thread in self.threads():
            try:
                spent[thread.name] = int((thread / "schedstat").read_text().split()[0])
            except OSError:
                continue
        return spent

    def rss(self):
        """Resident bytes, pages that its processes share counted once."""
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
                # Its own group, which nobody else is in.
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
    """Seconds between two readings of Process.cpu."""
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

"""Child processes that never outlive the run."""

import os
import signal
import subprocess
import threading
import time


class Failure(Exception):
    """Something is not as it has to be; the text is for the person who reads the report."""


# The groups of what `run` runs, in whatever thread.
running = set()


def run(command, environment, timeout, folder=None):
    """Runs a command to its end and returns it with its output. On a timeout it goes, with all that it started."""
    command = [str(word) for word in command]
    # codex is a script that starts the real one: in a group of their own both can be ended.
    child = subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )
    running.add(child.pid)
    try:
        out, err = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        out, err = child.communicate()
        raise Failure(f"it did not end within {timeout} s: {command}\n{out}\n{err}") from None
    finally:
        running.discard(child.pid)
        # Interrupted: nobody waits for it any more.
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def end_all():
    """Ends what still runs, so that no thread goes on waiting for it."""
    for group in list(running):
        os.killpg(group, signal.SIGKILL)


class Process:
    """A server whose output is read as it comes, and kept in a file."""

    def __init__(self, command, environment, output):
        self.output = open(output, "w")
        self.child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines = {"stdout": [], "stderr": []}
        self.news = threading.Condition()
        self.readers = [threading.Thread(target=self._read, args=(name,), daemon=True) for name in self.lines]
        for reader in self.readers:
            reader.start()

    def _read(self, name):
        for line in getattr(self.child, name):
            with self.news:
                self.lines[name].append(line.rstrip("\n"))
                self.output.write(line)
                self.output.flush()
                self.news.notify_all()
        with self.news:
            self.news.notify_all()

    def wait_for(self, found, timeout, what):
        """Waits until `found()` is true of the lines, and returns what it returned."""
        deadline = time.monotonic() + timeout
        with self.news:
            while not (result := found()):
                left = deadline - time.monotonic()
                ended = not any(reader.is_alive() for reader in self.readers)
                if left <= 0 or ended:
                    raise Failure(f"waited in vain for {what}; the output was:\n{self.tail()}")
                self.news.wait(min(left, 1))
            return result

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

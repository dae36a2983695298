"""Child processes. All of them are stopped at the end of the run."""

import os
import signal
import subprocess
import tempfile
import threading
import time


class Failure(Exception):
    """A failed check. The text is printed in the report."""


# The process groups of all commands that `run` is running, in any thread.
running = set()


def run(command, environment, timeout, folder=None):
    """Runs a command to its end and returns it with its output. On a timeout it is killed with all its children."""
    command = [str(word) for word in command]
    # codex is a script that starts the real program. Both are in a process group of their own, so that both can be killed.
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
        raise Failure(f"the command did not end within {timeout} s: {command}\n{out}\n{err}") from None
    finally:
        running.discard(child.pid)
        # This thread was interrupted, so the command must end here.
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def run_in_turns(command, environment, timeout, after_turn):
    """Runs a command that prints `turn N` and then waits for a line. `after_turn(N)` is called before it goes on.

    Returns the exit code and the errors that it printed.
    """
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            [str(word) for word in command], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
            text=True, start_new_session=True,
        )
        running.add(child.pid)
        clock = threading.Timer(timeout, os.killpg, (child.pid, signal.SIGKILL))
        clock.start()
        try:
            for line in child.stdout:
                if line.startswith("turn "):
                    after_turn(int(line.split()[1]))
                    child.stdin.write("go on\n")
                    child.stdin.flush()
            code = child.wait()
        finally:
            clock.cancel()
            running.discard(child.pid)
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        errors.seek(0)
        return code, errors.read()


def end_all():
    """Kills all running commands, so that no thread waits for them."""
    for group in list(running):
        os.killpg(group, signal.SIGKILL)


class Process:
    """A server process. Its output is read continuously and written to a file."""

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
        """Waits until `found()` returns a true value, and returns that value."""
        deadline = time.monotonic() + timeout
        with self.news:
            while not (result := found()):
                left = deadline - time.monotonic()
                ended = not any(reader.is_alive() for reader in self.readers)
                if left <= 0 or ended:
                    raise Failure(f"timed out while waiting for {what}; the output was:\n{self.tail()}")
                self.news.wait(min(left, 1))
            return result

    def tail(self):
        return "\n".join(self.lines["stdout"][-20:] + self.lines["stderr"][-20:])

    def stop(self):
        """Terminates the process, and kills it if it does not exit. Returns the exit code."""
        self.child.terminate()
        try:
            return self.child.wait(15)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return self.child.wait()

"""Setups with accounts of their own: Steadfast alone, restarted in the middle, or as two processes behind a balancer."""

import threading
from urllib.parse import urlsplit

from kit.codex import expect
from kit.rig import ACCOUNTS, Rig
from kit.tap import Tap
from kit.verify import SESSION_HEADER


class Arena(Rig):
    """New accounts and one Steadfast."""

    def __init__(self, binary, folder, accounts=ACCOUNTS):
        folder.mkdir()
        super().__init__(binary, folder, accounts)
        # Every Steadfast that was started and has not been stopped by the test, with its admin address.
        self.serving = []
        self.warnings = []

    def serve(self, log="steadfast.log"):
        super().serve(log)
        self.serving.append((self.proxy, self.admin))

    def after_turn(self, turn):
        """Is called after all sessions have had this turn, while no request is running."""

    def finish(self):
        """Checks that nothing is left in flight, that all ended well and that nothing was logged as a warning."""
        for self.proxy, self.admin in self.serving:
            left = self.in_flight()
            expect(left == 0, f"Steadfast counts {left} requests in flight after the clients have ended")
            self.end(self.proxy)
        self.serving = []
        expect(not self.warnings, "Steadfast warned:\n" + "\n".join(self.warnings))

    def end(self, proxy):
        """Stops one Steadfast."""
        self.proxy = proxy
        code = proxy.stop()
        self.warnings += self.complaints()
        expect(code == 0, f"steadfast ended with {code}")

    def stop(self):
        for self.proxy, _ in self.serving:
            self.proxy.stop()
        self.proxy = None
        return super().stop()


class RestartedArena(Arena):
    """Steadfast is stopped in the middle of the sessions and started again on the same port."""

    LAST_TURN = 1

    def after_turn(self, turn):
        if turn == self.LAST_TURN:
            ((proxy, _),) = self.serving
            self.serving = []
            self.listen = urlsplit(self.root).netloc
            self.end(proxy)
            self.serve("steadfast-again.log")


class ReplicatedArena(Arena):
    """Two Steadfast processes with the same configuration. The requests of each session alternate between them."""

    balancer = None

    def start(self):
        self.start_accounts()
        roots = []
        for log in ("steadfast-1.log", "steadfast-2.log"):
            self.serve(log)
            roots.append(self.root)
        self.balancer = RoundRobin(roots)
        self.root = self.balancer.root

    def stop(self):
        if self.balancer:
            self.balancer.close()
        return super().stop()


class RoundRobin(Tap):
    """A balancer that sends the requests of a session to one upstream after the other."""

    def __init__(self, roots):
        super().__init__("balancer", None, None, [])
        self.addresses = [(urlsplit(root).hostname, urlsplit(root).port) for root in roots]
        self.counts = {}
        self.lock = threading.Lock()

    def upstream_for(self, seen):
        name = seen.headers.get(SESSION_HEADER)
        with self.lock:
            count = self.counts[name] = self.counts.get(name, -1) + 1
        return self.addresses[count % len(self.addresses)]

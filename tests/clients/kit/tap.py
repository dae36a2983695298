"""A relay in front of a simulated account that records what reaches the account.

It relays HTTP/1.1 piece by piece. If a scenario needs the model to act, for example to call a tool, `script` replaces the output
items of the account's response. The response id, the usage and the turn state remain those of the account.
"""

import http.client
import json
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
PIECE = 64 * 1024
TIMEOUT = 60


@dataclass
class Seen:
    """A request as it reached an account. Header names are in lower case."""

    account: str
    method: str
    path: str
    headers: dict
    body: bytes
    status: int = 0
    # The body of the account's answer, as far as it has been relayed.
    answer: bytearray = field(default_factory=bytearray)
    json: dict = field(init=False)

    def __post_init__(self):
        try:
            parsed = json.loads(self.body) if self.body else {}
        except ValueError:
            parsed = {}
        self.json = parsed if isinstance(parsed, dict) else {}

    @property
    def items(self):
        """The input items; a plain text is one item."""
        given = self.json.get("input", [])
        return given if isinstance(given, list) else [given]


@dataclass
class Stream:
    """An event stream of the tap's own. If it is cut, the connection breaks after its last event."""

    events: list
    is_cut: bool = False

    def encoded(self):
        events = [event | {"sequence_number": number} for number, event in enumerate(self.events)]
        return [b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode()) for event in events]


class Tap:
    """A tap on one account. All taps share `seen`, so that it contains the requests to all accounts in order."""

    def __init__(self, account, host, port, seen):
        self.account = account
        self.upstream = (host, port)
        self.seen = seen
        # Returns for a `Seen` the output items of the response, or None for the account's own.
        self.script = lambda seen: None
        # Returns for a `Seen` the status, headers and JSON (or a `Stream`) of a refusal, or None to relay the request.
        self.refuse = lambda seen: None
        handler = type("Handler", (Handler,), {"tap": self})
        self.server = Server(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def root(self):
        return f"http://127.0.0.1:{self.server.server_address[1]}"

    @property
    def base_url(self):
        return f"{self.root}/v1"

    def upstream_for(self, _):
        """Returns the host and port for a `Seen`."""
        return self.upstream

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Is silent about connections that the other side closed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = TIMEOUT
    tap = None

    def log_message(self, *_):
        pass

    def relay(self):
        body = self.read_body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        seen = Seen(self.tap.account, self.command, self.path, headers, body)
        self.tap.seen.append(seen)
        if refusal := self.tap.refuse(seen):
            return self.answer(seen, *refusal)
        upstream = http.client.HTTPConnection(*self.tap.upstream_for(seen), timeout=TIMEOUT)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in HOP_BY_HOP | {"content-length"}:
                    upstream.putheader(name, value)
            if body:
                upstream.putheader("content-length", str(len(body)))
            upstream.endheaders(body or None)
            response = upstream.getresponse()
            seen.status = response.status
            items = self.tap.script(seen)
            if items is None:
                self.pass_on(response, seen)
            else:
                self.pass_on_with(response, items)
        except (BrokenPipeError, ConnectionResetError):
            # The proxy closed the connection. It does so when its client has disconnected.
            self.close_connection = True
        finally:
            upstream.close()

    def answer(self, seen, status, headers, error):
        seen.status = status
        if isinstance(error, Stream):
            return self.answer_with_stream(status, headers, error)
        body = json.dumps(error).encode()
        self.send_response_only(status)
        for name, value in headers.items() | {"content-type": "application/json", "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def answer_with_stream(self, status, headers, stream):
        self.send_response_only(status)
        for name, value in headers.items() | {"content-type": "text/event-stream", "transfer-encoding": "chunked"}.items():
            self.send_header(name, value)
        self.end_headers()
        for event in stream.encoded():
            self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
        if stream.is_cut:
            self.close_connection = True
        else:
            self.wfile.write(b"0\r\n\r\n")

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = relay

    def read_body(self):
        if "chunked" not in self.headers.get("transfer-encoding", "").lower():
            return self.rfile.read(int(self.headers.get("content-length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(pieces)

    def head(self, response, length):
        self.send_response_only(response.status, response.reason)
        for name, value in response.getheaders():
            if name.lower() not in HOP_BY_HOP | {"content-length"}:
                self.send_header(name, value)
        if length is None:
            self.send_header("transfer-encoding", "chunked")
        else:
            self.send_header("content-length", str(length))
        self.end_headers()

    def pass_on(self, response, seen):
        length = response.getheader("content-length")
        self.head(response, length)
        while piece := response.read1(PIECE):
            seen.answer += piece
            self.wfile.write(piece if length else b"%x\r\n%b\r\n" % (len(piece), piece))
        if length is None:
            self.wfile.write(b"0\r\n\r\n")

    def pass_on_with(self, response, items):
        body = substitute(response.read(), items)
        self.head(response, len(body))
        self.wfile.write(body)


def substitute(stream, items):
    """Returns the event stream of a response with `items` in place of its messages."""
    events = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith(b"data: ")]
    begun = next(event for event in events if event["type"] == "response.created")
    ended = next(event for event in events if event["type"] == "response.completed")
    output = [item for item in ended["response"]["output"] if item["type"] != "message"] + items
    ended["response"]["output"] = output
    made = [begun]
    for index, item in enumerate(output):
        for kind in ("added", "done"):
            made.append({"type": f"response.output_item.{kind}", "output_index": index, "item": item})
    made.append(ended)
    for number, event in enumerate(made):
        event["sequence_number"] = number
    return b"".join(b"event: %b\ndata: %b\n\n" % (event["type"].encode(), json.dumps(event).encode()) for event in made)

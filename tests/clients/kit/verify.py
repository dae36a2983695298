"""Rules that every request of a scenario must satisfy.

The rules are checked on the requests that the taps recorded, and not on the reports of the proxy. The requests name their
session, and each tap belongs to one account.
"""

from dataclasses import dataclass, field

from kit.child import Failure
from kit.rig import CALLER_KEY, key_of

# The SDK scenarios name their sessions in this header, so that sessions without a key are recognized as well.
SESSION_HEADER = "x-test-session"
FORBIDDEN = ("cookie", "x-api-key", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "forwarded", "x-real-ip", "via")


@dataclass
class Expected:
    """The refusals and statuses that a scenario must cause, apart from complete responses with the status 200."""

    # The number of refused requests by reason code.
    refused: dict = field(default_factory=dict)
    # The number of responses of accounts by status, without 200.
    statuses: dict = field(default_factory=dict)


@dataclass
class Session:
    """The requests of one session in order of arrival."""

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
    """A request carries the credential of its account and nothing of the caller."""
    if request.headers.get("authorization") != f"Bearer {key_of(request.account)}":
        yield f"{name(request)} came with the credential {request.headers.get('authorization')!r}"
    for header in FORBIDDEN:
        if header in request.headers:
            yield f"{name(request)} came with the header {header}: {request.headers[header]}"
    for header, value in request.headers.items():
        if CALLER_KEY in value or header.startswith("x-steadfast-"):
            yield f"{name(request)} came with the header {header}: {value}"


def matches(seen, log):
    """The access log has one line for each request, with the right account and status."""
    lines = {}
    for line in log:
        lines.setdefault(line["request_id"], []).append(line)
    answers = {}
    for request in seen:
        answers.setdefault(request.headers.get("x-request-id"), []).append((request.account, request.status))
    for request in seen:
        # A request without an id is Steadfast's own request for the list of models.
        if not (request_id := request.headers.get("x-request-id")):
            if request.path != "/v1/models":
                yield f"{name(request)} has no x-request-id"
            continue
        # A request that names an unknown object reaches several accounts, and one of their answers is passed on.
        told = lines.get(request_id, [])
        if len(told) != 1 or (told[0].get("upstream"), told[0].get("status")) not in answers[request_id]:
            yield f"{name(request)} was answered with {request.status}, but the access log says {told}"


def ends(log, expected):
    refused = {}
    for line in log:
        if line["outcome"] == "refused":
            refused[line["reason"]] = refused.get(line["reason"], 0) + 1
        elif line["outcome"] != "complete":
            yield f"a request did not end as complete: {line}"
    if refused != expected.refused:
        yield f"Steadfast refused {refused}, expected {expected.refused}: {log}"


def statuses(seen, expected):
    others = {}
    for request in seen:
        if request.status != 200:
            others[request.status] = others.get(request.status, 0) + 1
    if others != expected.statuses:
        told = "; ".join(f"{name(request)}: {request.status}" for request in seen if request.status != 200)
        yield f"the accounts answered {others} beside 200, expected {expected.statuses}: {told}"


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

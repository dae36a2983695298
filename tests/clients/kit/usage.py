"""The input tokens of generations, as the accounts told them to their clients."""

import json
from dataclasses import dataclass

GENERATIONS = ("/v1/responses", "/v1/chat/completions", "/v1/messages")


@dataclass
class Tokens:
    """Input tokens with those that came from the prompt cache."""

    input: int = 0
    cached: int = 0

    def __add__(self, other):
        return Tokens(self.input + other.input, self.cached + other.cached)

    @property
    def share(self):
        return self.cached / self.input if self.input else 0

    def __str__(self):
        return f"{self.share:.1%}"


def is_generation(seen):
    return seen.method == "POST" and seen.path.split("?")[0] in GENERATIONS


def tokens_of(seen):
    """Returns the tokens of an answered generation. They stand in an object, or in the events of a stream.

    They are None if the answer has none, which only a response in the background may do.
    """
    found = None
    for part in documents(bytes(seen.answer)):
        for usage in (part.get("usage"), *((part.get(name) or {}).get("usage") for name in ("response", "message"))):
            found = read(usage) or found
    return found


def documents(answer):
    if answer.startswith(b"{"):
        return [json.loads(answer)]
    return [json.loads(line[6:]) for line in answer.splitlines() if line.startswith(b"data: {")]


def read(usage):
    """Reads one usage: of Responses, of a chat completion, or of the Messages API, whose input excludes cached tokens."""
    match usage:
        case {"prompt_tokens": total, "prompt_tokens_details": {"cached_tokens": cached}}:
            return Tokens(total, cached)
        case {"input_tokens": total, "input_tokens_details": {"cached_tokens": cached}}:
            return Tokens(total, cached)
        case {"input_tokens": rest, "cache_read_input_tokens": cached}:
            return Tokens(rest + cached + (usage.get("cache_creation_input_tokens") or 0), cached)
    return None

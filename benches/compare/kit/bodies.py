"""Request bodies: a recorded turn of Codex, and generated bodies of any size with the key at the end."""

import json
import random
from pathlib import Path

WORDS = "account cache session prompt token stream model reply the of and to a in is it that for on with as".split()


def generated(size):
    """Returns a conversation of about `size` bytes with `prompt_cache_key` as its last field."""
    chance = random.Random(size)
    items, length = [], 200
    while length < size:
        text = " ".join(chance.choices(WORDS, k=min(90, max(1, (size - length) // 6))))
        text = text.replace(" the ", ' "the" ').replace(" for ", "\nfor ")
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        items.append(item)
        length += len(json.dumps(item))
    body = {"model": "gpt-5.2", "stream": False, "input": items, "prompt_cache_key": "key"}
    return json.dumps(body, separators=(",", ":")).encode()


def write(folder, recordings):
    """Writes the bodies. Returns the paths of their files by workload."""
    turn = (Path(recordings) / "codex0.169-sse-openai-apikey.body").read_bytes()
    bodies = {
        "POST 4 KB": generated(4 << 10),
        "POST 40 KB": turn,
        "POST 64 KB": generated(64 << 10),
        "POST 512 KB": generated(512 << 10),
        "POST 4 MB": generated(4 << 20),
    }
    files = {"GET": ""}
    for name, body in bodies.items():
        path = Path(folder) / f"{name.replace(' ', '-')}.json"
        path.write_bytes(body)
        files[name] = str(path)
    return files

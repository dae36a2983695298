"""Sends bodies with a wrong key over HTTP/2 and HTTP/1.1, and checks that each refusal arrives.

Arguments: the URL, the number of repetitions, and the sizes of the bodies.
"""

import sys

import httpx

url, repetitions, *sizes = sys.argv[1:]
for size in map(int, sizes):
    for version in ("HTTP/2", "HTTP/1.1"):
        for number in range(int(repetitions)):
            is_http2 = version == "HTTP/2"
            with httpx.Client(http1=not is_http2, http2=is_http2, verify=False) as client:
                headers = {"authorization": "Bearer sk-wrong", "content-type": "application/json"}
                response = client.post(url, content=b"x" * size, headers=headers)
            told = f"{version}, {size} bytes, request {number}: {response.http_version} {response.status_code} {response.text}"
            assert (response.http_version, response.status_code) == (version, 401), told
            assert response.json()["error"]["code"] == "invalid_api_key", told

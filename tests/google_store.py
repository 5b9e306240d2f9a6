"""A stand-in for Cloud Storage: the part of its JSON API that a run calls, in memory.

As cloud.google.com/storage/docs/json_api describes it: objects have generations, and a
request may depend on one. Requests fail at times, as those to the service do.
"""

from __future__ import annotations

import json
import re
import sys
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "bucket"
_OBJECT = re.compile(
    rf"(?:/download)?/storage/v1/b/{BUCKET}/o/([^/]+)(?:/moveTo/o/([^/]+))?"
)
FAIL_EVERY = 200  # requests: that one is answered with 503, which callers try again


class Stored(NamedTuple):
    """An object of the bucket; a write of any name raises the generation."""

    content: bytes
    generation: int


class Answer(NamedTuple):
    """What a request is answered with."""

    status: int
    content: bytes = b""
    headers: dict[str, str] = {}


class GoogleStore:
    """A server on this machine with one empty bucket; leave the block to stop it.

    Attributes:
      url: where it listens.
      objects: name -> what is stored.
      failed: how many requests were answered with 503.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.failed = 0
        self._requests = self._generation = 0
        self._uploads: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self.answer))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> GoogleStore:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(
        self, method: str, url: str, headers: dict[str, str], body: bytes
    ) -> Answer:
        """Answers a request; one at a time, so that each sees a whole bucket."""
        _, _, path, asked, _ = urlsplit(url)
        query = {key: values[-1] for key, values in parse_qs(asked).items()}
        with self._lock:
            self._requests += 1
            if self._requests % FAIL_EVERY == 0:
                self.failed += 1
                return Answer(503, b"try again")
            if path == f"/upload/storage/v1/b/{BUCKET}/o":
                return self._upload(query, headers, body)
            if path == f"/storage/v1/b/{BUCKET}/o":
                return self._list(query)
            if bucket := re.fullmatch(r"/storage/v1/b/([^/]+)", path):
                known = bucket[1] == BUCKET
                return _as_json({"name": BUCKET}) if known else Answer(404)
            named = _OBJECT.fullmatch(path)
            if named is None:
                return Answer(501, f"no such thing here: {method} {url}".encode())
            name, target = map(unquote, named.groups(""))
            if target:
                return self._move(name, target)
            return self._of_object(method, name, query, headers)

    def _of_object(
        self, method: str, name: str, query: dict[str, str], headers: dict[str, str]
    ) -> Answer:
        stored = self.objects.get(name)
        if stored is None:
            return Answer(404)
        if not self._holds(name, query):
            return Answer(412)
        if query.get("ifGenerationNotMatch") == str(stored.generation):
            return Answer(304)
        if method == "DELETE":
            del self.objects[name]
            return Answer(204)
        if query.get("alt") != "media":
            return _as_json(_described(name, stored))
        return _part(stored, headers.get("Range"))

    def _move(self, name: str, target: str) -> Answer:
        if name not in self.objects:
            return Answer(404)
        return self._write(target, self.objects.pop(name).content, {})

    def _upload(
        self, query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> Answer:
        name = query["name"]
        if query["uploadType"] == "media":
            return self._write(name, body, query)
        assert query["uploadType"] == "resumable", query
        if "upload_id" not in query:
            here = f"{self.url}/upload/storage/v1/b/{BUCKET}/o?name={name}"
            upload = f"{here}&uploadType=resumable&upload_id={self._requests}"
            return Answer(200, headers={"Location": upload})
        upload = query["upload_id"]
        # "bytes 0-9/10", "bytes 0-9/*" where more comes, "bytes */10" where none does.
        start, total = re.fullmatch(
            r"bytes (\*|\d+)[-\d]*/(\*|\d+)", headers["Content-Range"]
        ).groups()
        before = self._uploads.get(upload, b"")
        # What was sent before is sent again by one that has not heard the answer.
        sent = before if start == "*" else before[: int(start)] + body
        self._uploads[upload] = sent
        if total == "*":
            return Answer(308, headers={"Range": f"bytes=0-{len(sent) - 1}"})
        assert len(sent) == int(total)
        return self._write(name, sent, query)

    def _write(self, name: str, content: bytes, query: dict[str, str]) -> Answer:
        if not self._holds(name, query):
            return Answer(412)
        self._generation += 1
        self.objects[name] = Stored(content, self._generation)
        return _as_json(_described(name, self.objects[name]))

    def _holds(self, name: str, query: dict[str, str]) -> bool:
        """Whether the object has the generation that is asked for; 0 for none."""
        generation = self.objects[name].generation if name in self.objects else 0
        return query.get("ifGenerationMatch", str(generation)) == str(generation)

    def _list(self, query: dict[str, str]) -> Answer:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        start, end = query.get("startOffset", ""), query.get("endOffset", "\U0010ffff")
        items, prefixes = [], set()
        for name in sorted(self.objects):
            if not (name.startswith(prefix) and start <= name < end):
                continue
            below, found, _ = name[len(prefix) :].partition(delimiter or "\0")
            if found:
                prefixes.add(prefix + below + found)
            else:
                items.append(_described(name, self.objects[name]))
        # All on one page, however few were asked for, as the service would not do.
        return _as_json({"items": items, "prefixes": sorted(prefixes)})


def _described(name: str, stored: Stored) -> dict[str, str]:
    return {
        "kind": "storage#object",
        "bucket": BUCKET,
        "name": name,
        "size": str(len(stored.content)),
        "generation": str(stored.generation),
        "updated": "2026-01-01T00:00:00.000Z",
        "timeCreated": "2026-01-01T00:00:00.000Z",
    }


def _part(stored: Stored, asked: str | None) -> Answer:
    headers = {"x-goog-generation": str(stored.generation)}
    if asked is None:
        return Answer(200, stored.content, headers)
    size = len(stored.content)
    first, last = re.fullmatch(r"bytes=(\d*)-(\d*)", asked).groups()
    start = int(first) if first else max(size - int(last), 0)
    end = min(int(last) + 1, size) if first and last else size
    if start >= size:
        return Answer(416)
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return Answer(206, stored.content[start:end], headers)


def _as_json(value: dict) -> Answer:
    content = json.dumps(value).encode()
    return Answer(200, content, {"Content-Type": "application/json"})


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        # A client that was killed hangs up; anything else is an error of this file.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(answer: Callable[..., Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer is sent as one, not its head first

        def answer_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answered = answer(self.command, self.path, self.headers, body)
            self.send_response(answered.status, HTTPStatus(answered.status).phrase)
            for name, value in answered.headers.items():
                self.send_header(name, value)
            if answered.status not in (204, 304):
                self.send_header("Content-Length", str(len(answered.content)))
            self.end_headers()
            self.wfile.write(answered.content)

        do_GET = do_POST = do_PUT = do_DELETE = answer_request

        def log_message(self, *arguments: object) -> None:
            """Says nothing."""

    return Handler

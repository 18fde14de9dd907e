"""A store of objects on this machine, which gcsfs, Google's client and the store of arrays take for Google's.

It speaks the part of https://cloud.google.com/storage/docs/json_api that they call, preconditions included.
"""

import hashlib
import itertools
import json
import os
import re
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

BUCKET = "gs://bucket"
_OBJECT = re.compile(r"(?:/download)?/storage/v1/b/([^/]+)/o/([^/]+)(?:/(?:rewriteTo|copyTo)/b/[^/]+/o/([^/]+))?")


class _Store(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # the store of arrays has many to ask at once

    def __init__(self):
        super().__init__(("localhost", 0), _Handler)
        self.objects: dict[str, tuple[int, bytes]] = {}
        """By name: its generation, and what it holds."""
        self.uploads: dict[str, tuple[str, dict, bytes]] = {}
        self.numbers, self.lock = itertools.count(1), threading.RLock()

    def handle_error(self, *_: object) -> None:
        """Of those who hang up before all is sent."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path, query = self._asked()
        with self.server.lock:
            if _is_elsewhere(path):
                return self._send(404)
            if path.endswith("/o"):
                return self._list(query)
            if match := _OBJECT.fullmatch(path):
                return self._get(unquote(match[2]), query)
        self._send(200 if path.endswith("/bucket") else 404, {"name": "bucket"})

    def do_DELETE(self) -> None:
        path, query = self._asked()
        with self.server.lock:
            self._send(self._delete(path, query))

    def do_POST(self) -> None:
        (path, query), body = self._asked(), self._body()
        with self.server.lock:
            if path.startswith("/batch"):
                return self._batch(body)
            if _is_elsewhere(path):
                return self._send(404)
            if path.startswith("/upload"):
                return (self._chunk if "upload_id" in query else self._upload)(query, body)
            match = _OBJECT.fullmatch(path)  # a copy
            _, content = self.server.objects[unquote(match[2])]
            self._send(200, {"done": True, "resource": self._write(unquote(match[3]), content)})

    do_PUT = do_POST

    def _asked(self) -> tuple[str, dict[str, str]]:
        parts = urlsplit(self.path)
        return parts.path, dict(parse_qsl(parts.query, keep_blank_values=True))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline(), 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _list(self, query: dict[str, str]) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        items, prefixes = [], set()
        for name in sorted(name for name in self.server.objects if name.startswith(prefix)):
            head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            if cut:
                prefixes.add(prefix + head + cut)
            else:
                items.append(self._describe(name))
        self._send(200, {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)})

    def _get(self, name: str, query: dict[str, str]) -> None:
        if name not in self.server.objects:
            return self._send(404)
        if query.get("alt") != "media":
            return self._send(200, self._describe(name))
        generation, content = self.server.objects[name]
        part = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        headers = {"x-goog-generation": str(generation)}
        if part is None:
            return self._send(200, content, headers)
        first = int(part[1]) if part[1] else max(len(content) - int(part[2]), 0)
        last = min(int(part[2]), len(content) - 1) if part[1] and part[2] else len(content) - 1
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self._send(206, content[first : last + 1], headers)

    def _upload(self, query: dict[str, str], body: bytes) -> None:
        kind, name = query["uploadType"], query.get("name")
        if kind == "media":
            return self._put(name, query, body)
        if kind == "multipart":
            boundary = re.search("boundary=['\"]?([^'\";]+)", self.headers["Content-Type"])[1].encode()
            about, content = (
                part.split(b"\n\n", 1)[1] if b"\r\n\r\n" not in part else part.split(b"\r\n\r\n", 1)[1]
                for part in body.split(b"--" + boundary)[1:3]
            )
            content = content.removesuffix(b"\n").removesuffix(b"\r")
            return self._put(name or json.loads(about)["name"], query, content)
        key = str(next(self.server.numbers))
        self.server.uploads[key] = name or json.loads(body)["name"], query, b""
        at = f"http://localhost:{self.server.server_port}/upload/storage/v1/b/bucket/o?upload_id={key}"
        self._send(200, headers={"Location": at})

    def _chunk(self, query: dict[str, str], body: bytes) -> None:
        name, asked, before = self.server.uploads.pop(query["upload_id"])
        body, total = before + body, self.headers["Content-Range"].rpartition("/")[2]
        if total == str(len(body)):
            return self._put(name, asked, body)
        self.server.uploads[query["upload_id"]] = name, asked, body
        self._send(308, headers={"Range": f"bytes=0-{len(body) - 1}"})

    def _put(self, name: str, query: dict[str, str], content: bytes) -> None:
        there = self.server.objects.get(name, (0, b""))[0]
        if int(query.get("ifGenerationMatch", there)) != there:
            return self._send(412)
        self._send(200, self._write(name, content))

    def _delete(self, path: str, query: dict[str, str]) -> int:
        name = unquote(_OBJECT.fullmatch(path)[2])
        there = self.server.objects.get(name, (0, b""))[0]
        if int(query.get("ifGenerationMatch", there)) != there:
            return 412
        return 204 if self.server.objects.pop(name, None) else 404

    def _batch(self, body: bytes) -> None:
        answers = []
        for path in re.findall(rb"DELETE ([^ ]+) HTTP", body):
            parts = urlsplit(path.decode())
            status = self._delete(parts.path, dict(parse_qsl(parts.query)))
            answers.append(f"--x\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status} OK\r\n\r\n\r\n")
        self._send(200, "".join([*answers, "--x--"]).encode(), {"Content-Type": "multipart/mixed; boundary=x"})

    def _write(self, name: str, content: bytes) -> dict[str, str]:
        self.server.objects[name] = next(self.server.numbers), content
        return self._describe(name)

    def _describe(self, name: str) -> dict[str, str]:
        generation, content = self.server.objects[name]
        time = "2026-01-01T00:00:00.000Z"
        digest = b64encode(hashlib.md5(content).digest()).decode()
        told = dict(kind="storage#object", name=name, bucket="bucket", size=str(len(content)), md5Hash=digest)
        return told | dict(generation=str(generation), etag=str(generation), timeCreated=time, updated=time)

    def _send(self, status: int, body: bytes | dict = b"", headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode() if isinstance(body, dict) else body
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content if status != 204 else b"")


def _is_elsewhere(path: str) -> bool:
    """In a bucket that there is not."""
    return "/b/" in path and "/b/bucket" not in path


def start() -> dict[str, tuple[int, bytes]]:
    """Lasts as long as this process: the libraries look for it once. What asks later, and scripts, find it too."""
    server = _Store()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["STORAGE_EMULATOR_HOST"] = f"http://localhost:{server.server_port}"
    os.environ["TENSORSTORE_GCS_HTTP_URL"] = os.environ["STORAGE_EMULATOR_HOST"]
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"  # it would ask Google's own what kind of bucket it is
    return server.objects

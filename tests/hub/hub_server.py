"""A hub in a thread: the four routes that huggingface_hub calls for a download, and its ways to refuse."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse


@dataclass
class Repository:
    """What a name on the hub holds; a commit's files lie in a folder."""

    commits: dict[str, Path]
    """Folder by commit."""
    refs: dict[str, str] = field(default_factory=dict)
    """Commit by branch or tag."""
    is_gated: bool = False
    """For those without the token "right"."""
    license: str = ""
    cut: str = ""
    """A file of which half is sent, as if that were all."""
    hung_up: str = ""
    """A file in the middle of which the server hangs up, unless only the rest is asked for."""


class Hub:
    """Serves `repositories` at `address`; `asked` are the requests so far, "GET path"."""

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self.is_closed = False
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def add(self, name: str, folder: Path, **fields) -> str:
        """A repository of one commit, on the branch main; returns the commit."""
        commit = hashlib.sha1(name.encode()).hexdigest()
        self.repositories[name] = Repository({commit: folder}, {"main": commit}, **fields)
        return commit

    def close(self) -> None:
        self.is_closed = True
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    try:
        yield hub
    finally:
        hub.close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.hub.is_closed:  # for whom a connection was kept
            self.close_connection = True
            return
        path = unquote(urlparse(self.path).path).strip("/")
        self.hub.asked.append(f"{self.command} {path}")
        if path.startswith("api/models/"):
            repo, rest = _split(path.removeprefix("api/models/"))
            kind, _, rest = rest.partition("/")
        else:
            repo, rest = _split(path)
            kind, _, rest = rest.partition("/")
        found = self.hub.repositories.get(repo)
        if found is None:
            return self._refuse(404, "RepoNotFound")
        if found.is_gated and self.headers.get("Authorization") != "Bearer right":
            return self._refuse(401, "GatedRepo")
        revision, _, file = rest.partition("/") if kind in ("resolve", "tree") else (rest, "", "")
        commit = found.refs.get(revision or "main", revision)
        if commit not in found.commits:
            return self._refuse(404, "RevisionNotFound")
        folder = found.commits[commit]
        if kind == "resolve":
            return self._send_file(folder / file, commit, file == found.cut, file == found.hung_up)
        files = [place for place in sorted(folder.rglob("*")) if place.is_file()]
        if kind == "tree":
            self._send_json([_entry(place, folder) for place in files])
        else:
            siblings = [{"rfilename": str(place.relative_to(folder))} for place in files]
            card = {"license": found.license} if found.license else {}
            self._send_json({"id": repo, "sha": commit, "siblings": siblings, "cardData": card, "tags": []})

    def _send_file(self, place: Path, commit: str, is_cut: bool, is_hung_up: bool) -> None:
        if not place.is_file():
            return self._refuse(404, "EntryNotFound")
        data = place.read_bytes()
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": commit}
        if self.command == "GET" and is_cut:
            data = data[: len(data) // 2]
        start = int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])
        self._send(206 if start else 200, data[start:], headers, hang_up=is_hung_up and not start)

    def _send_json(self, values) -> None:
        self._send(200, json.dumps(values).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: dict[str, str], hang_up: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[: len(data) // 2] if hang_up else data)
        self.close_connection |= hang_up


def _split(path: str) -> tuple[str, str]:
    """(org/name, the rest)."""
    organisation, _, rest = path.partition("/")
    name, _, rest = rest.partition("/")
    return f"{organisation}/{name}", rest


def _entry(place: Path, folder: Path) -> dict:
    data = place.read_bytes()
    path = str(place.relative_to(folder))
    return {"type": "file", "oid": hashlib.sha1(data).hexdigest(), "size": len(data), "path": path}

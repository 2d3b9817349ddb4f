"""A stand-in for the Hugging Face hub on 127.0.0.1, for the real client libraries.

It has the hub's paths, headers, redirects and error codes as huggingface_hub and datasets use them. Files of git LFS
are redirected to an address with another host name, as the hub redirects to its CDN.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.hub.faults import (
    PORTAL,
    Action,
    Corrupt,
    Drop,
    Fault,
    Hang,
    Portal,
    Refuse,
    Stall,
    Status,
    Trickle,
    Truncate,
)
from tests.hub.repository import LEGACY, Commit, Kind, Repository, git_id, lfs_id

__all__ = ["GOOD_TOKEN", "Hub", "Request"]

GOOD_TOKEN = "hf_good"
"""The token that may read private and gated repositories; any other one is known, and may not."""

_DATE = "2024-05-06T13:44:53.000Z"
_JSON = "application/json; charset=utf-8"
_TEXT = "text/plain; charset=utf-8"
_VERBS = {"revision", "tree", "paths-info", "refs", "commits", "discussions", "xet-read-token"}


@dataclass(frozen=True)
class Request:
    """A logged request.

    Attributes:
        line: ``METHOD path``.
        at_s: arrival time by ``time.monotonic``.
        status: None without an answer, or before it.
    """

    line: str
    at_s: float
    token: str | None
    status: int | None
    fault: Action | None


@dataclass
class _Asked:
    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes
    line: str

    @property
    def token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None


@dataclass(frozen=True)
class _Answer:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = _TEXT


def _json(value: Any, headers: Mapping[str, str] | None = None, status: int = 200) -> _Answer:
    return _Answer(status, json.dumps(value).encode(), headers or {}, _JSON)


def _error(status: int, code: str | None, message: str, headers: Mapping[str, str] | None = None) -> _Answer:
    named = {"X-Error-Code": code} if code else {}
    return _json({"error": message}, {**named, "X-Error-Message": message, **(headers or {})}, status)


def _redirect(status: int, to: str, headers: Mapping[str, str] | None = None) -> _Answer:
    return _Answer(status, f"Redirecting to {to}".encode(), {"Location": to, **(headers or {})})


class Hub:
    """The running stand-in.

    Attributes:
        xet: also offer files of git LFS by xet, whose store is unreachable.
        delay_s: pause before each answer.
    """

    def __init__(self, repositories: Mapping[tuple[Kind, str], Mapping[str, bytes]]) -> None:
        self.xet = False
        self.delay_s = 0.0
        self._initial = repositories
        self._repositories = {key: Repository(*key, files) for key, files in repositories.items()}
        self._blobs: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self._log: dict[int, Request] = {}
        self._numbers = itertools.count()
        self._faults: tuple[Fault, ...] = ()
        self._matched: list[int] = []
        self._events: list[tuple[str, Callable[[], object]]] = []
        self._stopping = threading.Event()
        self._server: _Server | None = None
        self.port = 0
        self.start()

    @property
    def endpoint(self) -> str:
        """The address for ``HF_ENDPOINT``."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen; on the same port as before ``stop``."""
        self._stopping.clear()
        self._server = _Server(("127.0.0.1", self.port), self)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Stop listening: connections are refused."""
        self._stopping.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Refuse connections within a block."""
        self.stop()
        yield
        self.start()

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """The environment of a client process: this hub, and caches under ``home``."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "TRANSF"))}
        proxy = {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}
        ours = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        return {**kept, **proxy, **ours, "HF_HUB_DISABLE_TELEMETRY": "1", **more}

    def repository(self, name: str, kind: Kind = "models") -> Repository:
        """The repository of that name, or of that legacy name."""
        return self._repositories[kind, LEGACY[kind].get(name, name)]

    def add(self, name: str, files: Mapping[str, bytes], kind: Kind = "models") -> Repository:
        """Add a repository, or replace the one of the same name."""
        self._repositories[kind, name] = Repository(kind, name, files)
        return self._repositories[kind, name]

    def fail(self, *faults: Fault) -> None:
        """Replace the active faults."""
        with self._lock:
            self._faults, self._matched = faults, [0] * len(faults)

    def when(self, pattern: str, event: Callable[[], object]) -> None:
        """Run a function once, before answering the first request whose ``METHOD path`` matches."""
        with self._lock:
            self._events.append((pattern, event))

    def heal(self) -> None:
        """Restore the initial state: listening, without faults, with the original repositories."""
        self.fail()
        self._repositories = {key: Repository(*key, files) for key, files in self._initial.items()}
        self._events.clear()
        self.xet, self.delay_s = False, 0.0
        if self._server is None:
            self.start()

    @property
    def requests(self) -> tuple[Request, ...]:
        """All requests so far, in order."""
        with self._lock:
            return tuple(self._log.values())

    def requested(self, pattern: str) -> tuple[Request, ...]:
        """The requests whose ``METHOD path`` matches a regular expression."""
        return tuple(request for request in self.requests if re.search(pattern, request.line))

    def forget(self) -> None:
        """Empty the log."""
        with self._lock:
            self._log.clear()

    # Called by the request handler

    def pause(self, seconds: float | None) -> None:
        """Wait within an answer; None waits until the server stops."""
        self._stopping.wait(seconds)

    def log(self, request: Request) -> int:
        """Record an incoming request; return its number."""
        with self._lock:
            number = next(self._numbers)
            self._log[number] = request
        return number

    def answered(self, number: int, status: int) -> None:
        """Record how a request was answered."""
        with self._lock:
            if number in self._log:
                self._log[number] = replace(self._log[number], status=status)

    def happen(self, line: str) -> None:
        """Run the functions that ``when`` registered for this request."""
        with self._lock:
            due = [event for pattern, event in self._events if re.search(pattern, line)]
            self._events = [(pattern, event) for pattern, event in self._events if event not in due]
        for event in due:
            event()

    def fault(self, line: str) -> Action | None:
        """Return the fault that applies to a request line."""
        with self._lock:
            for i, fault in enumerate(self._faults):
                if fault.matches(line):
                    self._matched[i] += 1
                    if fault.meets(self._matched[i] - 1):
                        return fault.action
        return None

    def answer(self, asked: _Asked) -> _Answer:
        """The proper answer to a request."""
        if found := re.match(r"/_cdn/([0-9a-f]{64})/", asked.path):
            content = self._blobs.get(found[1])
            if content is None:
                return _error(403, None, "expired")
            return _content(asked, content, {"ETag": f'"{found[1][:32]}"'}, "binary/octet-stream")
        if found := re.match(r"/api/resolve-cache/(models|datasets)/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)$", asked.path):
            return self._cached(asked, *found.groups())
        if found := re.match(r"/api/(models|datasets)/(.+)$", asked.path):
            return self._api(asked, _kind(found[1]), found[2])
        if found := re.match(r"/(datasets/)?([^/]+(?:/[^/]+)?)/resolve/(refs/pr/\d+|[^/]+)/(.+)$", asked.path):
            return self._resolve(asked, _kind((found[1] or "models").strip("/")), found[2], found[3], found[4])
        if asked.path == "/":
            return _Answer(body=b"<html>hub</html>", content_type="text/html")
        return _error(404, None, "Sorry, we can't find the page you are looking for.")

    def _refusal(self, asked: _Asked, found: Repository | None) -> _Answer | None:
        """The answer to a client without read access: the hub does not reveal whether a private repository exists."""
        if found is None or (found.private and asked.token != GOOD_TOKEN):
            if asked.token is None:
                return _error(401, "RepoNotFound", "Invalid username or password.")
            return _error(404, "RepoNotFound", "Repository not found")
        if not found.gated or asked.token == GOOD_TOKEN:
            return None
        restricted = f"Access to {found.kind[:-1]} {found.name} is restricted"
        if asked.token is None:
            return _error(401, "GatedRepo", f"{restricted}. You must have access to it and be authenticated.")
        return _error(403, "GatedRepo", f"{restricted} and you are not in the authorized list. Visit its page to ask.")

    def _api(self, asked: _Asked, kind: Kind, rest: str) -> _Answer:
        parts = rest.split("/")
        cut = next((i for i, part in enumerate(parts) if i and part in _VERBS), len(parts))
        name, verb, tail = "/".join(parts[:cut]), (*parts[cut:], "revision")[0], "/".join(parts[cut + 1 :])
        if name in LEGACY[kind]:
            old, new = f"/api/{kind}/{name}", f"/api/{kind}/{LEGACY[kind][name]}"
            return _redirect(307, asked.line.partition(" ")[2].replace(old, new, 1))
        found = self._repositories.get((kind, name))
        if verb == "revision" and found is not None and not found.private:
            refusal = None  # the metadata of a gated repository is public
        else:
            refusal = self._refusal(asked, found)
        if refusal is not None or found is None:
            return refusal or _error(404, "RepoNotFound", "Repository not found")
        if verb == "refs":
            branch = {"name": "main", "ref": "refs/heads/main", "targetCommit": found.main}
            return _json({"branches": [branch], "tags": [], "converts": []})
        if verb == "discussions":
            return _json(_discussions(found))
        split = re.match(r"(refs/pr/\d+|[^/]+)(?:/(.*))?$", tail or "main")
        assert split is not None
        commit = found.at(split[1])
        if commit is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {split[1]}")
        return self._api_of_commit(asked, found, commit, verb, split[2] or "")

    def _api_of_commit(self, asked: _Asked, found: Repository, commit: Commit, verb: str, under: str) -> _Answer:
        if verb == "revision":
            return _json(_info(found, commit))
        if verb == "commits":
            shas = [sha for sha in (commit.sha, commit.parent) if sha]
            author = {"user": "owner", "avatar": ""}
            return _json([{"id": sha, "title": "", "message": "", "authors": [author], "date": _DATE} for sha in shas])
        if verb == "tree":
            recursive = asked.query.get("recursive", ["false"])[0].lower() in ("true", "1")
            entries = list(self._listing(commit, under, recursive))
            if under and not entries:
                return _error(404, "EntryNotFound", f"{under} does not exist", {"X-Repo-Commit": commit.sha})
            return _json(entries)
        if verb == "paths-info":
            form = parse_qs(asked.body.decode())
            paths = form.get("paths") or json.loads(asked.body).get("paths", [])
            return _json([entry for path in paths for entry in self._paths_info(commit, path.rstrip("/"))])
        token = {"accessToken": "xet", "exp": int(time.time()) + 3600, "casUrl": "http://127.0.0.1:1"}
        headers = {
            "X-Xet-Cas-Url": "http://127.0.0.1:1",
            "X-Xet-Access-Token": "xet",
            "X-Xet-Token-Expiration": str(token["exp"]),
        }
        return _json(token, headers)

    def _entry(self, path: str, content: bytes) -> dict[str, Any]:
        lfs = lfs_id(path, content)
        entry: dict[str, Any] = {"type": "file", "oid": git_id(content), "size": len(content), "path": path}
        if lfs is not None:
            entry["lfs"] = {"oid": lfs, "size": len(content), "pointerSize": 134}
            if self.xet:
                entry["xetHash"] = lfs
        return entry

    def _listing(self, commit: Commit, under: str, recursive: bool) -> Iterator[dict[str, Any]]:
        prefix = f"{under.rstrip('/')}/" if under else ""
        folders = set()
        for path, content in sorted(commit.files.items()):
            if not path.startswith(prefix):
                continue
            inner = path[len(prefix) :].split("/")
            for depth in range(1, len(inner) if recursive else min(2, len(inner))):
                folder = prefix + "/".join(inner[:depth])
                if folder not in folders:
                    folders.add(folder)
                    yield _folder(folder)
            if recursive or len(inner) == 1:
                yield self._entry(path, content)

    def _paths_info(self, commit: Commit, path: str) -> Iterator[dict[str, Any]]:
        if path in commit.files:
            yield self._entry(path, commit.files[path])
        elif any(name.startswith(f"{path}/") for name in commit.files):
            yield _folder(path)

    def _resolve(self, asked: _Asked, kind: Kind, name: str, revision: str, path: str) -> _Answer:
        if name in LEGACY[kind]:
            return _redirect(
                307, asked.line.partition(" ")[2].replace(f"/{name}/resolve/", f"/{LEGACY[kind][name]}/resolve/", 1)
            )
        found = self._repositories.get((kind, name))
        refusal = self._refusal(asked, found)
        if refusal is not None or found is None:
            return refusal or _error(404, "RepoNotFound", "Repository not found")
        commit = found.at(revision)
        if commit is None:
            return _error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes"}
        if path not in commit.files:
            return _error(404, "EntryNotFound", "Entry not found", headers)
        content = commit.files[path]
        lfs = lfs_id(path, content)
        headers["X-Linked-Size"] = str(len(content))
        if lfs is None:
            headers["X-Linked-Etag"] = f'"{git_id(content)}"'
            return _redirect(307, f"/api/resolve-cache/{kind}/{name}/{commit.sha}/{quote(path)}", headers)
        self._blobs[lfs] = content
        headers["X-Linked-Etag"] = f'"{lfs}"'
        if self.xet:
            headers["X-Xet-Hash"] = lfs
            auth = f"{self.endpoint}/api/{kind}/{name}/xet-read-token/{commit.sha}"
            headers["Link"] = f'<{auth}>; rel="xet-auth", <http://127.0.0.1:1/>; rel="xet-reconstruction-info"'
        return _redirect(302, f"http://localhost:{self.port}/_cdn/{lfs}/{quote(path)}?Signature=1", headers)

    def _cached(self, asked: _Asked, kind: str, name: str, sha: str, path: str) -> _Answer:
        """A file that git stores itself: the hub redirects to an address with its commit."""
        found = self._repositories.get((_kind(kind), name))
        refusal = self._refusal(asked, found)
        commit = None if found is None else found.at(sha)
        if refusal is not None or commit is None or path not in commit.files:
            return refusal or _error(404, "EntryNotFound", "Entry not found")
        content = commit.files[path]
        kind_of_content = "application/json" if path.endswith(".json") else _TEXT
        return _content(asked, content, {"X-Repo-Commit": sha, "ETag": f'"{git_id(content)}"'}, kind_of_content)


def _kind(name: str) -> Kind:
    return "datasets" if name == "datasets" else "models"


def _folder(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": git_id(path.encode()), "size": 0, "path": path}


def _info(found: Repository, commit: Commit) -> dict[str, Any]:
    return {
        "_id": "621ffdc036468d709f17434d",
        "id": found.name,
        "modelId": found.name,
        "author": found.name.partition("/")[0],
        "sha": commit.sha,
        "private": found.private,
        "gated": "auto" if found.gated else False,
        "disabled": False,
        "lastModified": _DATE,
        "createdAt": _DATE,
        "tags": [],
        "downloads": 1,
        "likes": 1,
        "siblings": [{"rfilename": path} for path in commit.files],
        "usedStorage": 1,
    }


def _discussions(found: Repository) -> dict[str, Any]:
    """Pull requests as by the bot that converts weights; any user can imitate it."""
    opened = [
        {
            "num": int(ref.rpartition("/")[2]),
            "title": "Adding `safetensors` variant of this model",
            "status": "open",
            "isPullRequest": True,
            "author": {"name": "SFconvertbot"},
            "createdAt": _DATE,
            "repo": {"name": found.name, "type": found.kind[:-1]},
        }
        for ref in found.refs
        if ref.startswith("refs/pr/")
    ]
    return {"discussions": opened, "count": len(opened), "start": 0, "numClosedDiscussions": 0}


def _content(asked: _Asked, content: bytes, headers: Mapping[str, str], content_type: str) -> _Answer:
    """A file, or the requested range of it."""
    headers = {**headers, "Accept-Ranges": "bytes"}
    wanted = re.match(r"bytes=(\d+)-(\d*)$", asked.headers.get("Range") or "")
    if wanted is None:
        return _Answer(200, content, headers, content_type)
    first, last = int(wanted[1]), min(int(wanted[2] or len(content) - 1), len(content) - 1)
    if first >= len(content):
        return _Answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
    return _Answer(206, content[first : last + 1], headers, content_type)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "stand-in"
    server: _Server

    def log_message(self, format: str, *arguments: Any) -> None:
        """Do nothing: the hub has a log of its own."""

    def _handle(self) -> None:
        hub = self.server.hub
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        asked = _Asked(
            method=self.command,
            path=unquote(parts.path),
            query=parse_qs(parts.query),
            headers={name.title(): value for name, value in self.headers.items()},
            body=body,
            line=f"{self.command} {self.path}",
        )
        fault = hub.fault(asked.line)
        number = hub.log(Request(asked.line, time.monotonic(), asked.token, None, fault))
        hub.happen(asked.line)
        hub.pause(hub.delay_s)
        try:
            status = self._deliver(asked, fault)
        except ConnectionError:
            self.close_connection = True
        else:
            if status is not None:
                hub.answered(number, status)

    do_GET = do_HEAD = do_POST = _handle

    def _deliver(self, asked: _Asked, fault: Action | None) -> int | None:
        hub = self.server.hub
        if isinstance(fault, (Refuse, Hang)):
            if isinstance(fault, Hang):
                hub.pause(None)
            self._close(reset=isinstance(fault, Refuse) and fault.reset)
            return None
        if isinstance(fault, Status):
            return self._send(_Answer(fault.code, fault.body.encode(), fault.headers))
        if isinstance(fault, Portal):
            return self._send(_Answer(200, PORTAL, {}, "text/html"))
        answer = hub.answer(asked)
        half = len(answer.body) // 2
        if isinstance(fault, Truncate):
            answer = replace(answer, body=answer.body[:half])
        elif isinstance(fault, Corrupt):
            middle = bytes(255 - byte for byte in answer.body[half : half + 64])
            answer = replace(answer, body=answer.body[:half] + middle + answer.body[half + 64 :])
        pieces: Iterable[bytes] = (answer.body,)
        if isinstance(fault, Trickle):
            pieces = self._pieces(answer.body, fault)
        elif isinstance(fault, (Drop, Stall)):
            pieces = (answer.body[:half],)
        self._send(answer, pieces)
        if isinstance(fault, (Drop, Stall)) and self.command != "HEAD":
            # the sent part must have left before the connection is reset
            hub.pause(None if isinstance(fault, Stall) else 0.2)
            self._close(reset=isinstance(fault, Drop) and fault.reset)
        return answer.status

    def _pieces(self, body: bytes, fault: Trickle) -> Iterator[bytes]:
        for start in range(0, len(body), fault.size):
            self.server.hub.pause(fault.pause_s)
            yield body[start : start + fault.size]

    def _send(self, answer: _Answer, pieces: Iterable[bytes] | None = None) -> int:
        """Send a status, headers with the length of the body, and the body or pieces of it."""
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            for piece in (answer.body,) if pieces is None else pieces:
                self.wfile.write(piece)
                self.wfile.flush()
        return answer.status

    def _close(self, *, reset: bool) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], hub: Hub) -> None:
        self.hub = hub
        super().__init__(address, _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report errors of the stand-in itself, but not disconnected clients."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

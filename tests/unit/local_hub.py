"""A stand-in for the hub on this machine: the few addresses that a commit and a card's reading use.

Repositories are in memory: `files` by kind, repository and path. Every commit gets a number for its
hash, and one with another parent than the last is refused, as there.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

API = re.compile(
    r"/api/(?P<kind>model|dataset)s/(?P<repo>[^/]+/[^/]+)/(?P<what>preupload|commit)/main"
)
FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/[^/]+/(?P<path>.+)")


class LocalHub(ThreadingHTTPServer):
    """The server. commits: what was sent, as (kind, repository, message). seen: every request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[tuple[str, str], dict[str, bytes]] = {}
        self.commits: list[tuple[str, str, str]] = []
        self.seen: list[str] = []
        self.unsteady = False  # whether files cannot be read, though commits can be made

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def head(self) -> str:
        """Hash of the last commit."""
        return f"{len(self.commits):040x}"


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does."""

    server: LocalHub

    def do_GET(self) -> None:
        self._send_file(body=True)

    def do_HEAD(self) -> None:
        self._send_file(body=False)

    def _send_file(self, *, body: bool) -> None:
        self.server.seen.append(f"{self.command} {self.path}")
        match = FILE.fullmatch(self.path)
        files = self.server.files.get(("model", match["repo"])) if match else None
        if self.server.unsteady:
            self._answer(403, {})  # 5xx would be asked again for 20 s
        elif match is None or files is None:
            self._answer(404, {}, {"X-Error-Code": "RepoNotFound"})
        elif match["path"] not in files:
            self._answer(404, {}, {"X-Error-Code": "EntryNotFound"})
        else:
            content = files[match["path"]]
            names = {"ETag": f'"{self.server.head}"', "X-Repo-Commit": self.server.head}
            self._answer(200, content, names, body=body)

    def do_POST(self) -> None:
        self.server.seen.append(f"{self.command} {self.path}")
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":
            self._answer(200, {"errors": [], "warnings": []})
            return
        match = API.fullmatch(self.path)
        place = (match["kind"], match["repo"]) if match else None
        if match is None or place not in self.server.files:
            self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        elif match["what"] == "preupload":
            asked = json.loads(sent)["files"]
            self._answer(200, {"files": [_regular(one["path"]) for one in asked]})
        else:
            self._commit(place, [json.loads(line) for line in sent.splitlines()])

    def _commit(self, place: tuple[str, str], lines: list[Any]) -> None:
        header = next(line["value"] for line in lines if line["key"] == "header")
        if header.get("parentCommit", self.server.head) != self.server.head:
            self._answer(412, {"error": "A commit has happened since"})
            return
        for line in lines:
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.server.files[place][line["value"]["path"]] = content
        self.server.commits.append((*place, header["summary"]))
        url = f"{self.server.address}/{place[1]}/commit/{self.server.head}"
        self._answer(200, {"success": True, "commitUrl": url, "commitOid": self.server.head})

    def _answer(
        self, code: int, content: Any, headers: dict[str, str] | None = None, *, body: bool = True
    ) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        """Quiet."""


def _regular(path: str) -> dict[str, Any]:
    return {"path": path, "uploadMode": "regular", "shouldIgnore": False, "oid": None}


@contextmanager
def local_hub() -> Iterator[LocalHub]:
    """The running server."""
    server = LocalHub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

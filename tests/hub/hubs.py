"""Two small hubs on loopback that speak as much of Hugging Face's and ModelScope's HTTP as their clients ask for, and can fail."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin")
"""What is stored apart, with its SHA-256 in the listing."""


@dataclass
class Hub:
    """Models by their id, and how the hub misbehaves."""

    models: dict[str, dict[str, bytes]]
    commit: str = COMMIT
    gated: bool = False
    failing: int = 0
    """An HTTP status that every request gets."""
    cut: dict[str, int] = field(default_factory=dict)
    """Files of which each answer ends after so many bytes."""
    ranges: bool = True
    spoilt: set[str] = field(default_factory=set)
    """Files of which other bytes are sent than the listing says."""
    address: str = ""
    asked: list[str] = field(default_factory=list)
    """`GET path` of every request."""
    tokens: set[str | None] = field(default_factory=set)

    def sent(self) -> list[str]:
        """The files that were asked for, in order."""
        return [found[1] for line in self.asked if (found := re.search(r"(?:^GET .*/resolve/[^/]+/|FilePath=)([^&?]+)", line))]


@contextmanager
def serve(kind: type[_Handler], models: dict[str, dict[str, bytes]]) -> Iterator[Hub]:
    """A hub that can be reached at `hub.address` while the block lasts."""
    hub = Hub(models)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (kind,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *words: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        self.hub.tokens.add(self.headers.get("Authorization"))
        self.hub.asked.append(f"{self.command} {unquote(self.path)}")
        if self.hub.failing:
            self.say(self.hub.failing, b"broken")
        else:
            self.answer(unquote(parts.path), {name: values[0] for name, values in parse_qs(parts.query).items()})

    def answer(self, path: str, query: dict[str, str]) -> None:
        raise NotImplementedError

    def say(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, name: str, data: bytes, **headers: str) -> None:
        """All of a file or, if asked for and possible, the rest of it; perhaps cut off, perhaps other bytes."""
        if name in self.hub.spoilt:
            data = bytes(reversed(data))
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted and self.hub.ranges else 0
        part = data[start:]
        self.send_response(206 if start else 200)
        for key, value in {**headers, "Content-Length": str(len(part)), "Accept-Ranges": "bytes"}.items():
            self.send_header(key.replace("_", "-"), value)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(part[: self.hub.cut.get(name, len(part))])
            if name in self.hub.cut:
                self.close_connection = True


class HuggingFace(_Handler):
    """`/api/models/ID/revision/R`, `/api/models/ID/tree/R`, `/ID/resolve/R/FILE`."""

    def answer(self, path: str, query: dict[str, str]) -> None:
        asked = re.fullmatch(r"/api/models/(.+?)/(revision|tree)/(.+)|/(.+?)/resolve/([^/]+)/(.+)", path)
        model, revision = (asked[1] or asked[4], asked[3] or asked[5]) if asked else ("", "")
        files = self.hub.models.get(model)
        if asked is None or files is None:
            self.say(401, b"{}", X_Error_Code="RepoNotFound", X_Error_Message="Repository not found")
        elif revision not in ("main", self.hub.commit):
            self.say(404, b"{}", X_Error_Code="RevisionNotFound", X_Error_Message="Invalid rev id")
        elif asked[2] == "revision":
            siblings = [{"rfilename": name, "size": len(data), "blobId": _oid(data), **_lfs(name, data)} for name, data in files.items()]
            self.say(200, json.dumps({"id": model, "sha": self.hub.commit, "siblings": siblings, "tags": []}).encode())
        elif asked[2] == "tree":
            tree = [{"type": "file", "path": n, "size": len(d), "oid": _oid(d), **_lfs(n, d, "oid")} for n, d in files.items()]
            self.say(200, json.dumps(tree).encode())
        elif self.hub.gated:
            self.say(403, b"{}", X_Error_Code="GatedRepo", X_Error_Message="Access is restricted")
        elif asked[6] not in files:
            self.say(404, b"{}", X_Error_Code="EntryNotFound", X_Error_Message="Entry not found")
        else:
            data = files[asked[6]]
            tag = hashlib.sha256(data).hexdigest() if asked[6].endswith(LARGE) else _oid(data)
            self.send_file(asked[6], data, ETag=f'"{tag}"', X_Repo_Commit=self.hub.commit)


class ModelScope(_Handler):
    """`/api/v1/models/ID/repo/files?Revision=R&Recursive=true`, `/api/v1/models/ID/repo?Revision=R&FilePath=FILE`."""

    def answer(self, path: str, query: dict[str, str]) -> None:
        asked = re.fullmatch(r"/api/v1/models/(.+?)/repo(/files)?", path)
        files = self.hub.models.get(asked[1]) if asked else None
        if asked is None or files is None or query["Revision"] != "master":
            self.say(404, json.dumps({"Code": 10010205001, "Message": "not found", "Success": False}).encode())
        elif self.hub.gated:
            self.say(403, b"{}")
        elif asked[2]:
            listed = [{"Path": "1_Pooling", "Name": "1_Pooling", "Size": 0, "Type": "tree"}]
            listed += [
                {"Path": n, "Name": n.split("/")[-1], "Size": len(d), "Type": "blob", "Sha256": hashlib.sha256(d).hexdigest()}
                for n, d in files.items()
            ]
            self.say(200, json.dumps({"Code": 200, "Data": {"Files": listed}, "Success": True}).encode())
        elif query["FilePath"] not in files:
            self.say(404, b"{}")
        else:
            self.send_file(query["FilePath"], files[query["FilePath"]])


def _oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _lfs(name: str, data: bytes, key: str = "sha256") -> dict[str, object]:
    return {"lfs": {key: hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}} if name.endswith(LARGE) else {}

"""A small stand-in for the Hugging Face hub on a loopback port: one repository, files out of a folder, real HTTP."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """What the server gives out, and what was asked of it."""

    def __init__(self, repo: str, folder: Path) -> None:
        self.repo, self.folder = repo, folder
        self.cut_after: int | None = None  # the connection breaks after so many bytes of a large file …
        self.cuts = 0  # … so many times
        self.promise: str | None = None  # the hash that the listing names instead of the true one
        self.ranges: list[str] = []
        self.given: list[str] = []
        self.url = ""


@contextmanager
def running_hub(repo: str, folder: Path):
    hub = Hub(repo, folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            path = self.path.split("?")[0]
            if path.startswith(f"/api/models/{hub.repo}"):
                self.listing(path)
            elif path.startswith(f"/{hub.repo}/resolve/"):
                self.file(path.split("/", 5)[5], body=body)
            else:
                self.send_error(404)

        def listing(self, path: str) -> None:
            files = [item for item in sorted(hub.folder.iterdir()) if item.is_file()]
            if "/tree/" in path:
                value: object = [
                    {"type": "file", "path": item.name, "size": item.stat().st_size, "oid": etag(item)}
                    for item in files
                ]
            else:
                siblings = [
                    {"rfilename": item.name, "size": item.stat().st_size, "lfs": lfs(item, hub.promise)}
                    for item in files
                ]
                value = {"id": hub.repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def file(self, name: str, *, body: bool) -> None:
            path = hub.folder / name
            if not path.is_file():
                self.send_error(404)
                return
            content = path.read_bytes()
            start = 0
            asked = self.headers.get("Range")
            if asked and body:
                hub.ranges.append(asked)
                start = int(asked.removeprefix("bytes=").split("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", f'"{etag(path)}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if not body:
                return
            hub.given.append(name)
            if hub.cut_after is not None and hub.cuts and len(content) - start > hub.cut_after:
                hub.cuts -= 1
                self.wfile.write(content[start : start + hub.cut_after])
                self.wfile.flush()
                self.close_connection = True
                self.connection.close()
                return
            self.wfile.write(content[start:])

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def lfs(path: Path, promise: str | None) -> dict[str, object] | None:
    """Large files carry their hash in the listing."""
    if path.suffix != ".safetensors":
        return None
    return {"sha256": promise or etag(path), "size": path.stat().st_size, "pointerSize": 134}


def etag(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

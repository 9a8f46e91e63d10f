"""A small HTTP server that answers like a Kubernetes API server, from JSON files in the form of its API."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import yaml

FIXTURES = Path(__file__).parent / "fixtures" / "topology"
TOKEN = "token-of-a-test"


@dataclass
class ApiServer:
    """What the server has, how it fails, and which requests came."""

    lists: dict[str, dict]
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def nodes(self):
        """The nodes, to be changed by a test."""
        return self.lists["/api/v1/nodes"]["items"]

    def pods(self):
        """The pods, to be changed by a test."""
        return self.lists["/api/v1/pods"]["items"]

    def answer(self, path: str, query: dict[str, list[str]], token: str | None) -> tuple[int, bytes]:
        """Return status and body, with the paging, selection and Status objects of the real server."""
        if (token or "").lower() != f"bearer {TOKEN}":  # the scheme may have any case
            return _status(401, "Unauthorized")
        if path in self.failures:
            return _status(*self.failures[path])
        namespace, path = _namespace(path)
        if path not in self.lists:
            return _status(404, "the server could not find the requested resource")
        items = self.lists[path]["items"]
        if namespace:
            items = [item for item in items if item["metadata"]["namespace"] == namespace]
        for part in filter(None, query.get("fieldSelector", [""])[0].split(",")):
            key, unwanted = part.split("!=")
            assert key == "status.phase"
            items = [item for item in items if item["status"]["phase"] != unwanted]
        start, limit = int(query.get("continue", ["0"])[0]), int(query.get("limit", ["0"])[0]) or len(items)
        metadata = {"resourceVersion": "304512"}
        if start + limit < len(items):
            metadata |= {"continue": str(start + limit), "remainingItemCount": len(items) - start - limit}
        return 200, json.dumps(
            {**self.lists[path], "metadata": metadata, "items": items[start : start + limit]}
        ).encode()


@contextmanager
def api_server(recording: str) -> Iterator[ApiServer]:
    """Serve `tests/fixtures/topology/{recording}` on a free port."""
    state = ApiServer(json.loads((FIXTURES / recording).read_text()))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            parts = urlsplit(self.path)
            state.requests.append(self.path)
            status, body = state.answer(parts.path, parse_qs(parts.query), self.headers.get("Authorization"))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_kubeconfig(path: Path, url: str, token: str = TOKEN) -> Path:
    """Write a kubeconfig with the context `test`."""
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": {"token": token}}],
                "contexts": [{"name": "test", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    return path


def _namespace(path: str) -> tuple[str | None, str]:
    parts = path.split("/")
    if parts[:4] == ["", "api", "v1", "namespaces"] and len(parts) == 6:
        return parts[4], f"/api/v1/{parts[5]}"
    return None, path


def _status(code: int, message: str) -> tuple[int, bytes]:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "code": code,
    }
    return code, json.dumps(status).encode()

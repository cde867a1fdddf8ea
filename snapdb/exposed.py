"""Metrics over HTTP, for Prometheus to come and read; loaded when they are asked for."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable

__all__ = ["Server"]

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Server:
    """Gives out what ``report(openmetrics=)`` says until ``close()``. A context manager; ``port`` is the one it has.
    """

    def __init__(self, host: str, port: int, report: Callable[..., str]) -> None:
        self._server = ThreadingHTTPServer((host, port), _handler(report))
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="snapdb-metrics", daemon=True)
        self._thread.start()
        self._open = True

    def close(self) -> None:
        """Give the port back; again it does nothing."""
        if self._open:
            self._open = False
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _handler(report: Callable[..., str]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # seconds for a client to say what it wants

        def do_GET(self) -> None:
            if self.path.partition("?")[0] not in ("/", "/metrics"):
                self.send_error(404)
                return
            is_open = "application/openmetrics-text" in self.headers.get("Accept", "")
            text = report(openmetrics=is_open).encode()
            self.send_response(200)
            self.send_header("Content-Type", OPEN if is_open else PLAIN)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: a scrape every few seconds is no news."""

    return Handler

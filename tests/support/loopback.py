"""HTTP on a free port of the loopback, for the servers of the tests."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers and says nothing on the terminal."""

    protocol_version = "HTTP/1.1"

    def reply(self, data: bytes, headers: Mapping[str, str], status: int = 200, body: bool = True) -> None:
        """Send one answer; without its ``body`` to a HEAD request."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep the tests' output clean."""


@contextmanager
def serving(handler: type[Handler]) -> Iterator[str]:
    """Serve while the context lasts; the server's address."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = True
    threading.Thread(target=http.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}"
    finally:
        http.shutdown()
        http.server_close()

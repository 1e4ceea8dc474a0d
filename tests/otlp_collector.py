"""A stand-in for an OpenTelemetry collector: takes spans over HTTP, and keeps them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """Stands in for an OTLP collector: keeps the spans that are posted to it."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []
        """With the name of the node that told of each."""
        collector = self

        class Posts(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.take(self.path, body, self.headers.get("content-encoding", ""))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Posts)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def take(self, path: str, body: bytes, encoding: str) -> None:
        assert path == "/v1/traces"
        data = gzip.decompress(body) if encoding == "gzip" else body
        for told in ExportTraceServiceRequest.FromString(data).resource_spans:
            names = {one.key: one.value.string_value for one in told.resource.attributes}
            assert names["service.name"] == "kowalski-node"
            for scope in told.scope_spans:
                self.spans += [(names["host.name"], span) for span in scope.spans]

    @contextmanager
    def serving(self) -> Iterator[Collector]:
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

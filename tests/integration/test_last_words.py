"""A real node is told to stop while clients listen: none of them is left without a word."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.cluster import START_S, open_cluster, open_model_server, wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

CHAT = {
    "model": "m",
    "messages": [{"role": "user", "content": "DELAY: 0.02\nTOKENS: 5000"}],
    "stream": True,
}
LISTENED = {
    "/v1/chat/completions": (CHAT, b'data: {"error":{"message":"this node is stopping"'),
    "/v1/messages": ({**CHAT, "max_tokens": 5000}, b"event: error\n"),
    "/api/chat": (CHAT, b'{"error":"this node is stopping"}'),
    "/events": (None, b"event: error\n"),
}


def test_every_stream_has_its_last_words_when_a_node_is_told_to_stop(tmp_path: Path) -> None:
    with (
        open_model_server(tmp_path, "--model", "m", "--slots", "8") as models,
        open_cluster(tmp_path) as cluster,
        ThreadPoolExecutor(len(LISTENED)) as threads,
        ExitStack() as stack,
    ):
        node = cluster.start("alone", "--no-mdns", "--backend", models.url, "--drain-s", "1")
        node.wait_until_up(START_S)
        wait_until(lambda: bool(node.ask("status")["models"]), "the model is known")
        port = int(str(node.ask("status")["http_port"]))

        def listen(path: str) -> http.client.HTTPResponse:
            body = LISTENED[path][0]
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            stack.callback(connection.close)
            method = "GET" if body is None else "POST"
            connection.request(method, path, None if body is None else json.dumps(body))
            response = connection.getresponse()
            stack.callback(response.close)
            assert response.status == 200
            assert response.read(1)
            return response

        listening = {path: listen(path) for path in LISTENED}
        heard = {path: threads.submit(response.read) for path, response in listening.items()}
        assert node.stop() == 0
        for path, (_, last) in LISTENED.items():
            assert last in heard[path].result()[-300:], path

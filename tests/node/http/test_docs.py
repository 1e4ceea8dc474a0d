"""What is told of the routes."""

from typing import Any

from kowalski.node.http.docs import openapi, page
from kowalski.node.http.exchange import Exchange
from kowalski.node.http.routing import Route


async def nothing(_exchange: Exchange, _parts: dict[str, str]) -> None: ...


NUMBER = {"type": "integer"}
ROUTES = (
    Route("GET", "/a/{b}/{c+}", nothing, "Look <here>", "Some"),
    Route(
        "POST",
        "/a",
        nothing,
        "Make",
        "Some",
        lambda: {"properties": {"n": {"$ref": "#/components/schemas/N"}}, "$defs": {"N": NUMBER}},
        stream="text/event-stream; charset=utf-8",
        reference="https://example.org/a",
    ),
    Route("GET", "/some", nothing, "List", "Some", query=("limit",)),
    Route("GET", "/hidden", nothing),
)


def test_routes_with_a_summary_are_told_of() -> None:
    document: dict[str, Any] = openapi(ROUTES)
    told = document["paths"]
    assert document["components"]["schemas"]["N"] == NUMBER
    assert told["/a"]["post"]["externalDocs"] == {"url": "https://example.org/a"}
    kinds = told["/a"]["post"]["responses"]["200"]["content"]
    assert set(kinds) == {"application/json", "text/event-stream"}
    assert set(told) == {"/a/{b}/{c}", "/a", "/some"}
    get = told["/a/{b}/{c}"]["get"]
    assert [one["name"] for one in get["parameters"]] == ["b", "c"]
    assert (get["tags"], get["operationId"]) == (["Some"], "get_a_b_c")
    (content,) = told["/a"]["post"]["requestBody"]["content"].values()
    referred = {"$ref": "#/components/schemas/N"}
    assert content == {"schema": {"type": "object", "properties": {"n": referred}}}
    assert [(one["name"], one["in"]) for one in told["/some"]["get"]["parameters"]] == [
        ("limit", "query")
    ]


def test_the_page_tells_the_same_and_takes_nothing_for_markup() -> None:
    told = page(ROUTES)
    assert "Look &lt;here&gt;" in told
    assert "/hidden" not in told
    assert "<script" not in told

"""What foreign clients do, each as its own documentation shows it; run by test_foreign_clients.py.

`clients.py NAME URL` runs one of them against a node and prints what it got as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

MODEL = "m"
LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "around",
        "parameters": {"type": "object", "properties": {"where": {"type": "string"}}},
    },
}


def openai_sync(url: str) -> dict[str, Any]:
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    said = client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "ECHO: hello there"}]
    )
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "TOKENS: 3"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    found = client.embeddings.create(model=MODEL, input=["ab", "zz"])
    try:
        client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "x"}])
        error = ""
    except openai.NotFoundError as missing:
        error = str(missing.code)
    return {
        "text": said.choices[0].message.content,
        "usage": [said.usage.prompt_tokens, said.usage.completion_tokens],
        "streamed": "".join(c.choices[0].delta.content or "" for c in chunks if c.choices),
        "finish": [c.choices[0].finish_reason for c in chunks if c.choices][-1],
        "stream_usage": chunks[-1].usage.completion_tokens,
        "models": [one.id for one in client.models.list()],
        "embedding": found.data[0].embedding[:3],
        "error": error,
    }


def openai_async(url: str) -> dict[str, Any]:
    import openai

    async def ask() -> dict[str, Any]:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            message = {"role": "user", "content": 'CALL: look {"where": "here"}'}
            whole = await client.chat.completions.create(
                model=MODEL, messages=[message], tools=[LOOK]
            )
            stream = await client.chat.completions.create(
                model=MODEL, messages=[message], tools=[LOOK], stream=True
            )
            pieces = [
                call.function.arguments
                async for chunk in stream
                for call in chunk.choices[0].delta.tool_calls or ()
            ]
            call = whole.choices[0].message.tool_calls[0]
            answered = await client.chat.completions.create(
                model=MODEL,
                messages=[
                    message,
                    whole.choices[0].message,
                    {"role": "tool", "tool_call_id": call.id, "content": "ECHO: seen"},
                ],
                tools=[LOOK],
            )
            many = await asyncio.gather(
                *(
                    client.chat.completions.create(
                        model=MODEL, messages=[{"role": "user", "content": f"ECHO: {number}"}]
                    )
                    for number in range(16)
                )
            )
        return {
            "call": [call.function.name, json.loads(call.function.arguments)],
            "finish": whole.choices[0].finish_reason,
            "streamed": json.loads("".join(pieces)),
            "answered": answered.choices[0].message.content,
            "many": [one.choices[0].message.content for one in many],
        }

    return asyncio.run(ask())


def openai_responses(url: str) -> dict[str, Any]:
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
    said = client.responses.create(model=MODEL, instructions="be brief", input="ECHO: hello there")
    events = list(client.responses.create(model=MODEL, input="TOKENS: 3", stream=True))
    tool = {"type": "function", "strict": False, **LOOK["function"]}
    asked = [{"role": "user", "content": 'CALL: look {"where": "here"}'}]
    with client.responses.stream(model=MODEL, input=asked, tools=[tool]) as stream:
        heard = {event.type for event in stream}
        called = stream.get_final_response()
    call = next(one for one in called.output if one.type == "function_call")
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "ECHO: seen"}
    seen = client.responses.create(model=MODEL, input=[*asked, *called.output, result])
    try:
        client.responses.create(model=MODEL, input="x", previous_response_id="resp_1")
        error = ""
    except openai.BadRequestError as wrong:
        error = str(wrong.param)
    return {
        "text": said.output_text,
        "usage": [said.usage.input_tokens, said.usage.output_tokens],
        "streamed": "".join(e.delta for e in events if e.type == "response.output_text.delta"),
        "whole": events[-1].response.output_text,
        "first_and_last": [events[0].type, events[-1].type],
        "call": [call.name, json.loads(call.arguments)],
        "heard": "response.function_call_arguments.delta" in heard,
        "answered": seen.output_text,
        "error": error,
    }


def ollama_client(url: str) -> dict[str, Any]:
    import ollama

    client = ollama.Client(host=url)
    said = client.chat(MODEL, [{"role": "user", "content": "ECHO: hello there"}])
    pieces = client.chat(MODEL, [{"role": "user", "content": "TOKENS: 3"}], stream=True)
    call = client.chat(
        MODEL, [{"role": "user", "content": 'CALL: look {"where": "here"}'}], tools=[LOOK]
    )
    try:
        client.chat("nope", [{"role": "user", "content": "x"}])
        status = 200
    except ollama.ResponseError as error:
        status = error.status_code
    return {
        "text": said.message.content,
        "streamed": "".join(piece.message.content or "" for piece in pieces),
        "generated": client.generate(MODEL, "ECHO: once").response,
        "models": [one.model for one in client.list().models],
        "loaded": [one.model for one in client.ps().models],
        "call": [
            [one.function.name, dict(one.function.arguments)] for one in call.message.tool_calls
        ],
        "embedding": list(client.embed(MODEL, ["ab"]).embeddings[0][:3]),
        "shown": client.show(MODEL).details.family,
        "status": status,
    }


def anthropic_client(url: str) -> dict[str, Any]:
    import anthropic

    client = anthropic.Anthropic(base_url=url, api_key="none", max_retries=0)
    said = client.messages.create(
        model=MODEL,
        max_tokens=50,
        system="be brief",
        messages=[{"role": "user", "content": "ECHO: hello there"}],
    )
    with client.messages.stream(
        model=MODEL, max_tokens=50, messages=[{"role": "user", "content": "TOKENS: 3"}]
    ) as stream:
        streamed = "".join(stream.text_stream)
        whole = stream.get_final_message()
    tool = {
        "name": "look",
        "description": "around",
        "input_schema": LOOK["function"]["parameters"],
    }
    call = client.messages.create(
        model=MODEL,
        max_tokens=50,
        tools=[tool],
        messages=[{"role": "user", "content": 'CALL: look {"where": "here"}'}],
    )
    try:
        client.messages.create(
            model="nope", max_tokens=5, messages=[{"role": "user", "content": "x"}]
        )
        error = ""
    except anthropic.NotFoundError as missing:
        error = missing.body["error"]["type"]
    used = [block for block in call.content if block.type == "tool_use"]
    return {
        "text": said.content[0].text,
        "stop": said.stop_reason,
        "streamed": streamed,
        "usage": whole.usage.output_tokens,
        "call": [[one.name, one.input] for one in used],
        "call_stop": call.stop_reason,
        "models": [one.id for one in client.models.list()],
        "counted": client.messages.count_tokens(
            model=MODEL, messages=[{"role": "user", "content": "hello there"}]
        ).input_tokens,
        "error": error,
    }


def mcp_client(url: str) -> dict[str, Any]:
    import anyio
    import mcp

    async def ask() -> dict[str, Any]:
        heard: list[str] = []

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            heard.append(message or "")

        async with mcp.Client(f"{url}/mcp") as client:
            tools = await client.list_tools()
            ran = await client.call_tool(
                "run", {"language": "python", "code": "print(6 * 7)"}, progress_callback=hear
            )
            failed = await client.call_tool("run", {"language": "python", "code": "1 / 0"})
            asked = await client.call_tool("ask", {"prompt": "ECHO: hello"})
            done = await client.call_tool(
                "submit",
                {
                    "prompt": "```python\nprint(len(open('a.txt').read()))\n```",
                    "mode": "blocks",
                    "context": [{"name": "a.txt", "text": "x" * 5000}],
                },
                progress_callback=hear,
            )
        return {
            "tools": [tool.name for tool in tools.tools],
            "ran": ran.content[0].text,
            "failed": failed.is_error,
            "asked": asked.content[0].text,
            "done": [done.structured_content["state"], done.structured_content["stats"]["cells"]],
            "heard": bool(heard),
        }

    return anyio.run(ask)


def mcp_stdio(command: str) -> dict[str, Any]:
    import anyio
    import mcp
    from mcp.client.stdio import StdioServerParameters, stdio_client

    program, *arguments = json.loads(command)

    async def ask() -> dict[str, Any]:
        server = StdioServerParameters(command=program, args=arguments)
        async with mcp.Client(stdio_client(server)) as client:
            tools = await client.list_tools()
            ran = await client.call_tool("run", {"language": "python", "code": "print(6 * 7)"})
        return {"tools": [tool.name for tool in tools.tools], "ran": ran.content[0].text}

    return anyio.run(ask)


def a2a_client(url: str) -> dict[str, Any]:
    import httpx
    from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
    from a2a.types import a2a_pb2 as pb

    def message(text: str) -> pb.Message:
        return pb.Message(message_id="1", role=pb.ROLE_USER, parts=[pb.Part(text=text)])

    async def ask() -> dict[str, Any]:
        async with httpx.AsyncClient(timeout=60) as web:
            card = await A2ACardResolver(web, url).get_agent_card()
            config = ClientConfig(httpx_client=web, streaming=True)
            client = ClientFactory(config).create(card)
            request = pb.SendMessageRequest(message=message("ECHO: hello"))
            request.metadata.update({"mode": "direct"})
            events = [event async for event in client.send_message(request)]
            task = next(event.task.id for event in events if event.HasField("task"))
            found = await client.get_task(pb.GetTaskRequest(id=task))
        states = [
            pb.TaskState.Name(event.status_update.status.state)
            for event in events
            if event.HasField("status_update")
        ]
        return {
            "name": card.name,
            "last": states[-1],
            "found": pb.TaskState.Name(found.status.state),
            "answer": found.artifacts[0].parts[0].text,
        }

    return asyncio.run(ask())


CLIENTS = {
    "openai_sync": openai_sync,
    "openai_async": openai_async,
    "openai_responses": openai_responses,
    "ollama": ollama_client,
    "anthropic": anthropic_client,
    "mcp": mcp_client,
    "mcp_stdio": mcp_stdio,
    "a2a": a2a_client,
}

if __name__ == "__main__":
    print(json.dumps(CLIENTS[sys.argv[1]](sys.argv[2])))  # noqa: T201

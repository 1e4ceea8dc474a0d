"""exo: one model over several devices, driven through its HTTP interface on port 52415.

exo is a program of its own and no dependency: where it is not there, nothing of this runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from kowalski.node.backends import exo_state
from kowalski.node.backends.exo_state import Instance
from kowalski.node.backends.lines import JsonObject
from kowalski.node.backends.seam import BackendError, ModelInfo

if TYPE_CHECKING:
    from kowalski.node.backends.openai_models import GetJson, OpenAiServer


async def list_exo(get: GetJson, server: OpenAiServer) -> tuple[ModelInfo, ...]:
    """The models of the instances all of whose runners are ready or running."""
    return exo_state.usable(await read_instances(get, server))


async def read_instances(get: GetJson, server: OpenAiServer) -> tuple[Instance, ...]:
    try:
        instances = await get(f"{server.url}/state/instances")
        runners = await get(f"{server.url}/state/runners")
    except BackendError as error:
        if error.code != "model_missing":
            raise
        # Before v1.0.70 the state came in one piece only.
        state = await get(f"{server.url}/state")
        whole = cast("JsonObject", state) if isinstance(state, dict) else {}
        instances, runners = whole.get("instances"), whole.get("runners")
    return exo_state.instances(instances, runners)

"""What each kind of server says it can run."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio

from kowalski.node.backends.exo import list_exo
from kowalski.node.backends.openai_models import (
    ListModels,
    OpenAiServer,
    list_generic,
    list_llama_server,
    list_lm_studio,
    list_vllm,
)
from kowalski.node.backends.seam import BackendError, ModelInfo

SERVER = OpenAiServer("any", "http://h", "http://h/v1")


def listed(list_by: ListModels, answers: Mapping[str, object]) -> tuple[ModelInfo, ...]:
    async def get(url: str) -> object:
        path = url.removeprefix("http://h")
        if path not in answers:
            raise BackendError("model_missing", "HTTP 404")
        return answers[path]

    return trio.run(list_by, get, SERVER)


def models_answer(*entries: object) -> Mapping[str, object]:
    return {"/v1/models": {"object": "list", "data": list(entries)}}


def test_vllm_tells_its_context_and_batches_by_itself() -> None:
    answers = models_answer({"id": "m", "owned_by": "vllm", "max_model_len": 4096})
    assert listed(list_vllm, answers) == (ModelInfo("m", 4096, True, 16),)


def test_llama_server_tells_its_slots() -> None:
    settings = {"n_ctx": 1024}
    answers = models_answer({"id": "m", "meta": {"n_ctx": 9, "n_ctx_train": 99}}) | {
        "/props": {"total_slots": 3, "default_generation_settings": settings}
    }
    assert listed(list_llama_server, answers) == (ModelInfo("m", 1024, True, 3),)


def test_llama_server_without_props_has_one_slot() -> None:
    answers = models_answer({"id": "m", "meta": {"n_ctx": 9, "n_ctx_train": 99}})
    assert listed(list_llama_server, answers) == (ModelInfo("m", 9, True, 1),)


def test_lm_studio_tells_loaded_from_cold_and_knows_embeddings() -> None:
    entries = [
        {"id": "a", "type": "llm", "state": "loaded", "loaded_context_length": 5},
        {"id": "b", "type": "vlm", "state": "not-loaded", "max_context_length": 7},
        {"id": "c", "type": "embeddings", "state": "loaded"},
    ]
    answers = {"/api/v0/models": {"data": entries}}
    assert listed(list_lm_studio, answers) == (
        ModelInfo("a", 5, True, 1),
        ModelInfo("b", 7, False, 1),
        ModelInfo("c", None, True, 1, capabilities=("embed",)),
    )


def exo_instance(model: str, *runners: str) -> object:
    card = {"modelId": model, "contextLength": 131072}
    shards = {runner: {"PipelineShardMetadata": {"modelCard": card}} for runner in runners}
    return {"MlxRingInstance": {"shardAssignments": {"modelId": model, "runnerToShard": shards}}}


EXO_INSTANCES = {"i": exo_instance("ready", "r1", "r2"), "j": exo_instance("loading", "r1", "r3")}
EXO_RUNNERS = {
    "r1": {"RunnerReady": {"prefillServerPort": None}},
    "r2": {"RunnerRunning": {}},
    "r3": {"RunnerLoading": {"layersLoaded": 1}},
}


@pytest.mark.parametrize(
    "answers",
    [
        {"/state/instances": EXO_INSTANCES, "/state/runners": EXO_RUNNERS},
        {"/state": {"instances": EXO_INSTANCES, "runners": EXO_RUNNERS}},
    ],
)
def test_exo_can_run_the_instances_whose_runners_are_all_ready(answers: dict[str, object]) -> None:
    assert listed(list_exo, answers) == (ModelInfo("ready", 131072, True, 1),)


@pytest.mark.parametrize("odd", [None, [], 3, {"i": None}, {"i": {"X": {"shardAssignments": 1}}}])
def test_exo_with_a_state_of_another_shape_can_run_nothing(odd: object) -> None:
    assert listed(list_exo, {"/state/instances": odd, "/state/runners": odd}) == ()


def test_entries_without_a_usable_name_are_left_out_and_doubles_count_once() -> None:
    answers = models_answer({"id": 3}, "x", {"id": ""}, {"id": "m"}, {"id": "m"}, {"id": "x" * 999})
    assert [model.name for model in listed(list_generic, answers)] == ["m"]


@pytest.mark.parametrize("context", [-1, 0, True, "8k", 1 << 40, 2.5])
def test_a_context_length_beyond_reason_is_unknown(context: object) -> None:
    answers = models_answer({"id": "m", "max_model_len": context})
    assert listed(list_generic, answers)[0].context_tokens is None


def test_a_list_that_is_none_is_a_bad_reply() -> None:
    with pytest.raises(BackendError, match="no list of models"):
        listed(list_generic, {"/v1/models": {"data": "many"}})

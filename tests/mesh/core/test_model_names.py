"""Which names mean the same model, by the spellings of servers and registries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.model_names import is_same, parse, resolve

LLAMA = (
    "llama3.2:3b",
    "llama3.2:3b-instruct-q8_0",
    "llama-3.2-3b-instruct",
    "Llama-3.2-3B-Instruct-Q4_K_M.gguf",
    "meta-llama/Llama-3.2-3B-Instruct",
    "mlx-community/Llama-3.2-3B-Instruct-4bit",
    "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M",
    "lmstudio-community/Llama-3.2-3B-Instruct-GGUF",
)


@pytest.mark.parametrize("offered", LLAMA)
def test_one_model_is_known_by_all_its_spellings(offered: str) -> None:
    assert is_same("llama3.2:3b", offered)
    assert is_same("llama3.2", offered)


@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        ("qwen2.5-coder:7b", "Qwen/Qwen2.5-Coder-7B-Instruct"),
        ("qwen3:30b", "mlx-community/Qwen3-30B-A3B-4bit"),
        ("gpt-oss:20b", "openai/gpt-oss-20b"),
        ("gpt-oss:20b", "mlx-community/gpt-oss-20b-MXFP4-Q8"),
        ("gemma3:4b", "google/gemma-3-4b-it"),
        ("gemma3n:e4b", "google/gemma-3n-E4B-it"),
        ("phi4", "microsoft/phi-4"),
        ("mixtral:8x7b", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
        ("mistral-small:24b", "mistralai/Mistral-Small-24B-Instruct-2501"),
        ("llama3.1:8b", "lmstudio-community/Meta-Llama-3.1-8B-Instruct-GGUF"),
        ("nomic-embed-text", "nomic-embed-text-v1.5"),
        ("Qwen/Qwen3-8B", "Qwen3-8B-UD-Q4_K_XL.gguf"),
        ("llama3.2:3b-instruct-q4_K_M", "mlx-community/Llama-3.2-3B-Instruct-4bit"),
        ("glm-4.7", "mlx-community/GLM-4.7-8bit-gs32"),
        ("tiny-random", "TINY-random:latest"),
        ("mlx-community/Llama-3.2-3B-Instruct-4bit", "llama3.2:3b"),
    ],
)
def test_spellings_of_servers_and_registries_meet(asked: str, offered: str) -> None:
    assert is_same(asked, offered)


@pytest.mark.parametrize(
    ("asked", "offered"),
    [
        ("llama3.2:3b", "llama3.2:1b"),
        ("llama3.2", "llama3.1:8b"),
        ("llama3.2", "llama3.2-vision:11b"),
        ("qwen2.5:7b", "qwen2.5-coder:7b"),
        ("qwen3:8b", "qwen2.5:8b"),
        ("deepseek-r1:7b", "DeepSeek-R1-Distill-Qwen-7B"),
        ("llama3.2:3b-instruct-q8_0", "mlx-community/Llama-3.2-3B-Instruct-4bit"),
        ("nomic-embed-text-v1", "nomic-embed-text-v1.5"),
        ("llama3.1:4b", "mlx-community/Llama-3.1-Nemotron-Nano-4B-v1.1-4bit"),
        ("llama3.2:3b", "llama3.2"),  # who knows what that is
        (":", "x"),
        ("m1", "m2"),
    ],
)
def test_another_model_is_not_taken_for_it(asked: str, offered: str) -> None:
    assert not is_same(asked, offered)
    assert resolve(asked, [offered]) == ()


def test_a_size_left_open_means_the_exact_name_where_somebody_has_it() -> None:
    offered = ["llama3.2:latest", "llama3.2:1b", "meta-llama/Llama-3.2-3B-Instruct"]
    assert resolve("llama3.2", offered) == ("llama3.2:latest",)


def test_a_size_left_open_means_the_largest_elsewhere_wherever_it_is() -> None:
    offered = ["llama3.2:1b", "llama3.2:3b", "mlx-community/Llama-3.2-3B-Instruct-4bit", "phi4"]
    assert resolve("llama3.2", offered) == (
        "llama3.2:3b",
        "mlx-community/Llama-3.2-3B-Instruct-4bit",
    )
    assert resolve("mixtral", ["mixtral:8x7b", "mixtral:8x22b"]) == ("mixtral:8x22b",)
    assert resolve("smollm2", ["smollm2:135m", "smollm2:1.7b"]) == ("smollm2:1.7b",)


def test_a_size_that_is_told_may_be_had_under_any_spelling_the_exact_first() -> None:
    assert resolve("llama3.2:3b", reversed(LLAMA))[0] == "llama3.2:3b"
    assert set(resolve("llama3.2:3b", LLAMA)) == set(LLAMA)


def test_nothing_that_fits_is_nothing() -> None:
    assert resolve("llama3.2", ["phi4", "qwen3:8b"]) == ()
    assert resolve("llama3.2", []) == ()


@given(st.text(max_size=60))
def test_every_name_is_parsed_and_means_itself(name: str) -> None:
    parse(name)
    assert is_same(name, name)
    assert resolve(name, [name]) == (name,)


@given(st.permutations(LLAMA))
def test_the_order_of_what_is_offered_does_not_matter(names: list[str]) -> None:
    assert resolve("llama3.2", names) == resolve("llama3.2", LLAMA)

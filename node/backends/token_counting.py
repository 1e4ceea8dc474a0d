"""The tokens of a text as model servers count them: `/tokenize`, in their dialects. No I/O.

llama-server answers a list of tokens, vLLM and SGLang (since 0.5.4) a `count` as well. Ollama, LM
Studio and exo have no such path. Compared with the sources of vLLM (`entrypoints/serve/tokenize`)
and SGLang (`entrypoints/openai/serving_tokenize.py`) of November 2026, not with running servers:
both take texts of any length, and read special tokens in a text as such (a count is a little lower
then). SGLang fails with a 500 where it was started without a tokenizer, and in versions where the
tokenizer tells no length, whose 10^30 its JSON cannot say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kowalski.node.backends.lines import JsonObject, excerpt
from kowalski.node.backends.seam import BackendError

if TYPE_CHECKING:
    from kowalski.node.backends.seam import BackendErrorCode

KINDS: Final = frozenset({"llama-server", "vllm", "sglang"})
AT_A_TIME: Final = 4
TIMEOUT_S: Final = 10.0
BODY_BYTES_MAX: Final = 32 * 1024 * 1024

NOT_THERE: Final[frozenset[BackendErrorCode]] = frozenset(
    {"model_missing", "unsupported", "rejected"}
)
"""How a server says that it is too old for this, or that its owner switched it off."""


def body(kind: str, model: str, text: str) -> JsonObject:
    if kind == "llama-server":
        return {"content": text, "add_special": False, "parse_special": False}
    return {"model": model, "prompt": text, "add_special_tokens": False}


def counted(value: JsonObject) -> int:
    """How many tokens an answer tells of.

    Raises:
        BackendError: `bad_reply`, it tells of none.
    """
    count, tokens = value.get("count"), value.get("tokens")
    if isinstance(count, int) and not isinstance(count, bool) and count >= 0:
        return count
    if isinstance(tokens, list):
        return len(tokens)
    raise BackendError("bad_reply", f"no count of tokens: {excerpt(value)}")

"""Names of models: which of them mean the same model, on servers that spell it differently.

`llama3.2:3b` (Ollama), `Llama-3.2-3B-Instruct-Q4_K_M.gguf` (llama.cpp), `llama-3.2-3b-instruct` (LM
Studio) and `mlx-community/Llama-3.2-3B-Instruct-4bit` (exo) are one model to who asks for
`llama3.2:3b`. Whatever the asked name says (size, variant) has to fit; what it leaves open may be
anything. Bits have to fit where both names tell them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

ANY_MODEL: Final = "*"
"""In place of a name: whichever the peer prefers."""

_BRANDS: Final = frozenset({"meta", "google", "microsoft", "mistralai", "ibm"})
"""Makers that some spellings put before the family's name."""

_FORMATS: Final = frozenset({"gguf", "mlx", "awq", "gptq", "exl2", "hf", "imatrix", "dwq", "ud"})
_TUNINGS: Final = frozenset({"instruct", "it", "chat"})
"""What models for asking are; who asks for a model means such a one."""

_SPLIT: Final = re.compile(r"[-_:\s]+")
_SIZE: Final = re.compile(r"(?:\d+x)?\d+(?:\.\d+)?[bm]|e\d+b|a\d+(?:\.\d+)?b")
_BITS: Final = re.compile(
    r"i?q(?P<q>\d)|(?P<bit>\d{1,2})bits?|(?:fp|bf|f|int|mxfp|nvfp|w)(?P<n>\d{1,2})(?:a16)?"
)
_QUANTIZATION: Final = re.compile(
    r"[-_.](?P<quantization>i?q\d(?:_[a-z0-9]+)*|[fb]{1,2}p?(?:16|32|8)|mxfp4|nvfp4)(?=$|[-_.])"
)
_DATE: Final = re.compile(r"\d{4}|\d{6}|\d{8}")
_VERSION: Final = re.compile(r"\d+(?:\.\d+)*[a-z]?")
_REVISION: Final = re.compile(r"v\d+(?:\.\d+)*")
_GROUP_SIZE: Final = re.compile(r"gs\d+")


@dataclass(frozen=True, slots=True)
class Model:
    """What a name says. `sizes` are `3b`, `8x7b`, or `30b` and `a3b`; `bits`, of each weight."""

    family: str
    sizes: frozenset[str]
    bits: int | None
    variants: frozenset[str]
    """Words that make it another model: `coder`, `vision`, `base`, `distill`."""


@lru_cache(maxsize=4096)
def parse(name: str) -> Model:
    """Take a name apart. Never fails: what is not understood belongs to the family."""
    text = name.strip().lower().removesuffix(".gguf")
    bits: int | None = None
    path, _, tag = text.rpartition(":") if ":" in text else (text, "", "")
    base = path.rpartition("/")[2]
    text = base if tag in ("", "latest") else f"{base}-{tag}"
    if found := _QUANTIZATION.search("-" + text):
        bits = _bits(found["quantization"])
        text = ("-" + text)[: found.start()] + ("-" + text)[found.end() :]
    family: list[str] = []
    sizes: set[str] = set()
    variants: set[str] = set()
    for word in filter(None, _SPLIT.split(text)):
        if _SIZE.fullmatch(word):
            sizes.add(word)
        elif (told := _bits(word)) is not None:
            bits = told
        elif word in _FORMATS or word in _TUNINGS or _GROUP_SIZE.fullmatch(word):
            continue
        elif not family:
            if word not in _BRANDS:
                family.append(word)
        elif _VERSION.fullmatch(word) and len(family) == 1 and not _DATE.fullmatch(word):
            family.append(word)
        elif not _DATE.fullmatch(word):
            variants.add(word)
    return Model("".join(family) or base, frozenset(sizes), bits, frozenset(variants))


def is_same(asked: str, offered: str) -> bool:
    """Whether who asks for `asked` gets what he means from `offered`, sizes left open included."""
    if is_exact(asked, offered):
        return True
    want, have = parse(asked), parse(offered)
    variants = have.variants
    if not any(map(_REVISION.fullmatch, want.variants)):
        variants = frozenset(word for word in variants if not _REVISION.fullmatch(word))
    return (
        bool(want.family)
        and want.family == have.family
        and want.variants == variants
        and want.sizes <= have.sizes
        and (want.bits is None or have.bits in (want.bits, None))
    )


def is_exact(asked: str, offered: str) -> bool:
    """The same name, case and Ollama's `:latest` aside."""
    return asked.lower().removesuffix(":latest") == offered.lower().removesuffix(":latest")


def resolve(asked: str, offered: Iterable[str]) -> tuple[str, ...]:
    """The names among `offered` that will do for `asked`, sorted, the exact ones first.

    A name that tells no size means one model all the same: the exact name where somebody has it,
    else the largest of those that fit.
    """
    return _resolved(asked, frozenset(offered))


@lru_cache(maxsize=1024)
def _resolved(asked: str, offered: frozenset[str]) -> tuple[str, ...]:
    names = sorted(offered, key=lambda name: (not is_exact(asked, name), name))
    fitting = [name for name in names if is_same(asked, name)]
    if parse(asked).sizes or not fitting:
        return tuple(fitting)
    if exact := [name for name in fitting if is_exact(asked, name)]:
        return tuple(exact)
    largest = max(map(_weights, fitting))
    return tuple(name for name in fitting if _weights(name) == largest)


def _bits(word: str) -> int | None:
    found = _BITS.match(word)
    if found is None or (found.end() < len(word) and found["q"] is None):
        return None
    return int(found["q"] or found["bit"] or found["n"])


def _weights(name: str) -> float:
    """How many weights, in billions; 0 where the name does not tell."""
    return max((_billions(size) for size in parse(name).sizes), default=0.0)


def _billions(size: str) -> float:
    experts, _, each = size.lstrip("ae").rpartition("x")
    number = float(each[:-1]) * (0.001 if each.endswith("m") else 1.0)
    return number * (float(experts) if experts else 1.0)

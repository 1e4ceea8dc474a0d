"""Makes a tiny llama model with random weights, so that real llama.cpp can be tested offline.

About 4 MB, the same bytes for the same seed. What it says is nonsense in readable words; its
tokenizer (SPM with all bytes), chat template and shapes are those of a real model.
`python -m tests.tiny_gguf OUT [SEED]`
"""

from __future__ import annotations

import sys
from pathlib import Path

import gguf
import numpy as np

CONTEXT_TOKENS = 32768
WIDTH = 128
LAYERS = 4
FEED_FORWARD = 384
HEADS = 4
WORDS = (
    "the a of to and in is it that for on with as at by from this be are was one two red blue "
    "node peer mesh task model code answer question cell fold word light water stone tree river "
    "house road bird cloud night day small large fast slow old new good long high"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}</s>\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def make_tiny_gguf(path: Path, *, seed: int = 7) -> None:
    """Write the model to `path`."""
    tokens, scores, kinds = _vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny-random")
    writer.add_context_length(CONTEXT_TOKENS)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds)
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, values in _tensors(len(tokens), seed):
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _vocabulary() -> tuple[list[str], list[float], list[int]]:
    kinds_of = gguf.TokenType
    entries: list[tuple[str, float, int]] = [
        ("<unk>", 0.0, kinds_of.UNKNOWN),
        ("<s>", 0.0, kinds_of.CONTROL),
        ("</s>", 0.0, kinds_of.CONTROL),
    ]
    entries += [(f"<0x{byte:02X}>", 0.0, kinds_of.BYTE) for byte in range(256)]
    entries += [(chr(code), -20.0, kinds_of.NORMAL) for code in range(0x21, 0x7F)]
    entries += [("\N{LOWER ONE EIGHTH BLOCK}", -20.0, kinds_of.NORMAL)]
    entries += [
        (f"\N{LOWER ONE EIGHTH BLOCK}{word}", -1.0 - number / 100, kinds_of.NORMAL)
        for number, word in enumerate(WORDS.split())
    ]
    tokens, scores, kinds = zip(*entries, strict=True)
    return list(tokens), list(scores), [int(kind) for kind in kinds]


def _tensors(vocabulary: int, seed: int) -> list[tuple[str, np.ndarray]]:
    chance = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        return chance.normal(0.0, 0.05, (rows, columns)).astype(np.float32)

    ones = np.ones(WIDTH, dtype=np.float32)
    tensors = [("token_embd.weight", matrix(vocabulary, WIDTH))]
    for layer in range(LAYERS):
        prefix = f"blk.{layer}"
        tensors += [
            (f"{prefix}.attn_norm.weight", ones),
            (f"{prefix}.attn_q.weight", matrix(WIDTH, WIDTH)),
            (f"{prefix}.attn_k.weight", matrix(WIDTH, WIDTH)),
            (f"{prefix}.attn_v.weight", matrix(WIDTH, WIDTH)),
            (f"{prefix}.attn_output.weight", matrix(WIDTH, WIDTH)),
            (f"{prefix}.ffn_norm.weight", ones),
            (f"{prefix}.ffn_gate.weight", matrix(FEED_FORWARD, WIDTH)),
            (f"{prefix}.ffn_up.weight", matrix(FEED_FORWARD, WIDTH)),
            (f"{prefix}.ffn_down.weight", matrix(WIDTH, FEED_FORWARD)),
        ]
    output = matrix(vocabulary, WIDTH) * 4
    # Bytes and control tokens are never likely, so that answers are words and go on to the limit.
    output[: 3 + 256] *= 0.01
    return [*tensors, ("output_norm.weight", ones), ("output.weight", output)]


if __name__ == "__main__":
    make_tiny_gguf(Path(sys.argv[1]), seed=int(sys.argv[2]) if len(sys.argv) > 2 else 7)

"""Golden frames: the bytes of every kind, as released, in `golden/v<wire version>/`.

`python -m tests.protocol.golden_frames --write-missing` writes what is missing and never touches
what is there. A changed file is an incompatibility; only an unreleased one may be deleted.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Final

from kowalski.protocol.codec import encode
from kowalski.protocol.limits import WIRE_VERSION
from kowalski.protocol.messages.base import Message
from tests.protocol.examples import EXAMPLES

FOLDER: Final = Path(__file__).parent / "golden" / f"v{WIRE_VERSION}"


def path_of(kind: str, folder: Path = FOLDER) -> Path:
    return folder / f"{kind.replace('/', '.')}.hex"


def read(kind: str, folder: Path = FOLDER) -> bytes:
    return bytes.fromhex(path_of(kind, folder).read_text(encoding="ascii"))


def write_missing(examples: dict[str, Message], folder: Path = FOLDER) -> list[Path]:
    """The files written; those that exist are left as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, example in examples.items():
        path = path_of(kind, folder)
        if not path.exists():
            lines = "\n".join(textwrap.wrap(encode(example).hex(), 80))
            path.write_text(f"{lines}\n", encoding="ascii")
            written.append(path)
    return written


def main(arguments: list[str]) -> int:
    if arguments != ["--write-missing"]:
        sys.stderr.write("usage: python -m tests.protocol.golden_frames --write-missing\n")
        return 2
    for path in write_missing(EXAMPLES):
        sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A node whose disk becomes full, and has room again: `python -m tests.integration.full_disk DIR`.

A program of its own, for a mount namespace of its own: DIR becomes a small file system that nobody
else sees. Prints one JSON object: how each command ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from tests.integration.cluster import Cluster, Ended

DISK = "24m"
CONTEXT_BYTES = 400_000
CELL = b"```python\nprint(len(context))\n```"


def main(disk: Path) -> dict[str, Ended]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "none", str(disk)]
    subprocess.run(mount, check=True)
    context = disk.parent / "context.txt"
    context.write_bytes(b"0123456789abcde\n" * (CONTEXT_BYTES // 16))
    cluster = Cluster(disk)
    filler = disk / "filler"
    told: dict[str, Ended] = {}

    def submit(name: str, *more: str) -> Ended:
        asked = ("submit", "--mode", "blocks", "--task-id", name, *more, "-")
        return cluster.cli(node, *asked, stdin=CELL)

    try:
        node = cluster.start("node", "--no-mdns")
        node.wait_until_up()
        told["before"] = submit("before")
        with filler.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(1 << 16)):
                    pass
            except OSError:
                pass
        told["full"] = submit("full", "--context", str(context))
        told["run"] = cluster.cli(node, "run", "--language", "python", "--code", "print(6 * 7)")
        told["tasks"] = cluster.cli(node, "tasks", "--json")
        filler.unlink()
        told["after"] = submit("full", "--context", str(context))
        told["left"] = cluster.cli(node, "tasks", "--json")
    finally:
        cluster.stop()
    return told


if __name__ == "__main__":
    ended = main(Path(sys.argv[1]))
    sys.stdout.write(json.dumps({name: asdict(one) for name, one in ended.items()}))

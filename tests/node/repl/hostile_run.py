"""Runs every hostile cell in one tier and says what was not contained: `python -m ... TIER`.

A program of its own, so that it can be run as another user. Prints one JSON object.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import psutil
import trio

from kowalski.node.repl.detection import detect_sandbox, tiers
from kowalski.node.repl.kernel_session import KernelSession
from kowalski.node.repl.limits import CellLimits, Limits, SessionLimits
from kowalski.node.repl.sandbox import Sandbox
from kowalski.node.repl.seam import CellOutcome, SubCall, SubCallResult
from kowalski.node.repl.sessions import KernelHost, open_sessions_host
from tests.node.repl.hostile_cells import HOSTILE_CELLS, PRELUDE, Hostile

MIB = 1024 * 1024
LIMITS = Limits(
    cell=CellLimits(output_bytes_kept=MIB // 16, output_bytes_max=MIB // 4, interrupt_grace_s=0.25),
    session=SessionLimits(
        memory_bytes=256 * MIB,
        process_memory_bytes=128 * MIB,
        processes=40,
        file_bytes=8 * MIB,
        folder_bytes=16 * MIB,
        open_files=64,
        inodes=2000,
    ),
    by_language={"js": SessionLimits(memory_bytes=384 * MIB, folder_bytes=16 * MIB, processes=40)},
)
LANGUAGES = ("python", "bash", "js")
AT_ONCE = 10
SECRET = "nothing of value"
BEAT_S = 0.02
PATIENCE_S = 60.0
"""For what takes no time at all on a machine that has nothing else to do."""


@dataclass(slots=True)
class Report:
    complaints: list[str] = field(default_factory=list)
    cells: int = 0
    lag_s: float = 0.0
    """The longest that the node's event loop did not answer although it had a processor."""
    neighbour_s: float = 0.0
    """The longest that a harmless cell of somebody else took."""


@contextmanager
def bait() -> Iterator[dict[str, object]]:
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="kowalski-hostile-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.chmod(0o755)
        (folder / "secret").write_text(SECRET)
        (folder / "secret").chmod(0o644)
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        for name, kind, address in (
            ("socket", socket.SOCK_STREAM, str(folder / "socket")),
            ("datagrams", socket.SOCK_DGRAM, str(folder / "datagrams")),
            ("abstract", socket.SOCK_STREAM, f"\0kowalski-{secrets.token_hex(8)}"),
        ):
            listening = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            listening.bind(address)
            if kind == socket.SOCK_STREAM:
                listening.listen()
            if name != "abstract":
                (folder / name).chmod(0o777)
            else:
                abstract = address[1:]
        yield {
            "secret": folder / "secret",
            "folder": folder,
            "socket": folder / "socket",
            "datagrams": folder / "datagrams",
            "abstract": abstract,
            "port": server.getsockname()[1],
            "pid": os.getpid(),
        }


async def run_one(
    host: KernelHost, hostile: Hostile, places: dict[str, object], report: Report
) -> None:
    session = await host.open(hostile.language, {}, 0)
    try:
        if hostile.language == "python":
            await run_cell(session, PRELUDE, PATIENCE_S)
        code = hostile.code
        for name, place in places.items():
            code = code.replace(f"{{{name}}}", str(place))
        began = trio.current_time()
        outcome = await run_cell(session, code, hostile.timeout_s)
        took = trio.current_time() - began
        report.cells += 1
        if outcome.status not in hostile.ends:
            report.complaints.append(f"{hostile.name}: ends with {outcome.status}: {told(outcome)}")
        elif hostile.must_say and outcome.value != "'contained'":
            report.complaints.append(f"{hostile.name}: {told(outcome)}")
        elif outcome.status == "ok" and outcome.value == "False":
            report.complaints.append(f"{hostile.name}: too much")
        elif took > hostile.timeout_s + PATIENCE_S:
            report.complaints.append(f"{hostile.name}: took {took:.1f} s")
        for artefact in (await session.collect(files_max=3000, bytes_max=64 * MIB)).files:
            if SECRET.encode() in artefact.data:
                report.complaints.append(f"{hostile.name}: collected as {artefact.name}")
    finally:
        await session.close()


async def run_cell(session: KernelSession, code: str, timeout_s: float) -> CellOutcome:
    async def refuse(calls: tuple[SubCall, ...]) -> tuple[SubCallResult, ...]:
        await trio.lowlevel.checkpoint()
        return tuple(SubCallResult(error="nobody answers") for _ in calls)

    return await session.run_cell(
        code, timeout_s=timeout_s, on_output=lambda _stream, _data: None, on_sub_calls=refuse
    )


def told(outcome: CellOutcome) -> str:
    said = outcome.stderr.decode(errors="replace")
    return " | ".join(filter(None, (outcome.value or outcome.error, said[-1000:])))


async def beat(report: Report) -> None:
    while True:
        began, waited_s = trio.current_time(), queued_s()
        await trio.sleep(BEAT_S)
        took_s = trio.current_time() - began - (queued_s() - waited_s)
        report.lag_s = max(report.lag_s, took_s - BEAT_S)


def queued_s() -> float:
    """How long this thread has waited for a processor so far, which is the machine's business."""
    return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9


async def live_next_door(host: KernelHost, report: Report) -> None:
    session = await host.open("python", {}, 0)
    while True:
        began = trio.current_time()
        outcome = await run_cell(session, "6 * 7", PATIENCE_S)
        report.neighbour_s = max(report.neighbour_s, trio.current_time() - began)
        if outcome.value != "42":
            report.complaints.append(f"the neighbour is harmed: {outcome}")
            return
        await trio.sleep(0.1)


async def run_all(
    sandbox: Sandbox, languages: Sequence[str], hostiles: Sequence[Hostile] = HOSTILE_CELLS
) -> Report:
    report = Report()
    scratch = Path(tempfile.mkdtemp(prefix="kowalski-hostile-scratch-"))
    with bait() as places:
        secret = places["secret"]
        assert isinstance(secret, Path)
        before = (secret.read_text(), secret.stat())
        versions = dict.fromkeys(languages, "")
        async with (
            open_sessions_host(
                sandbox,
                versions,
                slots=AT_ONCE + 1,
                limits=LIMITS,
                warm={},
                scratch_path=scratch,
                start_timeout_s=PATIENCE_S,
            ) as host,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(beat, report)
            nursery.start_soon(live_next_door, host, report)
            at_once = trio.CapacityLimiter(AT_ONCE)

            async def one(hostile: Hostile) -> None:
                async with at_once:
                    await run_one(host, hostile, places, report)

            async with trio.open_nursery() as inner:
                for hostile in hostiles:
                    if hostile.language in languages and not hostile.crowds:
                        inner.start_soon(one, hostile)
            for hostile in hostiles:
                if hostile.language in languages and hostile.crowds:
                    await one(hostile)
            nursery.cancel_scope.cancel()
        after = (secret.read_text(), secret.stat())
        if before[0] != after[0] or before[1][:9] != after[1][:9]:
            report.complaints.append(f"the secret was touched: {before} {after}")
    left = [path.name for path in scratch.iterdir()]
    if left:
        report.complaints.append(f"files are left: {left}")
    shutil.rmtree(scratch, ignore_errors=True)
    return report


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def run_tier(name: str) -> Report | str:
    """The report, or why the tier is not to be had here."""
    found = next((tier, find) for tier, find in tiers() if tier == name)
    verdict = trio.run(partial(detect_sandbox, candidates=[found], languages=LANGUAGES))
    if verdict.sandbox is None:
        return verdict.reason
    before = descriptors()
    report = trio.run(run_all, verdict.sandbox, tuple(verdict.languages))
    if left := psutil.Process().children(recursive=True):
        report.complaints.append(f"processes are left: {left}")
    if descriptors() > before:
        report.complaints.append(f"{descriptors() - before} descriptors are left")
    return report


def main() -> None:
    found = run_tier(sys.argv[1])
    json.dump({"missing": found} if isinstance(found, str) else asdict(found), sys.stdout)


if __name__ == "__main__":
    main()

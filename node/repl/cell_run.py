"""One cell on one kernel: output as it comes, sub-calls while the clock stands, limits, the end.

A cell that must stop is asked first (SIGINT inside, which keeps the state) and killed with its
session when it does not; one that broke a limit of the machine is killed at once.
"""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import trio

from kowalski.mesh.plain_nursery import open_plain_nursery
from kowalski.node.repl.kernel import Kernel
from kowalski.node.repl.kernel_frames import Built, Calls, Done
from kowalski.node.repl.limits import CellLimits, SessionLimits
from kowalski.node.repl.output import KeptOutput
from kowalski.node.repl.seam import (
    Answer,
    CellOutcome,
    CellStatus,
    OnOutput,
    OnSubCalls,
    StreamName,
    SubCall,
    SubCallResult,
)
from kowalski.protocol.errors import PeerUnreachableError, RemoteProtocolError

_READ_BYTES = 64 * 1024
# What a full pipe can hold, with room: all that was written before the kernel said `done`.
_DRAIN_READS_MAX = 64
_DEATH_S_MAX = 1.0
# Beyond this many times the batches that may wait, it is no mistake any more.
_FLOOD = 4

StopReason = Literal["timeout", "cancelled", "died", "memory", "inodes", "output_flood"]
_WORDS: dict[StopReason, str] = {
    "timeout": "the cell was stopped after {timeout_s:g} s",
    "cancelled": "the cell was cancelled",
    "died": "the session's process ended ({code})",
    "memory": "the session was killed above {memory} MiB of memory",
    "inodes": "the session was killed above {inodes} files, or {stored} MiB in them",
    "output_flood": "the session was killed above {output} bytes of output",
}


@dataclass(frozen=True, slots=True)
class CellOrder:
    """What the kernel is told besides the cell's number.

    `on_built` looks at what a compiler has made, by its path inside, before it runs.
    """

    code: str
    further: Mapping[str, object] = field(default_factory=dict[str, object])
    on_built: Callable[[str], Awaitable[None]] | None = None


class CellRun:
    """Runs once. `stop` may be called from outside while it does."""

    def __init__(
        self,
        kernel: Kernel,
        number: int,
        cell: CellOrder,
        *,
        limits: CellLimits,
        session_limits: SessionLimits,
        timeout_s: float,
        on_output: OnOutput,
        on_sub_calls: OnSubCalls,
    ) -> None:
        self._kernel = kernel
        self._number = number
        self._cell = cell
        self._limits = limits
        self._session_limits = session_limits
        self._timeout_s = min(timeout_s, limits.wall_s)
        self._is_owners_word = limits.wall_s < timeout_s
        self._on_output: OnOutput | None = on_output
        self._on_sub_calls = on_sub_calls
        self._kept: dict[StreamName, KeptOutput] = {
            "stdout": KeptOutput(limits.output_bytes_kept),
            "stderr": KeptOutput(limits.output_bytes_kept),
        }
        self._clock = trio.CancelScope()
        self._remaining_s = self._timeout_s
        self._batches = 0
        self._unanswered = 0
        self._is_built = False
        self._done: Done | None = None
        self._reason: StopReason | None = None
        self._fault = ""

    @property
    def is_waiting(self) -> bool:
        """Whether the cell waits for sub-calls; its clock stands still."""
        return self._batches > 0

    def stop(self, reason: StopReason) -> None:
        """The first reason counts."""
        if self._reason is None and self._done is None:
            self._reason = reason
            self._clock.cancel()

    async def run(self) -> CellOutcome:
        started = trio.current_time()
        try:
            async with open_plain_nursery() as nursery:
                for stream in self._kept:
                    nursery.start_soon(self._pump, stream)
                nursery.start_soon(self._watch)
                nursery.start_soon(self._notice_death)
                self._clock.deadline = trio.current_time() + self._timeout_s
                with self._clock:
                    await self._converse(nursery)
                nursery.cancel_scope.cancel()
            if self._done is None:
                self._reason = self._reason or "timeout"
        finally:
            if self._done is None:
                with trio.CancelScope(shield=True):
                    await self._wind_down(self._reason or "cancelled")
        self._drain()
        return self._outcome(trio.current_time() - started)

    async def _converse(self, nursery: trio.Nursery) -> None:
        try:
            told = {"op": "cell", "cell": self._number, "code": self._cell.code}
            await self._kernel.channel.send({**told, **self._cell.further})
            await self._hear(nursery)
        except PeerUnreachableError:
            self.stop("died")
        except RemoteProtocolError as error:
            self._fault = str(error)
            self.stop("died")

    async def _hear(self, nursery: trio.Nursery | None) -> None:
        while True:
            frame = await self._kernel.channel.receive()
            match frame:
                case Done(cell=self._number):
                    self._done = frame
                    return
                case Built(cell=self._number) if not self._is_built:
                    self._is_built = True
                    if self._cell.on_built is not None:
                        await self._cell.on_built(frame.path)
                    await self._kernel.channel.send({"op": "seen"})
                case Calls():
                    # Without a nursery: asked before it heard of the interrupt.
                    if nursery is not None:
                        self._begin_to_serve(frame, nursery)
                case _:
                    # No kernel of ours says that: a cell speaks in its name.
                    raise RemoteProtocolError(f"an unexpected frame: {frame.op}")

    def _begin_to_serve(self, frame: Calls, nursery: trio.Nursery) -> None:
        if self._unanswered >= _FLOOD * self._limits.sub_call_batches:
            raise RemoteProtocolError("a flood of sub-calls")
        self._unanswered += 1
        nursery.start_soon(self._serve, frame)

    async def _serve(self, frame: Calls) -> None:
        try:
            await self._answer(frame)
        finally:
            self._unanswered -= 1

    async def _answer(self, frame: Calls) -> None:
        calls = tuple(SubCall(call.prompt, call.model, call.kind) for call in frame.calls)
        if self._batches >= self._limits.sub_call_batches:
            results = (SubCallResult(error="too many batches of sub-calls at once"),) * len(calls)
        else:
            self._hold_clock()
            try:
                results = await self._on_sub_calls(calls)
            finally:
                self._release_clock()
        assert len(results) == len(calls), "one result per sub-call"
        answers = [
            {"text": result.text, "error": result.error, "code": result.code} for result in results
        ]
        try:
            await self._kernel.channel.send({"op": "answers", "id": frame.id, "results": answers})
        except PeerUnreachableError:
            self.stop("died")

    def _hold_clock(self) -> None:
        self._batches += 1
        if self._batches == 1:
            self._remaining_s = self._clock.deadline - trio.current_time()
            self._clock.deadline = math.inf

    def _release_clock(self) -> None:
        self._batches -= 1
        if self._batches == 0:
            self._clock.deadline = trio.current_time() + self._remaining_s

    async def _pump(self, stream: StreamName) -> None:
        fd = self._fd(stream)
        while True:
            await trio.lowlevel.wait_readable(fd)
            if not self._read(stream):
                return

    def _fd(self, stream: StreamName) -> int:
        return self._kernel.stdout if stream == "stdout" else self._kernel.stderr

    def _read(self, stream: StreamName) -> bool:
        """Take what is there; False when nothing is, or nothing more will come."""
        try:
            data = os.read(self._fd(stream), _READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        kept = self._kept[stream]
        kept.add(data)
        if kept.total_bytes > self._limits.output_bytes_max:
            self.stop("output_flood")
        elif self._on_output is not None:
            self._on_output(stream, data)
        return True

    async def _watch(self) -> None:
        # The first look is not at once: most cells are over by then.
        while True:
            await trio.sleep(self._limits.watch_interval_s)
            reason = over_limit(self._kernel, self._session_limits)
            if reason is not None:
                self.stop(reason)
                return

    async def _notice_death(self) -> None:
        await self._kernel.tree.wait_dead()
        self.stop("died")

    async def _wind_down(self, reason: StopReason) -> None:
        """Ask a cell to end, where that may help; kill where it does not."""
        self._reason = reason
        self._on_output = self._on_output if reason == "timeout" else None
        if reason in ("timeout", "cancelled") and self._kernel.is_alive:
            with trio.move_on_after(self._limits.interrupt_grace_s):
                await self._interrupt()
        if reason == "died" and not self._fault:
            # Already dying: its own exit code says more than ours.
            with trio.move_on_after(self._limits.interrupt_grace_s):
                await self._kernel.tree.wait_dead()
        if self._done is None:
            self._kernel.tree.kill()
            with trio.move_on_after(_DEATH_S_MAX):
                await self._kernel.tree.wait_dead()

    async def _interrupt(self) -> None:
        async with trio.open_nursery() as nursery:
            for stream in self._kept:
                nursery.start_soon(self._pump, stream)
            try:
                await self._kernel.channel.send({"op": "interrupt"})
                await self._hear(None)
            except (PeerUnreachableError, RemoteProtocolError) as error:
                self._fault = str(error)
            nursery.cancel_scope.cancel()

    def _drain(self) -> None:
        """What was written before the end is in the pipes already: nothing to wait for."""
        for stream in self._kept:
            fd = self._fd(stream)
            for _ in range(_DRAIN_READS_MAX):
                try:
                    data = os.read(fd, _READ_BYTES)
                except BlockingIOError:
                    break
                if not data:
                    break
                self._kept[stream].add(data)
                if self._on_output is not None and self._reason != "output_flood":
                    self._on_output(stream, data)

    def _outcome(self, duration_s: float) -> CellOutcome:
        done = self._done
        stdout, stderr = self._kept["stdout"], self._kept["stderr"]
        answer = None
        if done is not None and done.answer_content is not None:
            answer = Answer(done.answer_content, done.answer_is_ready)
        return CellOutcome(
            status=self._status(),
            stdout=stdout.kept(),
            stderr=stderr.kept(),
            stdout_bytes=stdout.total_bytes,
            stderr_bytes=stderr.total_bytes,
            value=done.value if done is not None else None,
            error=self._error(),
            answer=answer,
            variables_digest=done.digest if done is not None else "",
            variables=done.variables if done is not None else {},
            clock=done.clock if done is not None else (),
            exit_code=self._exit_code(),
            duration_s=duration_s,
            session_alive=done is not None and self._kernel.is_alive,
        )

    def _status(self) -> CellStatus:
        if self._reason is not None:
            return self._reason
        assert self._done is not None, "a cell ends with a word or a reason"
        # Interrupted without our asking: the cell raised KeyboardInterrupt itself.
        return "error" if self._done.status == "interrupted" else self._done.status

    def _exit_code(self) -> int | None:
        if self._reason == "died":
            return self._kernel.tree.exit_code
        return self._done.exit_code if self._done is not None and self._reason is None else None

    def _error(self) -> str | None:
        told = self._done.error if self._done is not None else None
        if self._reason is None:
            return told
        words = _WORDS[self._reason].format(
            timeout_s=self._timeout_s,
            code=self._fault or f"exit code {self._kernel.tree.exit_code}",
            memory=self._session_limits.memory_bytes // (1024 * 1024),
            inodes=self._session_limits.inodes,
            stored=stored_bytes_max(self._session_limits) // (1024 * 1024),
            output=self._limits.output_bytes_max,
        )
        if self._reason == "timeout" and self._is_owners_word:
            words += ", the most that the owner of its device allows"
        if self._done is None and self._reason in ("timeout", "cancelled"):
            words += "; it did not heed the interrupt, so its session is lost"
        return words if told is None else f"{words}\n{told}"


def over_limit(kernel: Kernel, limits: SessionLimits) -> Literal["memory", "inodes"] | None:
    """The watchdog's look at what no rlimit bounds."""
    weight = kernel.tree.weight(limits)
    if weight.resident_bytes > limits.memory_bytes:
        return "memory"
    if weight.inodes > limits.inodes or weight.stored_bytes > stored_bytes_max(limits):
        return "inodes"
    return None


def stored_bytes_max(limits: SessionLimits) -> int:
    """In the working and the temporary folder together."""
    return 2 * limits.folder_bytes

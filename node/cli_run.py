"""The command that runs one program on the best peer."""

from __future__ import annotations

import base64
import binascii
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from kowalski.node import cli_files
from kowalski.node import cli_render as render
from kowalski.node.cli_session import (
    Session,
    duration_option,
    given,
    read_bytes,
    text_of,
    with_session,
)
from kowalski.node.cli_tasks import ANSWER_GRACE_S
from kowalski.node.control_line import ExitCode

STDIN_BYTES_MAX = 256 * 1024 * 1024

_LANGUAGES = {
    ".py": "python", ".sh": "bash", ".bash": "bash", ".js": "js", ".mjs": "js", ".cjs": "js",
    ".ts": "typescript", ".rb": "ruby", ".pl": "perl", ".rs": "rust", ".go": "go",
    ".java": "java",
}  # fmt: skip

_path = click.Path(path_type=Path, dir_okay=False)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("file", required=False)
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@click.option("--language", "-l", help="Known from the ending of FILE otherwise.")
@click.option("--code", "-c", help="The program itself; FILE is its first argument then.")
@click.option(
    "--stdin", "-i", type=click.Path(allow_dash=True), help="What it reads: a file, or - for stdin."
)
@click.option(
    "--file", "-f", "files", multiple=True, type=_path, help="A file to work on; repeatable."
)
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path, file_okay=False),
    help="A folder for the files that it leaves.",
)
@duration_option("--timeout", "10m", "How long you will wait.")
@with_session
def run(
    session: Session,
    *,
    file: str | None,
    args: tuple[str, ...],
    language: str | None,
    code: str | None,
    stdin: str | None,
    files: tuple[Path, ...],
    out: Path | None,
    timeout: float,
) -> None:
    """Run one program on the best peer, its output here.

    Ends with the exit code of the program. Options stand before FILE, and what stands behind
    it is for the program. FILE - is the program on stdin. Ctrl-C ends it where it runs.
    """
    if code is not None and file is not None:
        args, file = (file, *args), None
    source = _program(file, code)
    language = language or _LANGUAGES.get(Path(file or "").suffix)
    if language is None:
        raise click.UsageError("say which --language it is")
    if file == "-" and stdin == "-":
        raise click.UsageError("the program and what it reads cannot both come from stdin")
    for path in files:
        read_bytes(path, bytes_max=1)  # a file that cannot be read is told here, not by a peer
    shown = _Shown(session)
    with _readable(stdin) as stdin_path:
        request = given(
            language=language,
            code=source,
            name=None if file is None or file == "-" else Path(file).name,
            args=list(args) or None,
            stdin=stdin_path,
            files=[{"name": path.name, "path": str(path.resolve())} for path in files] or None,
            wants_files=True if out is not None else None,
            timeout_s=timeout,
        )
        silence_s = timeout + ANSWER_GRACE_S
        done = session.ask_node("run", request, on_event=shown.event, silence_s=silence_s)
    if session.as_json:
        session.print_json(done)
    else:
        if done.get("error"):
            session.say(str(done["error"]).rstrip("\n"))
        session.say(_how_it_ran(done))
    if out is not None:
        cli_files.save(session, done, out)
    exit_code = done.get("exit_code")
    if exit_code != 0:
        # Its own, as a shell would give it; a shell has eight bits for it.
        raise click.exceptions.Exit(
            exit_code & 0xFF if isinstance(exit_code, int) else ExitCode.FAILED
        )


class _Shown:
    """Output of the program, to where its own would go."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def event(self, event: dict[str, object]) -> None:
        is_error = event.get("stream") == "stderr"
        if event.get("kind") != "output":
            if event.get("text"):
                self._session.say(render.field(event, "text"))
        elif not self._write_bytes(event, is_error=is_error):
            tell = self._session.say if is_error else self._session.result
            tell(str(event.get("text") or ""), newline=False)

    def _write_bytes(self, event: dict[str, object], *, is_error: bool) -> bool:
        """What is no text goes out as it came, unless a terminal would obey it."""
        stream, encoded = sys.stderr if is_error else sys.stdout, event.get("base64")
        if not isinstance(encoded, str) or stream.isatty():
            return False
        try:
            data = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            return False
        stream.flush()
        stream.buffer.write(data)
        stream.buffer.flush()
        return True


def _program(file: str | None, code: str | None) -> str:
    if code is None:
        if file is None:
            raise click.UsageError("give the program as FILE, as - for stdin, or with -c")
        named = None if file == "-" else Path(file)
        return text_of("-" if named is None else None, named, what="program")
    if not code.strip():
        raise click.UsageError("the program is empty")
    return code


@contextmanager
def _readable(stdin: str | None) -> Iterator[str | None]:
    """A path that the node can read what the program is to read from."""
    if stdin is None:
        yield None
        return
    if stdin != "-":
        read_bytes(Path(stdin), bytes_max=1)
        yield str(Path(stdin).resolve())
        return
    # Made for the node alone; it may be longer than a line of the control socket.
    with tempfile.NamedTemporaryFile(prefix="kowalski-stdin-") as spooled:
        while piece := sys.stdin.buffer.read(1 << 20):
            spooled.write(piece)
            if spooled.tell() > STDIN_BYTES_MAX:
                raise click.UsageError(f"more than {STDIN_BYTES_MAX} bytes on stdin")
        spooled.flush()
        yield spooled.name


def _how_it_ran(done: dict[str, object]) -> str:
    exit_code = done.get("exit_code")
    status = render.field(done, "status")
    end = f"exit code {exit_code}" if status in {"ok", "error", ""} else status
    parts = [f"{end} on {render.who(done)} after {render.duration(done.get('duration_s'))}"]
    if (render.number(done.get("attempts")) or 1) > 1:
        parts.append(f"{render.field(done, 'attempts')} attempts")
    if done.get("why"):
        parts.append(render.field(done, "why"))
    return "; ".join(parts)

"""Files that programs left, put where their owner wants them: what `--out` and `--files` do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kowalski.node import cli_render as render

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kowalski.node.cli_session import Session

FETCH_S = 600.0
_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def save_task_files(session: Session, task: str, folder: Path) -> None:
    """Fetch what the cells of a task left, and put it into `folder`.

    Raises:
        click.UsageError: the folder cannot be made.
    """
    done = session.ask_node("files", {"task": task}, silence_s=FETCH_S)
    save(session, done, folder)


def save(session: Session, done: Mapping[str, object], folder: Path) -> None:
    """Put the `files` of a reply into `folder`, and tell of each.

    Programs of others chose the names: a link on the way, or a name that leads out of `folder`, is
    refused. What is there already is written over.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.UsageError(f"{folder}: {(error.strerror or str(error)).lower()}") from error
    rows = render.rows_of(done.get("files"))
    for row in rows:
        name, source = str(row.get("name") or ""), row.get("path")
        problem = render.text(row.get("error")) if row.get("error") else None
        if problem is None:
            try:
                place(Path(str(source)), folder, name)
            except (OSError, ValueError) as error:
                problem = str(error)
        size = f"{row.get('bytes')} bytes" if problem is None else f"not saved: {problem}"
        session.say(f"{folder / name}: {size}")
    if not rows:
        session.say("it left no files")
    if omitted := render.number(done.get("files_omitted")):
        why = "too many, too large, or have names that are no plain text"
        session.say(f"{int(omitted)} more were {why}")


def place(source: Path, folder: Path, name: str) -> None:
    """Copy `source` to `name` below `folder`, through no link.

    Raises:
        ValueError: the name leads elsewhere.
        OSError: a link is in the way, or the disk refuses.
    """
    *parents, last = name.split("/")
    if any(part in {"", ".", ".."} for part in (*parents, last)):
        raise ValueError("its name leads elsewhere")
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parents:
            try:
                below = os.open(part, _FOLDER, dir_fd=at)
            except FileNotFoundError:
                os.mkdir(part, dir_fd=at)
                below = os.open(part, _FOLDER, dir_fd=at)
            os.close(at)
            at = below
        fd = os.open(last, _FLAGS, 0o644, dir_fd=at)
    finally:
        os.close(at)
    with source.open("rb") as reading, os.fdopen(fd, "wb") as writing:
        shutil.copyfileobj(reading, writing, 1 << 20)

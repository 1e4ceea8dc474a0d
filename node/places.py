"""Where a node keeps what it keeps, told alike to the node and to the command line.

Standard library and platformdirs only, so that a command that merely asks the running node starts
fast. What the values mean and whether they are valid is `kowalski.node.config`'s.
"""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from kowalski.protocol.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

APP = "kowalski"

# `sockaddr_un.sun_path` holds 104 bytes on macOS and 108 on Linux, with the closing zero.
SOCKET_PATH_BYTES_MAX = 100

CONFIG_FILE_BYTES_MAX = 1 << 20


def absolute(path: str | Path) -> Path:
    """`path` with `~` expanded and links resolved, whether or not anything is there."""
    try:
        return Path(path).expanduser().resolve()
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"path {str(path)!r}: {error}") from error


def default_config_file(environ: Mapping[str, str]) -> Path:
    home = environ.get("XDG_CONFIG_HOME")
    directory = Path(home) / APP if home else platformdirs.user_config_path(APP, appauthor=False)
    return directory / "config.toml"


def default_data_dir(environ: Mapping[str, str]) -> Path:
    home = environ.get("XDG_DATA_HOME")
    return absolute(Path(home) / APP if home else platformdirs.user_data_path(APP, appauthor=False))


def config_file(named: Path | None, environ: Mapping[str, str]) -> Path | None:
    """The file to read: the named one, `KOWALSKI_CONFIG`, or the usual place if one is there."""
    if named is not None:
        return absolute(named)
    if environ.get("KOWALSKI_CONFIG"):
        return absolute(environ["KOWALSKI_CONFIG"])
    usual = default_config_file(environ)
    return usual if usual.exists() else None


def read_config_file(path: Path) -> dict[str, object]:
    """The tables of a TOML file, unchecked.

    Raises:
        ConfigError: the file cannot be read, is larger than 1 MiB, or is not TOML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(CONFIG_FILE_BYTES_MAX + 1)
        if len(content) > CONFIG_FILE_BYTES_MAX:
            raise ConfigError(f"{path}: larger than {CONFIG_FILE_BYTES_MAX} bytes")
        return tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def data_dir(flag: Path | None, environ: Mapping[str, str], file: Path | None) -> Path:
    """The data directory by the usual precedence, without looking at any other setting.

    Raises:
        ConfigError: a file is named or found, and unreadable, or its `data_dir` is not a string.
    """
    if flag is not None:
        return absolute(flag)
    if environ.get("KOWALSKI_DATA_DIR"):
        return absolute(environ["KOWALSKI_DATA_DIR"])
    path = config_file(file, environ)
    if path is not None:
        value = read_config_file(path).get("data_dir")
        if isinstance(value, str):
            return absolute(value)
        if value is not None:
            raise ConfigError(f"{path}: data_dir: expected a string")
    return default_data_dir(environ)


def control_path(directory: Path) -> Path:
    """The control socket of the node that keeps its state in `directory`.

    Too long for a socket address, it moves to a short path derived from `directory` alone. That is
    below /tmp and not in the runtime directory of the user, which a service and a login shell of
    the same user may not agree on.
    """
    path = directory / "run" / "control.sock"
    if len(bytes(path)) <= SOCKET_PATH_BYTES_MAX:
        return path
    digest = hashlib.sha256(bytes(directory)).hexdigest()[:20]
    return Path("/tmp") / f"{APP}-{digest}" / "control.sock"  # noqa: S108 - checked for its owner


def lock_path(directory: Path) -> Path:
    """Held locked by the node that lives in `directory`; its text is that node's process id."""
    return directory / "node.lock"

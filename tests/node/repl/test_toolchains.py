from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.node.repl.toolchains import Toolchain, find_toolchains


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_what_lies_under_usr_needs_nothing_shown() -> None:
    toolchains = find_toolchains({"bash": ("bash",), "python": ()}, path="/usr/bin:/bin")
    assert toolchains.missing == {}
    assert (toolchains.shown, toolchains.path) == ((), ())


def test_what_is_missing_is_named() -> None:
    toolchains = find_toolchains({"x": ("sh", "no-such-1", "no-such-2")}, path="/usr/bin:/bin")
    assert toolchains.missing == {"x": "no-such-1 and no-such-2 not installed"}
    assert toolchains.found == {}


def test_a_program_elsewhere_is_shown_with_the_folder_it_was_installed_into(
    tmp_path: Path,
) -> None:
    node = program(tmp_path / "home" / ".nvm" / "versions" / "v20" / "bin" / "node")
    link = tmp_path / "links" / "node"
    link.parent.mkdir()
    link.symlink_to(node)
    toolchains = find_toolchains({"js": ("node",)}, path=str(link.parent), home=tmp_path / "home")
    assert toolchains.shown == (node.parent.parent,)
    assert toolchains.path == (node.parent,)


@pytest.mark.parametrize("place", ["bin", ".local/bin", ".cargo/bin", "."])
def test_a_home_is_never_shown_for_the_sake_of_a_program(tmp_path: Path, place: str) -> None:
    home = tmp_path / "home"
    deno = program(home / place / "deno")
    toolchains = find_toolchains({"x": ("deno",)}, path=str(deno.parent), home=home)
    assert toolchains.shown == (deno,)


def test_behind_rustups_switch_is_the_toolchain_it_would_take(tmp_path: Path) -> None:
    sysroot = tmp_path / "toolchains" / "stable"
    program(sysroot / "bin" / "rustc")
    rustup = program(tmp_path / "cargo" / "bin" / "rustup", f"#!/bin/sh\necho {sysroot}\n")
    (rustup.parent / "rustc").symlink_to("rustup")
    toolchains = find_toolchains({"rust": ("rustc",)}, path=str(rustup.parent), home=tmp_path / "h")
    assert toolchains.shown == (sysroot,)
    assert toolchains.path == (sysroot / "bin",)


def test_a_fingerprint_changes_with_the_program(tmp_path: Path) -> None:
    path = program(tmp_path / "bin" / "x")
    toolchain = Toolchain((path,))
    before = toolchain.fingerprint()
    assert toolchain.fingerprint() == before
    path.write_text("another")
    assert toolchain.fingerprint() != before
    path.unlink()
    with pytest.raises(FileNotFoundError):
        toolchain.fingerprint()

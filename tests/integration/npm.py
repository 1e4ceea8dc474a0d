"""Packages of npm that tests use: installed beside their package.json, once."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

NODE_MAJOR_MIN = 20
INSTALL_S = 90


def install(folder: Path) -> str | None:
    """Install what the package.json of `folder` names, if it is not; None, or why it did not work.

    Again when the package.json is newer than what was installed.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        return "needs node 20 or newer, and npm"
    asked = ["node", "-p", "process.versions.node"]
    version = subprocess.run(asked, capture_output=True, text=True, check=False)
    if int(version.stdout.partition(".")[0] or 0) < NODE_MAJOR_MIN:
        return "needs node 20 or newer, and npm"
    installed = folder / "node_modules/.package-lock.json"
    manifest = folder / "package.json"
    if installed.exists() and installed.stat().st_mtime >= manifest.stat().st_mtime:
        return None
    argv = ["npm", "install", "--no-progress", "--loglevel=error", "--no-audit", "--no-fund"]
    argv.append("--no-package-lock")
    try:
        subprocess.run(
            argv, cwd=folder, check=True, capture_output=True, text=True, timeout=INSTALL_S
        )
    except subprocess.CalledProcessError as error:
        return f"npm install failed: {error.stderr[-300:]}"
    except subprocess.TimeoutExpired:
        return f"npm install took more than {INSTALL_S} s"
    return None

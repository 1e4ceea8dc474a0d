"""Print the overrides of `[tool.uv]`, which `uv tool install` does not read by itself."""

import tomllib
from pathlib import Path

settings = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
print(*settings["tool"]["uv"]["override-dependencies"], sep="\n")

#!/bin/sh
# Writes constraints.txt: names and versions of what .venv holds, and nothing that tells where from.
# To move to newer versions: scripts/pin.sh --upgrade, then make test, then commit constraints.txt.
set -eu

cd "$(dirname -- "$0")/.."
uv=.venv/bin/uv
[ -x "$uv" ] || { echo "pin: no .venv yet: make setup" >&2; exit 1; }

if [ "${1:-}" = --upgrade ]; then
    UV_PYTHON_DOWNLOADS=never "$uv" pip install -q --python .venv/bin/python --upgrade \
        --editable '.[gpu,llama,otel,tokens]' --group dev uv
fi

new=$(mktemp)
trap 'rm -f "$new"' EXIT
{
    echo "# Written by scripts/pin.sh from a working .venv: do not edit by hand."
    echo "# fastecdsa overrides libp2p's own pin: docs/decisions/0003-dependencies.md."
    "$uv" pip freeze --python .venv/bin/python --exclude-editable | grep -E '^[A-Za-z0-9._-]+==' |
        grep -v '^pip==' | LC_ALL=C sort -f
} >"$new"
cat "$new" >constraints.txt
echo "pin: $(grep -c == constraints.txt) packages in constraints.txt" >&2

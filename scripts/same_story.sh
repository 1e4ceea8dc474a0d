#!/bin/sh
# Tells the same seeds by every Python of ours that is on this machine, each in an environment of
# its own below build/same-story with the pinned packages, and compares the traces. Downloads no Python.
set -eu
cd "$(dirname "$0")/.."
uv=.venv/bin/uv
export UV_PYTHON_DOWNLOADS=never

find_python() { # VERSION
    "$uv" python find "$1" 2>/dev/null && return 0
    for found in "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        [ -x "$found" ] && echo "$found" && return 0
    done
    return 1
}

mine=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
set -- "$@" --python .venv/bin/python
for version in 3.11 3.12 3.13; do
    [ "$version" = "$mine" ] && continue
    if ! python=$(find_python "$version"); then
        echo "same-story: there is no Python $version here: it is not compared" >&2
        continue
    fi
    place=build/same-story/$version
    [ -x "$place/bin/python" ] || "$uv" venv -q --python "$python" "$place"
    "$uv" pip install -q --python "$place/bin/python" --constraints constraints.txt --editable .
    set -- "$@" --python "$place/bin/python"
done
exec .venv/bin/python -m simulations same-story "$@"

#!/bin/sh
# Installs the project with plain pip into a clean environment under build/, as a person without uv
# would, and starts the command from outside the tree. Pip knows no overrides: libp2p then brings
# fastecdsa 2.3.2, which has no Linux wheel and is compiled here.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
where=$root/build/pip-install-check
python=$root/.venv/bin/python

missing=
command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
[ -f "$headers/Python.h" ] ||
    missing="$missing python3-dev"
echo '#include <gmp.h>' | cc -E - >/dev/null 2>&1 || missing="$missing libgmp-dev"
if [ -n "$missing" ] && [ "$(uname)" = Linux ]; then
    echo "pip-install-check: plain pip compiles fastecdsa: sudo apt-get install$missing" >&2
    echo "pip-install-check: (with uv there is nothing to compile: make setup)" >&2
    exit 1
fi

rm -rf "$where"
mkdir -p "$where"
"$python" -m venv "$where/venv"
# Our pin of fastecdsa is the override's, which pip would refuse.
grep -v '^fastecdsa==' "$root/constraints.txt" >"$where/constraints.txt"
# A copy: an install from a folder builds inside it.
git -C "$root" archive --prefix=source/ HEAD | tar -x -C "$where"
start=$(date +%s)
"$where/venv/bin/python" -m pip install -qq --disable-pip-version-check --no-cache-dir \
    --constraint "$where/constraints.txt" "$where/source"
taken_s=$(($(date +%s) - start))
echo "pip-install-check: installed in $taken_s s, $(du -sh "$where/venv" | cut -f 1)"
cd /
"$where/venv/bin/kowalski-node" version
"$where/venv/bin/python" -m pip list --format=freeze --disable-pip-version-check |
    grep -E '^(fastecdsa|libp2p)=='

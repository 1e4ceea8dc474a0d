#!/bin/sh
# Makes .venv with everything that tests, demo and checks need, and says what it installs. Needs
# python3 (3.11 to 3.13) and nothing else; safe to run again: an up-to-date .venv takes
# milliseconds. See docs/decisions/0007-constraints-in-place-of-a-lock-file.md.
#
#   PYTHON=/path/to/python3     which interpreter to use
#   SYSTEM_PACKAGES=no          leave the Debian packages alone, even as root
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root"
venv=$root/.venv
stamp=$venv/.bootstrapped

say() { printf 'bootstrap: %s\n' "$*" >&2; }
give_up() { say "$*"; exit 1; }
have() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

# --- what this environment is made from --------------------------------------------------------

fingerprint() {
    echo "$root"
    cat pyproject.toml constraints.txt scripts/bootstrap.sh | cksum
}

is_current() {
    [ -f "$stamp" ] && "$venv/bin/python" -c '' 2>/dev/null &&
        [ "$(cat "$stamp")" = "$(fingerprint)" ]
}

# --- the interpreter ---------------------------------------------------------------------------

wanted='python 3.11, 3.12 or 3.13 is needed'
fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null
}
version_of() { "$1" -c 'import platform; print(platform.python_version())' 2>/dev/null; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        fits "$PYTHON" ||
            give_up "$wanted; PYTHON=$PYTHON is $(version_of "$PYTHON" || echo 'no python')"
        echo "$PYTHON"
        return
    fi
    found=
    for candidate in python3 python3.13 python3.12 python3.11; do
        have "$candidate" || continue
        if fits "$candidate"; then
            echo "$candidate"
            return
        fi
        version=$(version_of "$candidate") && found="$found $candidate ($version)"
    done
    give_up "$wanted; found:${found:- no python3 at all}"
}

# --- packages of the system --------------------------------------------------------------------

# One per line: the program or file that shows it is there, its Debian package, what it is for.
system_packages() {
    cat <<'LIST'
bwrap bubblewrap the sandbox that code cells run in
ruby ruby the tests of sessions in Ruby
/usr/share/perl/*/JSON/PP.pm perl the tests of sessions in Perl
ip iproute2 the tests that put nodes into network namespaces
/usr/lib/*/libgomp.so.1 libgomp1 llama.cpp, of the extra [llama]
avahi-daemon avahi-daemon the test that foreign mDNS programs see a node
avahi-browse avahi-utils the test that foreign mDNS programs see a node
chromium chromium the tests that look at the dashboard
curl curl the test of what curl is answered
LIST
}

is_there() { # PROGRAM or /PATTERN/OF/A/FILE
    # shellcheck disable=SC2086  # the pattern is to be expanded
    case $1 in
    /*) ls $1 >/dev/null 2>&1 ;;
    *) have "$1" ;;
    esac
}

apt_install() { # PACKAGE... : quiet, and no questions
    if [ -z "${apt_is_fresh:-}" ]; then
        apt-get update -qq >/dev/null 2>&1 || say "apt-get update failed; trying all the same"
        apt_is_fresh=yes
    fi
    DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1
}

may_apt() { [ "$(id -u)" = 0 ] && [ "${SYSTEM_PACKAGES:-yes}" != no ]; }

install_system_packages() {
    have apt-get || return 0
    missing=
    while read -r sign package reason; do
        is_there "$sign" && continue
        say "missing: $package, for $reason"
        missing="$missing $package"
    done <<LIST
$(system_packages)
LIST
    [ -n "$missing" ] || return 0
    if ! may_apt; then
        say "going on without; to have them: sudo apt-get install$missing"
        return 0
    fi
    say "installing the Debian packages:$missing"
    # shellcheck disable=SC2086  # one word per package
    apt_install $missing || say "apt-get could not install:$missing; going on without"
}

# --- the environment ---------------------------------------------------------------------------

make_venv() { # PYTHON
    if [ -x "$venv/bin/python" ] && fits "$venv/bin/python" && [ -f "$stamp" ] &&
        [ "$(head -n 1 "$stamp")" = "$root" ]; then
        return 0 # same place, older list of packages: uv moves it to the new one
    fi
    say "making .venv with $1 ($(version_of "$1"))"
    rm -rf "$venv"
    if ! "$1" -c 'import ensurepip' 2>/dev/null && have apt-get && may_apt; then
        say "installing the Debian package python3-venv, for making .venv"
        apt_install python3-venv || say "apt-get could not install python3-venv"
    fi
    if "$1" -c 'import ensurepip' 2>/dev/null; then
        "$1" -m venv "$venv"
    elif "$1" -m pip --version >/dev/null 2>&1; then
        "$1" -m venv --without-pip "$venv" # pip of the system fills it below
    else
        give_up "$1 has neither venv nor pip; on Debian: sudo apt-get install python3-venv"
    fi
}

install_uv() { # PYTHON
    uv_version=$(sed -n 's/^uv==//p' constraints.txt)
    [ "$("$venv/bin/uv" --version 2>/dev/null | cut -d ' ' -f 2)" = "$uv_version" ] && return 0
    say "installing uv $uv_version into .venv"
    if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        set -- "$venv/bin/python" -m pip
    else
        set -- "$1" -m pip --python "$venv/bin/python"
    fi
    "$@" install -qq --disable-pip-version-check "uv==$uv_version"
}

install_packages() {
    say "installing kowalski-node (editable, with its extras) and its development tools"
    # The override for fastecdsa and the editable mode stand in pyproject.toml, [tool.uv].
    UV_PYTHON_DOWNLOADS=never "$venv/bin/uv" pip install -q --python "$venv/bin/python" \
        --constraints constraints.txt --editable '.[gpu,llama,otel,tokens]' --group dev
    # libp2p pulls trio-typing, whose stubs of 2021 would hide the types that trio brings.
    for stubs in trio-stubs outcome-stubs; do
        rm -rf "$venv"/lib/python3*/site-packages/$stubs
    done
}

# Out of its package, since installing that would start a Prometheus on this machine.
install_promtool() {
    if [ -x "$venv/bin/promtool" ] || have promtool || ! have apt-get || ! have dpkg-deb; then
        return 0
    fi
    say "fetching promtool, for the test of the metrics"
    away=$(mktemp -d)
    (cd "$away" && apt-get download -qq prometheus >/dev/null 2>&1 &&
        dpkg-deb -x prometheus_*.deb . && mv usr/bin/promtool "$venv/bin/") ||
        say "promtool cannot be had; going on without"
    rm -rf "$away"
}

if is_current; then
    exit 0
fi
python=$(find_python)
install_system_packages
make_venv "$python"
install_uv "$python"
install_packages
install_promtool
fingerprint >"$stamp"
say ".venv is ready"

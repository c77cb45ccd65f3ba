#!/usr/bin/env bash
# Set up .venv/ at the top of the checkout: the package (editable), every extra, and what
# the tests, linters and docs need. Run it as often as you like: when nothing has changed
# it returns at once.
#
# PYTHON=/path/to/python3.x chooses the interpreter for a new .venv.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly venv=.venv
readonly stamp=$venv/setup.stamp
readonly log=$venv/setup.log
readonly constraints=tests/constraints.txt

# What Qt and a virtual screen need on Debian.
readonly libraries=(
    xvfb xauth libdbus-1-3 libegl1 libfontconfig1 libglib2.0-0 libxcb-cursor0
    libxcb-icccm4 libxcb-keysyms1 libxcb-shape0 libxkbcommon-x11-0
)

say() { printf 'setup: %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

is_debian() { command -v dpkg-query >/dev/null && command -v apt-get >/dev/null; }

# Debian 13 and Ubuntu 24.04 renamed libglib2.0-0 to libglib2.0-0t64, which provides it.
is_installed() {
    local name
    for name in "$1" "$1t64"; do
        if [[ $(dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null) == installed ]]; then
            return 0
        fi
    done
    return 1
}

missing_packages() {
    local name
    for name in "$@"; do
        is_installed "$name" || echo "$name"
    done
}

# Print the command that gives root's rights ("env" where we have them), or fail.
as_root() {
    if [[ $(id -u) == 0 ]]; then
        echo env
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; then
        echo sudo
    else
        return 1
    fi
}

apt_install() {
    local root apt_log
    root=$(as_root) || return 1
    apt_log=$(mktemp)
    say "apt-get install $*"
    if ! { "$root" apt-get update -q &&
        "$root" DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
            --no-install-recommends "$@"; } </dev/null >"$apt_log" 2>&1; then
        tail -n 15 "$apt_log" >&2
        rm -f "$apt_log"
        return 1
    fi
    rm -f "$apt_log"
}

# Libraries are needed by the window and its tests, not by the command: go on without.
install_libraries() {
    [[ $(uname -s) == Linux ]] || return 0
    if ! is_debian; then
        command -v xvfb-run >/dev/null ||
            say "no xvfb-run here: 'make test' needs it. On Debian the packages are:" \
                "${libraries[*]}; please install what your system calls them."
        return 0
    fi
    local missing
    read -r -d '' -a missing <<<"$(missing_packages "${libraries[@]}")" || true
    [[ ${#missing[@]} == 0 ]] && return 0
    apt_install "${missing[@]}" ||
        say "could not install ${missing[*]}. The napari window and 'make test' need" \
            "them; ask an administrator for:" \
            "apt-get install --no-install-recommends ${missing[*]}"
}

is_new_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

can_make_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

# 3.11 first: it is the version that tests/constraints.txt is for.
find_python() {
    local name
    for name in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
        if command -v "$name" >/dev/null && is_new_enough "$name"; then
            command -v "$name"
            return 0
        fi
    done
    return 1
}

choose_python() {
    local python
    if ! find_python >/dev/null && is_debian && [[ -z ${PYTHON:-} ]]; then
        apt_install python3 python3-venv >&2 || true
    fi
    python=$(find_python) || fail \
        "no Python 3.11 or newer found${PYTHON:+ at PYTHON=$PYTHON}." \
        "Install one (Debian 12 and newer: apt-get install python3 python3-venv)" \
        "or name it: PYTHON=/path/to/python3.11 make setup"
    if ! can_make_venv "$python"; then
        local package
        package=$("$python" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])')
        if is_debian; then apt_install "$package" >&2 || true; fi
        can_make_venv "$python" || fail \
            "$python cannot make virtual environments: its modules venv and ensurepip" \
            "are missing. On Debian: apt-get install $package"
    fi
    echo "$python"
}

make_venv() {
    local python
    if [[ -e $venv ]] && ! is_new_enough "$venv/bin/python"; then
        say "$venv has no working Python 3.11 or newer; making it anew"
    elif [[ -e $venv ]]; then
        return 0
    fi
    python=$(choose_python)
    say "making $venv with $("$python" --version) ($python)"
    "$python" -m venv --clear "$venv"
}

quietly() {
    if ! "$@" </dev/null >>"$log" 2>&1; then
        grep -v '^WARNING: Location' "$log" | tail -n 25 >&2
        fail "this failed: $*" "the whole output is in $log"
    fi
}

install_packages() {
    local pip=("$venv/bin/python" -m pip install --disable-pip-version-check)
    local version
    version=$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if [[ $version == 3.11 ]]; then
        pip+=(--constraint "$constraints")
    else
        say "Python $version: $constraints is for 3.11, so versions are chosen freely"
    fi
    : >"$log"
    say "installing the packages (a few minutes; output in $log)"
    quietly "${pip[@]}" --upgrade 'pip>=25.1'
    quietly "${pip[@]}" --editable '.[all,pyside6]' \
        --group test --group lint --group docs
}

fingerprint() { cat pyproject.toml "$constraints" "$0" | cksum; }

main() {
    local started=$SECONDS
    install_libraries
    if [[ -f $stamp && $(<"$stamp") == "$(fingerprint)" ]] &&
        is_new_enough "$venv/bin/python"; then
        return 0
    fi
    make_venv
    rm -f "$stamp"
    install_packages
    fingerprint >"$stamp"
    say "done in $((SECONDS - started)) s"
}

main

#!/usr/bin/env bash
# Sets up what emclean needs, and nothing that is there already.
#
#   scripts/setup.sh main       the package and its tools, in .venv
#   scripts/setup.sh services   Label Studio's server, in .venv-label-studio
#   scripts/setup.sh browser    Chromium, for the tests that look at pages
#
# A stamp in each environment holds a digest of the files it was made from: when they change, the next call installs again.
# PYTHON names the interpreter (default: python3.11, else a python3 that is new enough).
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/steps.sh

find_python() {
    local candidate
    for candidate in "${PYTHON:-}" python3.11 python3; do
        [ -n "$candidate" ] || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    fail "Python 3.11 or newer is missing." \
        "On Debian 12: apt-get install python3 python3-venv; elsewhere: apt-get install python3.11 python3.11-venv; or set PYTHON=/path/to/python3.11."
}

digest() { cat "$@" | sha256sum | cut -d ' ' -f 1; }

fresh() { [ -f "$1/.setup-stamp" ] && [ "$(cat "$1/.setup-stamp")" = "$2" ]; }

make_environment() {
    local python
    python="$(find_python)" || exit 1 # errexit is off inside timed
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments." "On Debian: apt-get install python3-venv (or python3.11-venv)."
    [ -x "$1/bin/python" ] || "$python" -m venv "$1"
}

install() { # install FOLDER ARGUMENTS...: pip, quietly; its words go to a log, shown when it fails
    local folder="$1" log="$1/setup.log"
    shift
    "$folder/bin/python" -m pip install --disable-pip-version-check --no-input "$@" >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        fail "pip could not install into $folder." "The whole log is in $log; calling this again goes on where it stopped."
    }
}

environment() { # environment FOLDER "WHAT" STAMP ARGUMENTS...
    local folder="$1" what="$2" stamp="$3"
    shift 3
    if fresh "$folder" "$stamp"; then
        say "$what: already in $folder"
        return
    fi
    rm -f "$folder/.setup-stamp"
    timed "virtual environment $folder" make_environment "$folder"
    timed "$what into $folder (the first time this takes some minutes)" install "$folder" "$@"
    echo "$stamp" >"$folder/.setup-stamp"
}

browser() {
    local name
    for name in chromium chromium-browser google-chrome google-chrome-stable; do
        if command -v "$name" >/dev/null; then
            say "Chromium: already here ($(command -v "$name"))"
            return
        fi
    done
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        timed "Chromium, by apt-get" install_chromium
    else
        say "Chromium is missing: the tests that look at pages will be skipped. To get it: sudo apt-get install chromium"
    fi
}

install_chromium() {
    local log=".cache/setup-chromium.log"
    mkdir -p .cache
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        say "apt-get could not install Chromium (log: $log): the tests that look at pages will say so."
    }
}

case "${1:-}" in
main)
    environment .venv "emclean, its libraries and tools" "$(digest pyproject.toml constraints.txt)" \
        -c constraints.txt -e ".[dev]"
    ;;
services)
    environment .venv-label-studio "Label Studio's server" "$(digest constraints-label-studio.txt)" \
        -r constraints-label-studio.txt
    ;;
browser) browser ;;
*) fail "usage: scripts/setup.sh main | services | browser" ;;
esac

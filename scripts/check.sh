#!/usr/bin/env bash
# The checks that need no test run: formatting, lint, types, import rule; sizes are told, not enforced.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/steps.sh
bin=.venv/bin

quiet() { # quiet COMMAND...: what it says is shown only when it fails
    local words
    words="$("$@" 2>&1)" || {
        printf '%s\n' "$words"
        return 1
    }
}

timed "formatting (ruff format)" "$bin/ruff" format --check --quiet .
timed "lint (ruff check)" "$bin/ruff" check --quiet .
timed "types (mypy, strict)" "$bin/mypy" --no-error-summary
timed "import rule (import-linter)" quiet "$bin/lint-imports"
"$bin/python" scripts/sizes.py

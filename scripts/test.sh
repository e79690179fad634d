#!/usr/bin/env bash
# All checks and tests, from fast to slow; the first tier that fails ends the run.
# Arguments are handed to every pytest run, for instance: scripts/test.sh -x --durations=10
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/steps.sh

unset PYTHONDONTWRITEBYTECODE # else each of some hundred processes compiles emclean anew
arguments=("$@")

tier() { # tier "NAME" "MARKERS": a tier in which no test ran fails (pytest's exit code 5)
    local markers=()
    [ -z "$2" ] || markers=(-m "$2")
    timed "$1" .venv/bin/python -m pytest -q -ra --durations=8 --durations-min=5 "${markers[@]}" "${arguments[@]}"
}

begin=$SECONDS
timed "checks" scripts/check.sh
tier "unit and contract tests" ""
tier "slow tests on this machine alone" "slow and not (ray or services or e2e or gpu)"
tier "tests on a real Ray" "ray and not (services or e2e or gpu)"
tier "tests on a real Label Studio, MLflow and browser" "services and not (e2e or gpu)"
tier "the whole job, end to end" "e2e and not gpu"
if .venv/bin/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    tier "tests on a GPU" "gpu"
else
    say "no GPU here: its tests are left out"
fi
say "all checks and tests passed in $((SECONDS - begin)) s"

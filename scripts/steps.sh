# Shared by the other scripts: one line per step, with the time it took.

say() { printf '==> %s\n' "$*"; }

fail() { # fail "WHAT WAS WRONG" "WHAT TO DO"
    printf 'error: %s\n' "$1" >&2
    [ -z "${2:-}" ] || printf '       %s\n' "$2" >&2
    exit 1
}

timed() { # timed "WHAT" COMMAND...: says what begins, and how long it took; keeps the command's exit code
    local what="$1" begin=$SECONDS code=0
    shift
    say "$what ..."
    "$@" || code=$?
    [ "$code" = 0 ] && say "$what: done in $((SECONDS - begin)) s" || printf '==> %s: FAILED after %s s\n' "$what" "$((SECONDS - begin))" >&2
    return "$code"
}

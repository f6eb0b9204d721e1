# shellcheck shell=bash
# How ./dev speaks: to standard error, so that standard output is only what was asked for.

say() { printf '%s\n' "$*" >&2; }

# A failure that ends the script: what is missing, where it was tried, what to do.
die() {
    say "dev: $1"
    shift
    for line in "$@"; do say "     $line"; done
    exit 1
}

milliseconds() { local t=${EPOCHREALTIME/[.,]/}; printf '%s' "${t%???}"; }

seconds_since() {
    local ms=$(($(milliseconds) - $1))
    printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

# step "What it does" COMMAND…: says so, does it in this shell, says how long it took. Not to be called in a
# condition: bash would then go on after a failure inside.
step() {
    local what=$1 began
    shift
    began=$(milliseconds)
    say "-- $what"
    "$@"
    say "   $(seconds_since "$began")"
}

# quietly LOG COMMAND…: its words go to the log, the last of them also to the terminal if there is one; all that
# matters is shown if it fails.
quietly() {
    local log=$1 line
    shift
    mkdir -p "$(dirname "$log")"
    if [ -t 2 ]; then
        "$@" 2>&1 </dev/null | tee -a "$log" | while IFS= read -r line; do printf '\r\033[K   %.76s' "$line" >&2; done &&
            printf '\r\033[K' >&2 && return
        printf '\n' >&2
    else
        "$@" >>"$log" 2>&1 </dev/null && return
    fi
    tail -n 20 "$log" >&2
    return 1
}

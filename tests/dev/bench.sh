# shellcheck shell=bash
# ./dev bench: figures, beside whisper.cpp in the same run and against references, by other people's scorers; with
# --memory, how much memory ten minutes and four hours take.

bench() {
    [ $# = 0 ] || [ "$*" = --memory ] || wrong_usage "bench takes nothing but --memory"
    local shared venv=$target/bench
    shared=$(dirname "$top")/shared
    [ -d "$shared/audio" ] || die "the recordings are not here: looked for $shared/audio." \
        "They lie beside a developer's checkout and are not part of the product."
    if [ $# = 1 ]; then
        set_up "${packages_build[@]}"
        step "Build" cargo build --release --locked --workspace
        say "-- Memory (about a quarter of an hour on an idle machine)"
        python3 tests/tools/memory.py --roomscribe "$target/release/roomscribe" --shared "$shared"
        return
    fi
    set_up "${packages_build[@]}" python3-venv
    step "Scorers (jiwer, pyannote.metrics) and whisper.cpp (pywhispercpp)" scorers "$venv"
    step "Build" cargo build --release --locked --workspace
    say "-- Figures"
    "$venv/bin/python" tests/tools/measure.py --roomscribe "$target/release/roomscribe" --shared "$shared" \
        2>"$target/setup/bench.log" || die "the measurement failed; its words are in $target/setup/bench.log."
}

scorers() {
    if [ -x "$1/bin/python" ] && "$1/bin/python" -c 'import jiwer, pyannote.metrics, pywhispercpp' 2>/dev/null; then
        say "   all here"
        return
    fi
    python3 -m venv "$1"
    quietly "$target/setup/scorers.log" "$1/bin/pip" install --quiet jiwer pyannote.metrics pywhispercpp ||
        die "pip could not install the scorers (its words are above)." "Check the network, then run the command again."
}

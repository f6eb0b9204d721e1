# shellcheck shell=bash
# ./dev bench: figures, beside whisper.cpp in the same run and against references, by other people's scorers; or of one
# thing alone: memory, times of words, likeness of voices, steps of the segmentation network, what recording costs.

bench() {
    local what=${1:-}
    case "$*" in
    '' | --memory | '--memory --segmentation' | --words | --voices | --steps | --idle) ;;
    *) wrong_usage "bench takes nothing, --memory [--segmentation], --words, --voices, --steps or --idle" ;;
    esac
    local shared venv=$target/bench given
    shared=$(dirname "$top")/shared
    [ -d "$shared/audio" ] || die "the recordings are not here: looked for $shared/audio." \
        "They lie beside a developer's checkout and are not part of the product."
    given=(--roomscribe "$target/release/roomscribe" --shared "$shared")
    case $what in
    --words) set_up "${packages_build[@]}" libespeak-ng1 espeak-ng-data ;;
    --memory | --voices | --idle) set_up "${packages_build[@]}" ;;
    *)
        set_up "${packages_build[@]}" python3-venv
        step "Scorers (jiwer, pyannote.metrics) and whisper.cpp (pywhispercpp)" scorers "$venv"
        ;;
    esac
    step "Build" cargo build --release --locked --workspace
    export ROOMSCRIBE_ONNXRUNTIME=${ROOMSCRIBE_ONNXRUNTIME:-$target/lib/libonnxruntime.so}
    case $what in
    --memory)
        say "-- Memory (about a quarter of an hour on an idle machine)"
        python3 tests/tools/memory.py "${given[@]}" "${@:2}"
        ;;
    --idle)
        say "-- What recording costs (eighteen minutes)"
        python3 tests/tools/idle.py "${given[@]}"
        ;;
    --words) python3 tests/tools/word_times.py "${given[@]}" ;;
    --voices) python3 tests/tools/likeness.py "${given[@]}" ;;
    *)
        say "-- Figures"
        local tool=measure.py
        [ "$what" != --steps ] || tool=steps.py
        "$venv/bin/python" "tests/tools/$tool" "${given[@]}" 2>"$target/setup/bench.log" ||
            die "the measurement failed; its words are in $target/setup/bench.log."
        ;;
    esac
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

# shellcheck shell=bash
# ./dev eval: recordings that have references, through `roomscribe process`, scored by other people's scorers.

# meeteval comes as source and is compiled.
packages_eval=(python3-venv python3-dev g++ perl)
md_eval=$target/checks/sctk/md-eval.pl

eval_help() {
    cat <<'END'
./dev eval [OPTION]...

  --recordings PATH    a folder, looked through to the bottom, or one recording; may be given several times.
                       X.wav, X.flac, X.mp3 or X.ogg, and beside it X.rttm (who spoke when), X.uem (what of it is
                       scored), X.stm or X.json (who said what). RTTM, UEM and STM may hold several recordings.
                       Left out: conversation (30 s, 2 min), ami and phone-call of ../shared/audio
  --root R             a root with models; the recordings are imported into it. Left out: one for this run
  --out DIR            for table, page, pictures and what the scorers were given. Left out: target/eval/results
  --roomscribe FILE    a built program. Left out: this tree's, which is built first
  --self-test          runs the scorers on what is known by hand, with a scripted roomscribe

Ends with a code other than 0 if a recording has no result, or if the two scorers of speakers disagree.
END
}

evaluate() {
    local program='' root='' out=$target/eval/results venv=$target/eval/venv recordings=() options=() path
    while [ $# -gt 0 ]; do
        case $1 in
        --help | -h) eval_help && return ;;
        --self-test)
            [ $# = 1 ] || wrong_usage "--self-test takes no arguments"
            prepare_scorers "$venv"
            self_test "$venv"
            return
            ;;
        --recordings | --root | --out | --roomscribe)
            [ $# -ge 2 ] || wrong_usage "$1 needs a path"
            case $1 in
            --recordings) recordings+=("$(from_caller "$2")") ;;
            --root) root=$(from_caller "$2") ;;
            --out) out=$(from_caller "$2") ;;
            --roomscribe) program=$(from_caller "$2") ;;
            esac
            shift
            ;;
        *) wrong_usage "eval has no option '$1'" ;;
        esac
        shift
    done
    # Before anything is built.
    [ ${#recordings[@]} -gt 0 ] || known_recordings
    for path in "${recordings[@]}"; do [ -e "$path" ] || die "there is no folder and no recording $path"; done
    prepare_program
    prepare_scorers "$venv"
    [ -z "$root" ] || options+=(--root "$root")
    say "-- Recordings"
    # What matplotlib finds out about fonts would otherwise go to the caller's home.
    PYTHONUTF8=1 MPLCONFIGDIR=$target/eval/matplotlib "$venv/bin/python" tests/tools/evaluate.py --roomscribe "$program" \
        --md-eval "$md_eval" --out "$out" "${options[@]}" "${recordings[@]}"
}

from_caller() { (cd "$came_from" && readlink --canonicalize-missing "$1"); }

# Sets recordings.
known_recordings() {
    local audio path missing=()
    audio=$(dirname "$top")/shared/audio
    recordings=("$audio"/conversation/sample-{30s,2min}.wav "$audio/ami" "$audio/phone-call")
    for path in "${recordings[@]}"; do [ -e "$path" ] || missing+=("$path"); done
    [ ${#missing[@]} = 0 ] || die "these recordings are not here:" "${missing[@]}" \
        "They lie beside a developer's checkout and are not part of the product." \
        "Any folder with recordings and references will do: ./dev eval --recordings DIR"
}

# Sets program, and says where its models are.
prepare_program() {
    local runtime=${ROOMSCRIBE_ONNXRUNTIME-}
    if [ -z "$program" ]; then
        set_up "${packages_build[@]}"
        step "Build" cargo build --release --locked --workspace
        program=$target/release/roomscribe
        return
    fi
    [ -x "$program" ] || die "there is no program $program"
    where_models_are
    [ -n "$root" ] || [ ${#model_folders[@]} -gt 0 ] || die "there are no models for a root." \
        "Looked in: ROOMSCRIBE_MODELS_FROM, $(dirname "$top")/shared/models, $target/models." \
        "Give a root that has them (--root R), or run ./dev setup."
    # A program from elsewhere has its ONNX Runtime where it looks for it, or the caller has named one.
    if [ -n "$runtime" ]; then export ROOMSCRIBE_ONNXRUNTIME=$runtime; else unset ROOMSCRIBE_ONNXRUNTIME; fi
}

prepare_scorers() {
    step "Debian packages" debian_packages "${packages_eval[@]}"
    step "md-eval.pl (NIST's sctk)" nist_scripts
    step "Scorers (pyannote.metrics, meeteval) and matplotlib" pinned_scorers "$1"
}

# What is in the folder is what the list says, or it is made again.
pinned_scorers() {
    local list=$top/tests/tools/evaluation/requirements.txt
    if cmp --silent "$list" "$1/installed.txt"; then
        say "   all here"
        return
    fi
    rm -rf "$1"
    python3 -m venv "$1"
    quietly "$target/setup/eval.log" "$1/bin/pip" install --quiet --disable-pip-version-check --requirement "$list" ||
        die "pip could not install the scorers (its words are above)." \
            "Tried: the index that pip is configured for. Check the network, then run the command again."
    cp "$list" "$1/installed.txt"
}

self_test() {
    say "-- Recordings and references"
    "$1/bin/python" tests/tools/test_recordings.py
    say "-- Scores known by hand"
    PYTHONUTF8=1 MPLCONFIGDIR=$target/eval/matplotlib MD_EVAL=$md_eval "$1/bin/python" tests/tools/test_evaluate.py
}

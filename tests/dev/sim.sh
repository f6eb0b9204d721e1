# shellcheck shell=bash
# ./dev sim, ./dev test --seed N, ./dev mutants: box, broker and clinic in virtual time, and bugs planted on purpose.

build_sim() {
    set_up "${packages_build[@]}"
    step "Build" cargo build --release --locked --workspace --bin sim
}

simulate() {
    local seeds=10000
    case ${1-} in
    --seeds)
        [ $# = 2 ] || wrong_usage "--seeds needs a number"
        seeds=$2
        ;;
    '') ;;
    *) wrong_usage "sim has no option '$1'" ;;
    esac
    build_sim
    step "Simulation of $seeds seeds" "$target/release/sim" --seeds "$seeds"
}

one_seed() {
    build_sim
    "$target/release/sim" --seed "$1"
}

plant_bugs() {
    set_up "${packages_build[@]}"
    python3 tests/tools/mutate.py "$@"
}

# shellcheck shell=bash
# ./dev fuzz: libFuzzer with the targets of tests/fuzz. It begins with the corpus there; what it finds goes to target/fuzz,
# and with --keep from there into the corpus.

cargo_fuzz_version=0.13.2

# The most bytes of an input: longer ones are slower and reach nothing more.
declare -A fuzz_longest=([frame]=512 [parcel]=2048 [control]=512 [decode]=5000)

# A stable compiler takes as -C options all that libFuzzer needs; RUSTC_BOOTSTRAP lets it through where cargo-fuzz asks for
# a nightly one. There is no sanitizer: whatever is unsafe here (SQLite, zstd) is C, which it would not see. What is looked
# for are panics, overflows (debug assertions are on), memory without end and broken promises.
fuzz_options=(--fuzz-dir tests/fuzz --sanitizer none --release --debug-assertions)

fuzz() {
    local names=() runs=10000000 keep=no name
    while [ $# -gt 0 ]; do
        case $1 in
        --runs)
            [[ ${2-} =~ ^[0-9]+$ ]] || wrong_usage "--runs needs a number"
            runs=$2
            shift
            ;;
        --keep) keep=yes ;;
        -*) wrong_usage "fuzz has no option '$1'" ;;
        *)
            [ -n "${fuzz_longest[$1]-}" ] || wrong_usage "there is no target '$1', only ${!fuzz_longest[*]}"
            names+=("$1")
            ;;
        esac
        shift
    done
    [ ${#names[@]} -gt 0 ] || names=(frame parcel control decode)
    step "Debian packages" debian_packages "${packages_build[@]}"
    step "Rust" rust
    step "cargo-fuzz $cargo_fuzz_version" cargo_fuzz
    # Every run writes files; in memory it is fast, and no disk wears.
    fuzz_scratch=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)" roomscribe-fuzz.XXXXXX)
    trap 'rm -rf "$fuzz_scratch"' EXIT
    for name in "${names[@]}"; do
        step "Build of $name" cargo_fuzz_with build "${fuzz_options[@]}" --target-dir "$target/fuzz" "$name"
        step "Fuzzing of $name, $runs executions" run_target "$name" "$runs"
        if [ $keep = yes ]; then step "Corpus of $name" keep_corpus "$name"; fi
    done
}

cargo_fuzz() {
    PATH=$PATH:$HOME/.cargo/bin
    if [ "$(cargo fuzz --version 2>/dev/null)" = "cargo-fuzz $cargo_fuzz_version" ]; then
        say "   here"
        return
    fi
    cargo install --quiet --locked --version "$cargo_fuzz_version" cargo-fuzz ||
        die "cargo could not install cargo-fuzz (its words are above)." \
            "Tried: the registry that cargo is configured for. Check the network, then run the command again."
}

cargo_fuzz_with() { RUSTC_BOOTSTRAP=1 cargo fuzz "$@"; }

# lib_fuzzer NAME ARGUMENT…: the target itself, as cargo-fuzz built it.
lib_fuzzer() {
    local name=$1
    shift
    TMPDIR=$fuzz_scratch "$target/fuzz/$(rustc -vV | sed -n 's/^host: //p')/release/$name" "$@"
}

run_target() {
    local name=$1 runs=$2 log=$target/fuzz/$1.log
    mkdir -p "$target/fuzz/corpus/$name" "$target/fuzz/crashes/$name"
    if ! lib_fuzzer "$name" -runs="$runs" -max_len="${fuzz_longest[$name]}" -timeout=60 -rss_limit_mb=3072 -print_final_stats=1 \
        -artifact_prefix="$target/fuzz/crashes/$name/" "$target/fuzz/corpus/$name" "tests/fuzz/corpus/$name" \
        >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        die "$name failed. The input is in $target/fuzz/crashes/$name; it belongs into tests/fuzz/corpus/$name, with a fix."
    fi
    grep -E '^(Done|stat::)|DONE' "$log" >&2
}

# The smallest inputs that together reach the code that the corpus and all that was found reach. What is not named by
# libFuzzer was made by hand, or is what a mended bug was found by, and stays.
keep_corpus() {
    local name=$1 corpus=tests/fuzz/corpus/$1 found=$fuzz_scratch/found kept=$fuzz_scratch/kept log=$target/fuzz/$1.log
    mkdir "$found" "$kept"
    lib_fuzzer "$name" -merge=1 -use_counters=0 -max_len=1000 "$found" "$corpus" "$target/fuzz/corpus/$name" >>"$log" 2>&1
    lib_fuzzer "$name" -set_cover_merge=1 -use_counters=0 "$kept" "$found" >>"$log" 2>&1
    find "$corpus" -type f -regextype posix-extended -regex '.*/[0-9a-f]{40}' -delete
    find "$kept" -type f -exec cp -t "$corpus" {} +
    rm -r "$found" "$kept"
    say "   $(find "$corpus" -type f | wc -l) inputs, $(du -sb "$corpus" | cut -f 1) bytes"
}

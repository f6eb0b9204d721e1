# shellcheck shell=bash
# ./dev test: every check, each timed. The main test run comes last, so that its summary is the last thing said.

run_tests() {
    local extra=() failed=() table=() missing arm=no
    source tests/dev/machine.sh
    source tests/dev/cross.sh
    case ${1-} in
    --full)
        extra=(--include-ignored)
        arm=yes
        ;;
    --arm)
        test_arm
        return
        ;;
    --seed)
        [ $# = 2 ] || wrong_usage "--seed needs a number"
        source tests/dev/sim.sh
        one_seed "$2"
        return
        ;;
    '') ;;
    *) wrong_usage "test has no option '$1'" ;;
    esac
    local began
    began=$(milliseconds)
    set_up "${packages_build[@]}" "${packages_demo[@]}" "${packages_checks[@]}" "${packages_machine[@]}" \
        "${packages_emulator[$(dpkg --print-architecture)]}"
    set_up_checks
    table+=("$(row ok "set-up" "$began")")
    export ROOMSCRIBE_TEST_MODELS=$target/models ROOMSCRIBE_TEST_CHECKS=$target/checks ROOMSCRIBE_TEST_MACHINES=$target/machine

    part "format" formatted
    part "lints" lints
    part "shell scripts" shellcheck --external-sources --check-sourced dev .ci/run tests/machine/init
    part "systemd units" check_units
    part "recordings and references" python3 tests/tools/test_recordings.py
    part "planted bugs fit the code" python3 tests/tools/mutate.py --check
    part "tests without devices or engines" cargo test --release --locked --workspace --no-default-features --lib --bins --tests

    missing=$(missing_for_power_cuts)
    if [ -n "$missing" ]; then
        extra+=(--skip power_cuts)
        table+=("absent   power cuts are NOT tested here; missing: ${missing//$'\n'/, }")
    fi

    say "-- parts so far"
    printf '   %s\n' "${table[@]}" >&2
    if [ ${#failed[@]} -gt 0 ]; then say "   FAILED: ${failed[*]}"; fi
    say "-- tests"
    # The scenarios run the programs, so these are built whole first: the part before left them without engines.
    cargo build --release --locked --workspace || failed+=("build")
    step "Emulated machine" make_machine "$(dpkg --print-architecture)" "$target/release/roomscribe"
    if [ $arm = yes ]; then make_arm_machine; fi
    # One stream, so that the order is the order in which things happened.
    cargo test --release --locked --workspace --lib --bins --tests --no-fail-fast -- "${extra[@]}" 2>&1 || failed+=("tests")
    if [ ${#failed[@]} -gt 0 ]; then
        say "dev: failed: ${failed[*]}"
        exit 1
    fi
}

# What needs a Pi's processor, emulated: capture, button and lights.
test_arm() {
    set_up "${packages_build[@]}" "${packages_machine[@]}"
    export ROOMSCRIBE_TEST_MACHINES=$target/machine
    make_arm_machine
    cargo build --release --locked --workspace
    cargo test --release --locked --package tests --test scenarios -- --ignored so_it_is_on_arm64 2>&1
}

make_arm_machine() {
    step "Compilers for arm64" set_up_cross
    step "Emulator for arm64" debian_packages "${packages_emulator[arm64]}"
    step "The recorder for arm64" cross_build --package appliance --no-default-features --features alsa
    step "Emulated machine of arm64" make_machine arm64 "$target/cross/$cross_triple/release/roomscribe"
}

# What the power cannot be cut without, a line each: the tests make a disk of their own below ext4 (tests/src/disk).
missing_for_power_cuts() {
    local file
    [ "$(id -u)" = 0 ] || echo "root"
    unshare --mount true 2>/dev/null || echo "the right to mount"
    for file in /dev/fuse /dev/loop-control; do [ -e "$file" ] || echo "$file"; done
    grep -qw ext4 /proc/filesystems || echo "ext4 in the kernel"
}

formatted() {
    cargo fmt --all --check
    cargo fmt --manifest-path tests/fuzz/Cargo.toml --check
}

lints() {
    has_clippy || die "clippy is not here. With rustup: rustup component add clippy. With Debian's Rust: apt-get install rust-web-clippy"
    cargo clippy --release --locked --workspace --all-targets -- -D warnings
}

row() { printf '%-8s %-34s %s' "$1" "$2" "$(seconds_since "$3")"; }

# part NAME COMMAND…: one line of the table; a failure is remembered and the rest still runs.
part() {
    local name=$1 began status=ok code
    shift
    began=$(milliseconds)
    say "-- $name"
    # In a shell of its own, so that `die` ends only this part; not in a condition, where -e would mean nothing.
    set +e
    (
        set -e
        "$@"
    ) >&2
    code=$?
    set -e
    if [ $code != 0 ]; then
        status=FAILED
        failed+=("$name")
    fi
    table+=("$(row $status "$name" "$began")")
}

# The units as systemd reads them: programs that are not installed here are replaced by one that is, and the users and
# folders are made in a scratch root.
check_units() {
    local scratch unit
    scratch=$(mktemp -d)
    for unit in systemd/*.service; do
        sed 's|^\(Exec[A-Za-z]*=\)/usr/bin/roomscribe[a-z-]*|\1/bin/true|' "$unit" >"$scratch/${unit#systemd/}"
    done
    systemd-analyze verify --man=no "$scratch"/*.service 2>&1 | tee "$scratch/said"
    mkdir -p "$scratch/root/etc"
    quietly "$target/setup/units.log" systemd-sysusers --root="$scratch/root" "$top"/systemd/*.sysusers.conf
    quietly "$target/setup/units.log" systemd-tmpfiles --root="$scratch/root" --create "$top"/systemd/*.tmpfiles.conf
    grep -q '^roomscribe:' "$scratch/root/etc/passwd"
    # A setting that systemd does not know is only a remark to it. To us it is a mistake.
    if [ -s "$scratch/said" ]; then return 1; fi
    rm -rf "$scratch"
}

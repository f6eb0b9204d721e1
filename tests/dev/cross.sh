# shellcheck shell=bash
# Cross building for arm64 with Debian's own compilers, into target/cross: another compiler's output must not mix with it.

# dpkg must know the architecture arm64 before apt can be asked for these.
packages_cross=(gcc-aarch64-linux-gnu g++-aarch64-linux-gnu rustc-web libstd-rust-web-dev)
packages_cross_arm64=(libstd-rust-web-dev libasound2-dev)

cross_triple=aarch64-unknown-linux-gnu

set_up_cross() {
    if ! dpkg --print-foreign-architectures | grep -qx arm64; then
        as_root dpkg --add-architecture arm64
        fresh_lists
    fi
    debian_packages "${packages_cross[@]}" "${packages_cross_arm64[@]/%/:arm64}"
}

# cross_build CARGO-ARGUMENT…: cargo build for arm64. Debian's compiler does it: Debian's standard library for arm64 fits no other.
cross_build() {
    # -march of a Pi 4 (Cortex-A72), which a Pi 5 runs as well.
    env RUSTC=/usr/bin/rustc CARGO_TARGET_DIR="$target/cross" \
        CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
        CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CXX_aarch64_unknown_linux_gnu=aarch64-linux-gnu-g++ \
        PKG_CONFIG_ALLOW_CROSS=1 PKG_CONFIG_LIBDIR_aarch64_unknown_linux_gnu=/usr/lib/aarch64-linux-gnu/pkgconfig \
        BINDGEN_EXTRA_CLANG_ARGS_aarch64_unknown_linux_gnu=-I/usr/aarch64-linux-gnu/include \
        GGML_NATIVE=OFF GGML_CPU_ARM_ARCH=armv8-a \
        cargo build --release --locked --target "$cross_triple" "$@"
}

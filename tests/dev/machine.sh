# shellcheck shell=bash
# The emulated machine of the tests: Debian's kernel and an initramfs of Debian's packages, our program and tests/machine/init.
# It lies in target/machine/ARCHITECTURE (Debian's name of it) as `kernel` and `initramfs`.

# kmod tells what modules need, cpio packs; the emulator runs it.
packages_machine=(cpio kmod xz-utils)
declare -A packages_emulator=([amd64]=qemu-system-x86 [arm64]=qemu-system-arm)
machine_modules=(snd-aloop virtio_pci virtio_blk)

# make_machine ARCHITECTURE PROGRAM
make_machine() {
    local arch=$1 program=$2 folder=$target/machine/$1 tree=$target/machine/$1/tree kernel package module file
    local strip=(strip)
    [ "$arch" = "$(dpkg --print-architecture)" ] || strip=(aarch64-linux-gnu-strip)
    rm -rf "$tree"
    mkdir -p "$folder/packages" "$tree"/{bin,dev,modules,proc,sys,tmp}
    # What apt heard of last month may be gone from its server.
    [ -d "$folder/linux" ] || fresh_lists
    kernel=$(apt-cache depends "linux-image-$arch:$arch" | sed -n 's/.*Depends: \(linux-image-[^: ]*\).*/\1/p' | head -n 1)
    [ -n "$kernel" ] || die "apt knows no kernel of Debian's for $arch." "Tried: what linux-image-$arch depends on."
    for package in {busybox-static,libc6,libgcc-s1,libstdc++6,libgomp1,alsa-utils,"$(sound_library "$arch")"}":$arch" \
        libasound2-data; do
        unpack_package "$folder/packages" "$package" "$tree"
    done
    if [ ! -f "$folder/kernel.$kernel" ]; then
        rm -rf "$folder/linux" "$folder"/kernel.*
        unpack_package "$folder/packages" "$kernel:$arch" "$folder/linux"
        rm -f "$folder/packages/linux-image-"*
        cp "$folder/linux/boot/vmlinuz-${kernel#linux-image-}" "$folder/kernel"
        touch "$folder/kernel.$kernel"
    fi
    depmod --basedir "$folder/linux" "${kernel#linux-image-}"
    for module in "${machine_modules[@]}"; do
        modprobe --dirname "$folder/linux" --set-version "${kernel#linux-image-}" --show-depends "$module"
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' >"$folder/modules"
    while read -r file; do
        module=$(basename "${file%.xz}")
        case $file in
        *.xz) xz --decompress --stdout "$file" >"$tree/modules/$module" ;;
        *) cp "$file" "$tree/modules/$module" ;;
        esac
        echo "${module%.ko}" >>"$tree/modules/order"
    done <"$folder/modules"
    rm -rf "$tree"/usr/share/{doc,man,locale,sounds,lintian,bug} "$tree"/usr/lib/*/gconv
    python3 -c 'import array; array.array("h", [n // 16 % 32768 for n in range(120 * 16000)]).tofile(open("/dev/stdout", "wb"))' \
        >"$tree/counter.raw"
    "${strip[@]}" -o "$tree/usr/bin/roomscribe" "$program"
    install tests/machine/init "$tree/init"
    (cd "$tree" && find . | cpio --quiet --create --format=newc --owner=0:0) >"$folder/initramfs.part"
    mv "$folder/initramfs.part" "$folder/initramfs"
    rm -rf "$tree"
    say "   $(du -m "$folder/initramfs" | cut -f 1) MB, $kernel"
}

# Debian 13 calls it otherwise.
sound_library() {
    if [ -n "$(apt-cache policy "libasound2t64:$1" | sed -n 's/^ *Candidate: [^(]*$/&/p')" ]; then
        echo libasound2t64
    else
        echo libasound2
    fi
}

# unpack_package CACHE NAME:ARCHITECTURE FOLDER: apt checks what it fetches against Debian's signature.
unpack_package() {
    local cache=$1 name=$2 folder=$3 file
    mkdir -p "$folder"
    file=$(find "$cache" -name "${name%:*}_*.deb" | head -n 1)
    if [ -z "$file" ]; then
        (cd "$cache" && quietly "$target/setup/machine.log" apt-get -q -o APT::Sandbox::User=root download "$name") ||
            die "apt could not fetch $name (its words are above)." "Check the network, then run the command again."
        file=$(find "$cache" -name "${name%:*}_*.deb" | head -n 1)
    fi
    dpkg-deb --extract "$file" "$folder"
}

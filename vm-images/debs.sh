# shellcheck shell=sh
# Sourced by the recipes that need files from the distribution's packages without installing the packages:
# a second kernel, or a busybox that would push out the one that is installed, is not ours to put on anybody's
# machine. Needs apt-get, dpkg and depmod; no root.

# die MESSAGE: stop the recipe. A helper that is missing is exit 4, everything else 1.
die() {
    echo "$(basename "$0"): $1" >&2
    exit "${2:-1}"
}

# need PROGRAM...: stop with the list of what is missing.
need() {
    missing=
    for tool in "$@"; do
        command -v "$tool" >/dev/null || missing="$missing $tool"
    done
    [ -z "$missing" ] || die "not found:$missing. \`make setup\` installs them." 4
}

# fresh_lists: on a machine that has never asked its package sources what they hold, ask. Once; another failure is
# a real one.
fresh_lists() {
    [ -z "$(apt-cache show linux-image-amd64 linux-image-generic 2>/dev/null)" ] || return 0
    echo "apt-get update (the package lists are empty)" >&2
    if [ "$(id -u)" = 0 ]; then apt-get -qq update >&2 || :; else sudo apt-get -qq update >&2 || :; fi
}

# unpack DIR PACKAGE...: download the packages and unpack them into DIR.
unpack() {
    fresh_lists
    unpack_dir=$1
    shift
    mkdir -p "$unpack_dir/debs"
    # Outside apt's own folders its sandbox user could not write; the packages are verified all the same.
    (cd "$unpack_dir/debs" && apt-get -qq -o APT::Sandbox::User=root download "$@" >&2) ||
        die "can't download $*. Are the package lists current (apt-get update)?"
    for deb in "$unpack_dir/debs"/*.deb; do
        dpkg -x "$deb" "$unpack_dir"
    done
    rm -r "$unpack_dir/debs"
}

# kernel_packages FLAVOUR: the packages that hold the newest kernel. `plain` has every driver, 9p among them;
# `cloud` is smaller and boots faster. Debian has one package a kernel, Ubuntu splits the modules off.
kernel_packages() {
    fresh_lists
    case $1 in
    plain) metas="linux-image-amd64 linux-image-generic" ;;
    cloud) metas="linux-image-cloud-amd64 linux-image-virtual" ;;
    esac
    for meta in $metas; do
        depends=$(apt-cache depends --no-recommends --no-suggests "$meta" 2>/dev/null) || continue
        # The modules of Ubuntu's kernels are a dependency of the image, hence the second look.
        first=$(echo "$depends" | awk '$2 ~ /^linux-(image|modules|modules-extra)-[0-9]/ { print $2 }')
        [ -n "$first" ] || continue
        # shellcheck disable=SC2086 # a list of package names
        { echo "$first"; apt-cache depends $first | awk '$2 ~ /^linux-modules-[0-9]/ { print $2 }'; } | sort -u
        return
    done
    die "no kernel package found in the package lists (looked for: $metas)"
}

# fetch_kernel FLAVOUR DIR: DIR/vmlinuz, DIR/lib/modules/VERSION and DIR/version. Kept once it is there.
fetch_kernel() {
    [ ! -e "$2/version" ] || return 0
    kernel_tmp=$2.new
    rm -rf "$kernel_tmp" "$2"
    packages=$(kernel_packages "$1")
    echo "fetching the kernel:" "$packages" >&2
    # shellcheck disable=SC2086 # a list of package names
    unpack "$kernel_tmp" $packages
    [ -d "$kernel_tmp/lib/modules" ] || {
        mkdir -p "$kernel_tmp/lib"
        mv "$kernel_tmp/usr/lib/modules" "$kernel_tmp/lib/modules"
    }
    version=$(ls "$kernel_tmp/lib/modules")
    depmod -b "$kernel_tmp" "$version"
    mv "$kernel_tmp/boot/vmlinuz-$version" "$kernel_tmp/vmlinuz"
    echo "$version" >"$kernel_tmp/version"
    mv "$kernel_tmp" "$2" # last, so that a folder with this name is always whole
}

# unpack_kernel VMLINUZ FILE: the kernel without its compression, which QEMU can boot too (PVH); under emulation
# that saves seconds at each start. A plain copy where the compression is not known.
unpack_kernel() {
    for magic in '\3757zXZ\000:xz -dc' '(\265/\375:zstd -qdc' '\037\213\010:gzip -dc' '\002!L\030:lz4 -dc'; do
        # shellcheck disable=SC2059 # the magic number is written as an escape
        pattern=$(printf "${magic%%:*}" | od -An -vtx1 | sed 's/ /\\x/g')
        for offset in $(LC_ALL=C grep -aboP "$pattern" "$1" | head -n 3 | cut -d: -f1); do
            # The decompressors complain about what follows the kernel in the file.
            tail -c "+$((offset + 1))" "$1" | ${magic#*:} >"$2" 2>/dev/null || :
            [ "$(head -c 4 "$2" | od -An -tx1)" != " 7f 45 4c 46" ] || return 0
        done
    done
    cp "$1" "$2"
}

# fetch_busybox DIR: DIR/busybox, statically linked. Kept once it is there.
fetch_busybox() {
    [ ! -e "$1/busybox" ] || return 0
    rm -rf "$1"
    unpack "$1.new" busybox-static
    find "$1.new" -name busybox -type f -perm -100 -exec mv {} "$1.new/busybox" \;
    mv "$1.new" "$1"
}

# copy_modules KERNELDIR ROOT MODULE...: copy modules with all they depend on to ROOT/modules and append their
# names, in loading order, to ROOT/modules/order. Built-in or unknown ones are passed over: what is a module in
# one distribution is built in or gone in the next. Unpacked, since busybox's insmod may not know the compression.
copy_modules() {
    modules_from=$1 modules_to=$2/modules
    shift 2
    mkdir -p "$modules_to"
    for module in "$@"; do
        /sbin/modprobe -d "$modules_from" -S "$(cat "$modules_from/version")" --show-depends "$module" 2>/dev/null ||
            echo "  (not in this kernel: $module)" >&2
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
        name=$(basename "$file")
        case $name in
        *.ko) cp "$file" "$modules_to/$name" ;;
        *.ko.xz) xz -dc "$file" >"$modules_to/${name%.xz}" ;;
        *.ko.zst) zstd -qdc "$file" >"$modules_to/${name%.zst}" ;;
        esac
        echo "${name%.ko*}.ko" >>"$modules_to/order"
    done
}

# pack_initramfs ROOT FILE: everything in it belongs to root, whoever builds. Not compressed: unpacking costs
# an emulated guest more time than reading.
pack_initramfs() {
    (cd "$1" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$2.new"
    mv "$2.new" "$2"
}

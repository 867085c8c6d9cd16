#!/bin/sh
# tuxrun.sh KERNEL ROOTFS [BASE]: measure a kernel on one of tuxrun's devices, and judge it against the run file BASE.
# ROOTFS has a Python of this machine's version and architecture, and needs no packages; KERNEL has udmabuf built in.
# The verdict of each row is in results.json, which lies here afterwards. DEVICE is qemu-x86_64 unless it is set.
set -eu
kernel=$1
rootfs=$2
base=${3-}
here=$(cd "$(dirname "$0")" && pwd)
: "${DMASYNC:=$here/../../..}" # what pip installs: this checkout

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
into=$folder/root/opt/dmasync
mkdir -p "$into/bin"
python3 -m pip install --quiet --target "$into/packages" "$DMASYNC[harness]"
cp "$here/measure.sh" "$into/"
printf '#!/bin/sh\nexport PYTHONPATH=/opt/dmasync/packages\nexec python3 -m dmasync "$@"\n' >"$into/bin/dmasync"
chmod +x "$into/bin/dmasync"
[ -z "$base" ] || cp "$base" "$into/base.json"
tar -C "$folder/root" -czf "$folder/overlay.tar.gz" .

# tuxrun writes the words after -- into a quoted line of YAML: they must have no double quotes.
tuxrun --device "${DEVICE:-qemu-x86_64}" --kernel "$kernel" --rootfs "$rootfs" --overlay "$folder/overlay.tar.gz" \
    --timeouts commands=60 --results results.json -- \
    PATH=/opt/dmasync/bin:\$PATH /opt/dmasync/measure.sh hardware ${base:+/opt/dmasync/base.json}

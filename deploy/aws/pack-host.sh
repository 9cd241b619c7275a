#!/bin/sh
# Packs what a parent instance needs, byte for byte the same each time: pack-host.sh OUT/host.tar.gz
set -eu
[ "$#" -eq 1 ] || { sed -n 2p "$0" >&2; exit 64; }
here=$(cd "$(dirname "$0")" && pwd)
tar --create --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode='u+rw,go-w' \
  --directory="$here/host" allocator.yaml enclave.json host.py install.sh proxies systemd vsock-proxy.yaml \
  --directory="$here/enclave" bridge.py | gzip --no-name > "$1"

#!/bin/sh
# Puts the parent's files in place and starts what is to run; run as root from the unpacked host.tar.gz.
#   install.sh REGION AUTO_SCALING_GROUP LIFECYCLE_HOOK POLICY_URL
# DESTDIR, where it is set, stands before every path.
set -eu
to=${DESTDIR-}
[ "$#" -eq 4 ] || { sed -n 2,3p "$0" >&2; exit 64; }
install -D -m 0644 allocator.yaml "$to/etc/nitro_enclaves/allocator.yaml"
install -D -m 0644 enclave.json "$to/etc/ephemeralml/enclave.json"
install -D -m 0755 host.py "$to/opt/ephemeralml/host.py"
install -D -m 0755 bridge.py "$to/opt/ephemeralml/bridge.py"
mkdir -p "$to/etc/ephemeralml/proxies" "$to/etc/systemd/system"
sed "s/REGION/$1/" vsock-proxy.yaml > "$to/etc/ephemeralml/vsock-proxy.yaml"
for one in kms sqs s3 metadata; do
  sed "s/\.REGION\./.$1./" "proxies/$one.env" > "$to/etc/ephemeralml/proxies/$one.env"
done
printf 'AWS_REGION=%s\nAUTO_SCALING_GROUP=%s\nLIFECYCLE_HOOK=%s\nPOLICY_URL=%s\n' "$1" "$2" "$3" "$4" \
  > "$to/etc/ephemeralml/fleet.env"
install -m 0644 systemd/*.service "$to/etc/systemd/system/"
systemctl daemon-reload
systemctl enable --now nitro-enclaves-allocator.service
for one in kms sqs s3 metadata; do systemctl enable --now "ephemeralml-proxy@$one.service"; done
systemctl enable --now ephemeralml-policy.service ephemeralml-policy-door.service
systemctl enable --now ephemeralml-enclave.service ephemeralml-drain.service

#!/bin/sh
# Builds the enclave image of one fleet and records its measurements.
#
#   deploy/aws/build-eif.sh WORKER_IMAGE@sha256:… fleet.env OUT [SIGNING_KEY CERTIFICATE]
#
# Needs docker with buildx and a builder of the driver docker-container (docs/deploy/images.md), and nitro-cli
# (an EC2 instance with aws-nitro-enclaves-cli; it needs not be an enclave's parent). OUT receives worker.eif,
# worker.eif.sha256 and measurements.json.
set -eu
case "${1-}" in *@sha256:????????????????????????????????????????????????????????????????) ;; *)
  echo "the worker's image is named by its digest: NAME@sha256:…" >&2; exit 64 ;; esac
[ "$#" -eq 3 ] || [ "$#" -eq 5 ] || { sed -n 2,9p "$0" >&2; exit 64; }
here=$(cd "$(dirname "$0")" && pwd)
worker=$1 settings=$2 out=$3
[ -e "$out" ] && { echo "OUT is there already: a measurement is never overwritten" >&2; exit 73; }
mkdir -p "$out/context"
python3 "$here/enclave/settings.py" "$settings" > "$out/context/bridge.json"
cp "$here/enclave/bridge.py" "$here/enclave/Dockerfile" "$out/context/"
# Times of files are measured with them: all are the same, those of folders that COPY makes too, so that two
# builds give one measurement.
: "${SOURCE_DATE_EPOCH:=0}"; export SOURCE_DATE_EPOCH
find "$out/context" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
docker buildx build --platform linux/amd64 --build-arg "WORKER=$worker" --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" \
  --provenance=false --sbom=false --output type=docker,name=ephemeralml-fleet:build,rewrite-timestamp=true "$out/context"
if [ "$#" -eq 5 ]; then
  nitro-cli build-enclave --docker-uri ephemeralml-fleet:build --output-file "$out/worker.eif" \
    --private-key "$4" --signing-certificate "$5" > "$out/nitro-cli.json"
else
  nitro-cli build-enclave --docker-uri ephemeralml-fleet:build --output-file "$out/worker.eif" > "$out/nitro-cli.json"
fi
(cd "$out" && sha256sum worker.eif > worker.eif.sha256)
python3 "$here/measurements.py" "$out/nitro-cli.json" --worker "$worker" --eif-sha256 "$out/worker.eif.sha256" \
  --out "$out/measurements.json"
echo "next: python3 deploy/aws/measurements.py propose $out/measurements.json --out policy.json …" >&2

# syntax=docker/dockerfile:1
# A worker for NVIDIA GPUs under driver 535 (Confidential Space): CUDA 12.2, torch for CUDA 12.1, exllamav2.
# Build with deploy/docker/build worker-gpu. Which versions go together and why: deploy/docker/gpu-pins.toml.
ARG BASE_CUDA_DEVEL
ARG BASE_CUDA_RUNTIME

FROM ${BASE_CUDA_DEVEL} AS build
ARG SOURCE_DATE_EPOCH
SHELL ["/bin/bash", "-eux", "-o", "pipefail", "-c"]
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0
# The packages are those of the base's own release, which the base's digest does not fix: rpm -qa is kept below.
# hadolint ignore=DL3041
RUN dnf install --assumeyes --setopt=install_weak_deps=False python3.11 python3.11-devel gcc-c++ && dnf clean all
COPY deploy/docker/locks/build-gpu.txt deploy/docker/locks/worker-gpu.txt /locks/
# flash-attn comes as source and compiles against torch; everything else is a wheel. One lock, hashes included.
RUN python3.11 -m venv /opt/ephemeralml \
    && /opt/ephemeralml/bin/pip install --require-hashes --requirement /locks/build-gpu.txt \
    && awk '/^[a-z]/ {late = /^flash-attn==/} {print > (late ? "/locks/late.txt" : "/locks/early.txt")}' \
        /locks/worker-gpu.txt \
    && /opt/ephemeralml/bin/pip install --require-hashes --only-binary :all: --no-deps --requirement /locks/early.txt
# H100 only: 9.0. One job per core would need more memory than builders have. Without FORCE_BUILD its setup
# fetches a binary of nobody's hash.
ENV TORCH_CUDA_ARCH_LIST=9.0 FLASH_ATTN_CUDA_ARCHS=90 FLASH_ATTENTION_FORCE_BUILD=TRUE MAX_JOBS=4
RUN /opt/ephemeralml/bin/pip install --require-hashes --no-binary flash-attn --no-deps --no-build-isolation \
        --requirement /locks/late.txt
# exllamav2's wheel compiles its extension at the first import, which the runtime has no nvcc for: import it
# here, and put the extension where exllamav2 looks first.
RUN TORCH_EXTENSIONS_DIR=/extensions /opt/ephemeralml/bin/python -c 'import exllamav2' \
    && install -m 0644 /extensions/exllamav2_ext/exllamav2_ext.so \
        "$(/opt/ephemeralml/bin/python -c 'import sysconfig; print(sysconfig.get_path("platlib"))')"
COPY . /src
RUN /opt/ephemeralml/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel /src \
    && /opt/ephemeralml/bin/pip install --no-deps --no-index /wheel/*.whl \
    && /opt/ephemeralml/bin/python -m pip uninstall --yes pip hatchling \
    && find /opt/ephemeralml -name '__pycache__' -type d -prune -exec rm -rf {} + \
    && find /opt/ephemeralml -newermt "@${SOURCE_DATE_EPOCH}" -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +

FROM ${BASE_CUDA_RUNTIME}
ARG REVISION
LABEL org.opencontainers.image.title="ephemeralml worker (GPU)" \
      org.opencontainers.image.description="Attested inference worker on exllamav2" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
SHELL ["/bin/bash", "-eu", "-o", "pipefail", "-c"]
# hadolint ignore=DL3041
RUN dnf install --assumeyes --setopt=install_weak_deps=False python3.11 && dnf clean all \
    && rm -rf /var/log/* /var/cache/* && rpm -qa | sort > /packages.txt
ENV PATH=/opt/ephemeralml/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
COPY --from=build /opt/ephemeralml /opt/ephemeralml
USER 10001:10001
WORKDIR /tmp
STOPSIGNAL SIGTERM
CMD ["ephemeralml", "worker"]

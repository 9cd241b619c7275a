# syntax=docker/dockerfile:1
# Google's own fake of Pub/Sub, from Debian's packages, as the tests use it. For the laboratory only.
# Build with deploy/docker/build pubsub-fake.
ARG BASE_DEBIAN

FROM ${BASE_DEBIAN} AS build
# The fake is never released, so Debian's current packages will do.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends golang-go golang-google-cloud-dev \
    && rm -rf /var/lib/apt/lists/*
COPY tests/servers/pstest/main.go /src/main.go
RUN GO111MODULE=off GOPATH=/usr/share/gocode CGO_ENABLED=0 go build -trimpath -ldflags=-buildid= -o /pstest /src/main.go

FROM ${BASE_DEBIAN}
ARG REVISION
LABEL org.opencontainers.image.title="ephemeralml fake of Pub/Sub" \
      org.opencontainers.image.description="pstest for the laboratory" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /pstest /usr/local/bin/pstest
USER 10001:10001
STOPSIGNAL SIGTERM
CMD ["pstest"]

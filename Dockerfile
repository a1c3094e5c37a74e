# All programs, for any Linux on x86-64 with glibc 2.31 or newer (Debian 11, Ubuntu 20.04, RHEL 9):
#
#   docker build --target release --output dist .
#
# An image with them, the pipelines and make:
#
#   docker build -t s4l .
#   docker run --rm -v "$PWD:/data" s4l s4l-shard --in photos --out shards
#   docker run --rm -v "$PWD:/data" s4l make -C /s4l moam_step3 BIN=/usr/local/bin OUT=/data/runs
FROM debian:bullseye AS build
RUN apt-get update && \
    apt-get install -y --no-install-recommends ca-certificates curl gcc git libc6-dev make nasm
COPY . /s4l
RUN make -C /s4l install PREFIX=/release

FROM scratch AS release
COPY --from=build /release /

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends make && rm -rf /var/lib/apt/lists/*
COPY --from=build /release /usr/local
COPY Makefile /s4l/
COPY pipelines /s4l/pipelines
COPY models /s4l/models
WORKDIR /data

#!/usr/bin/env bash
# Builds the image `groove` with a running docker engine. Where its registry cannot be reached, the base is made
# of Debian packages and the binaries are built here instead of in a container.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts=$(pwd)/scripts
command -v docker >/dev/null || "$scripts/packages.sh" docker.io
if ! docker info >/dev/null 2>&1; then
    echo "make image needs a running docker engine: start one (Debian: apt-get install docker.io)" >&2
    exit 1
fi

if docker pull --quiet debian:bookworm-slim >/dev/null 2>&1; then
    DOCKER_BUILDKIT=1 docker build --tag groove .
    exit
fi

echo "no registry: the base is made of Debian packages, the binaries are built here"
"$scripts/packages.sh" mmdebstrap
mmdebstrap --variant=minbase --include=ca-certificates bookworm - | docker import - groove-base:bookworm
cargo build --release --locked --package groove-memcached --package groove-postgres --package groove-http
target=${CARGO_TARGET_DIR:-target}
context=$target/image
mkdir -p "$context"
# Without symbols: they are four fifths of the size.
install --strip "$target"/release/groove-{memcached,postgres,http} "$context/"
DOCKER_BUILDKIT=0 docker build --file Dockerfile --target prebuilt --build-arg BASE=groove-base:bookworm --tag groove "$context"

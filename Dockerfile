# One image with the three binaries: `docker run groove groove-http run --config /etc/groove/config.yaml`.
# `make image` builds it, also where no registry is reached.

ARG BASE=debian:bookworm-slim
ARG BUILDER=rust:1.95-bookworm

# What runs: certificates to trust, and a user without rights.
FROM ${BASE} AS runtime
RUN if [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then \
        apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*; \
    fi \
    && useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin groove
USER groove
WORKDIR /etc/groove
CMD ["groove-http", "--help"]

# With binaries that stand in the context already.
FROM runtime AS prebuilt
COPY groove-memcached groove-postgres groove-http /usr/local/bin/

FROM ${BUILDER} AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked --package groove-memcached --package groove-postgres --package groove-http \
    && strip target/release/groove-memcached target/release/groove-postgres target/release/groove-http

FROM runtime AS groove
COPY --from=build /source/target/release/groove-memcached /source/target/release/groove-postgres \
    /source/target/release/groove-http /usr/local/bin/

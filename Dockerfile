# The image of the agent, from nothing but the source: docker build --tag portside:0.1.0 .
# `cargo xtask image` makes the same image without a container tool.

# Debian 12 has the LLVM of this Rust release, which is what the linker of the eBPF programs is built with.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo xtask setup
RUN agent="$(cargo xtask build --release)" && install --mode=0755 "$agent" /proxy-agent

FROM scratch
LABEL org.opencontainers.image.title="Portside"
LABEL org.opencontainers.image.version="0.1.0"
LABEL org.opencontainers.image.licenses="(Apache-2.0 OR MIT) AND (MIT OR GPL-2.0-only)"
COPY --from=build /proxy-agent /proxy-agent
ENTRYPOINT ["/proxy-agent"]
CMD ["run"]

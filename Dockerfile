# A small image with the one binary in it.
#
#   docker build -t chronos .
#   docker run -p 8000:8000 -p 9000:9000 -v chronos:/data chronos

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --profile dist --bin chronos

FROM debian:bookworm-slim
RUN useradd --system --home-dir /data --shell /usr/sbin/nologin chronos \
    && install -d -o chronos -g chronos /data
COPY --from=build /src/target/dist/chronos /usr/local/bin/chronos
USER chronos
VOLUME /data
# gRPC and HTTP.
EXPOSE 8000 9000
# SIGTERM hands leadership over, flushes, and ends within 5 s.
STOPSIGNAL SIGTERM
# Needs no token, and fails where statements cannot be answered: no leader, a new disk, a log that is fetched again.
HEALTHCHECK --interval=5s --timeout=2s --start-period=10s CMD ["chronos", "admin", "ready", "--leader", "127.0.0.1:8000"]
ENTRYPOINT ["chronos"]
CMD ["node", "--data-dir", "/data", "--address", "0.0.0.0:8000"]

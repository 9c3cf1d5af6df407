# The service. docs/operations.md, "In a container", says how it is run; compose.yaml runs it with PostgreSQL.
# BASE has Python 3.11 or later; BUILD_BASE, if it is another one, the same Python, and where pip finds packages.
ARG BASE=python:3.13-slim
ARG BUILD_BASE=${BASE}

FROM ${BUILD_BASE} AS build
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY journal journal
COPY sql sql
RUN python3 -m venv /opt/journal \
 && /opt/journal/bin/pip install --no-cache-dir . \
 && /opt/journal/bin/pip uninstall --yes pip setuptools

FROM ${BASE}
COPY --from=build /opt/journal /opt/journal
# The one place that it writes to: the spool, and what else is too large for memory.
RUN mkdir -m 0700 /data && chown 10001:10001 /data
ENV PATH=/opt/journal/bin:$PATH \
    JOURNAL_DATA=/data \
    JOURNAL_HOST=0.0.0.0 \
    TMPDIR=/data \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
VOLUME /data
EXPOSE 8470
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["/opt/journal/bin/python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8470/healthz', timeout=4)"]
ENTRYPOINT ["journal"]
CMD ["serve", "--no-migrate"]

# One image for all functions; FUNCTION_SOURCE says which one a container is (infra/base/functions).
# `make image BASE=…` for another base: any with Python ≥ 3.11 as `python` and Debian's `useradd`.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
ARG UV_VERSION=0.13.9
ENV UV_PROJECT_ENVIRONMENT=/app/.venv \
    UV_PYTHON_DOWNLOADS=never \
    UV_LINK_MODE=copy \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
RUN pip install --no-cache-dir "uv==${UV_VERSION}"

# What changes seldom first: the locked dependencies are a layer of their own.
COPY pyproject.toml uv.lock ./
RUN uv sync --frozen --no-dev --no-install-project --extra kubernetes

COPY README.md LICENSE ./
COPY common common
COPY functions functions
COPY infra infra
COPY rdev rdev
RUN uv sync --frozen --no-dev --extra kubernetes --compile-bytecode
# Layers are written with other times than files had, which would make every .pyc stale and every
# cold start twice as long: these are valid by what they are, whatever the clock says.
RUN .venv/bin/python -m compileall -q -f --invalidation-mode unchecked-hash \
      .venv/lib common functions infra rdev

FROM ${BASE}
LABEL org.opencontainers.image.title="rdev" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /tmp rdev
# Owned by root: a function can read its code and not change it.
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001:10001
EXPOSE 8080
CMD ["python", "-m", "common.entrypoints.serve"]

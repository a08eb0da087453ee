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

# A workspace that commands run in (infra/workspace), built by `--target workspace`. Nothing of rdev
# is in it: tini reaps, since what commands leave behind becomes a child of PID 1.
FROM ${BASE} AS claude
ARG UV_VERSION=0.13.9
ENV UV_PROJECT_ENVIRONMENT=/venv UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy
WORKDIR /lock
RUN pip install --no-cache-dir "uv==${UV_VERSION}"
COPY pyproject.toml uv.lock ./
# The claude of the lock, and not the newest there is on the day of the build.
RUN uv sync --frozen --no-dev --no-install-project --extra claude \
    && cp "$(find /venv -path '*/claude_agent_sdk/_bundled/claude')" /usr/local/bin/claude

FROM ${BASE} AS workspace
LABEL org.opencontainers.image.title="rdev-workspace" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
       ca-certificates curl git jq make openssh-client procps ripgrep tini util-linux \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10002 --user-group --create-home --home-dir /home/claude claude \
    && mkdir /workspace && chown claude:claude /workspace
COPY --from=claude /usr/local/bin/claude /usr/local/bin/claude
ENV HOME=/home/claude
WORKDIR /workspace
USER 10002:10002
ENTRYPOINT ["tini", "-g", "--"]
# TERM reaches all processes of the pod's own group; commands have sessions of their own and are
# ended with the container.
CMD ["sleep", "infinity"]

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

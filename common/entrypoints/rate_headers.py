"""RateLimit headers as the current draft (draft-ietf-httpapi-ratelimit-headers) writes them."""

from __future__ import annotations

import math
from typing import Any

import http_sf


def rate_headers(limit: int, window_s: int, remaining: int, reset_s: float) -> dict[str, str]:
    """`RateLimit-Policy` and `RateLimit`; `reset_s` is rounded up to whole seconds."""
    policy: list[Any] = [("default", {"q": limit, "w": window_s})]
    now: list[Any] = [("default", {"r": max(0, remaining), "t": math.ceil(reset_s)})]
    return {"ratelimit-policy": http_sf.ser(policy), "ratelimit": http_sf.ser(now)}

"""What one claude command cost, out of a result that tells what its session cost.

claude keeps a session's cost in its transcript and goes on from there: in a resumed or forked
session `total_cost_usd` and `modelUsage` hold everything before too (measured with 2.1.330; before
2.1.2xx only when that session was the project's latest). `usage` and `num_turns` are of this one
process. So a command is billed the difference to what its session's last command reported, and
`usage` tells whether claude really went on from there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final

_MODEL_FIELDS: Final = {
    "cost_usd": "costUSD",
    "input_tokens": "inputTokens",
    "output_tokens": "outputTokens",
    "cache_read_tokens": "cacheReadInputTokens",
    "cache_creation_tokens": "cacheCreationInputTokens",
}
_OWN_FIELDS: Final = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)
_COST: Final = "cost_usd"
_TOKENS: Final = tuple(name for name in _MODEL_FIELDS if name != _COST)
_DIGITS: Final = 10  # of a dollar; below that differences of floats are noise
_MOST: Final = 1e15  # no sum of ours could hold more
_LONGEST_NAME: Final = 200

Used = dict[str, float]


@dataclass(frozen=True)
class SessionTotal:
    """A session's cost so far, as claude reported it. `models`: our field names, by model."""

    cost_usd: float = 0.0
    models: dict[str, Used] = field(default_factory=dict)

    @property
    def tokens(self) -> float:
        return sum(n for used in self.models.values() for name, n in used.items() if name != _COST)

    @classmethod
    def stored(cls, value: Any) -> SessionTotal | None:
        """What an outcome's `session_total` holds, None for anything else."""
        if not isinstance(value, dict) or not isinstance(value.get("models"), dict):
            return None
        models = {
            name: {one: number(used.get(one)) for one in _MODEL_FIELDS}
            for name, used in value["models"].items()
            if isinstance(used, dict)
        }
        return cls(number(value.get("cost_usd")), models)


NOTHING: Final = SessionTotal()


def bill(result: dict[str, Any], before: SessionTotal | None) -> dict[str, Any]:
    """The `cost_usd`, `models` and `session_total` of a command's outcome.

    `before` is NOTHING for a new session, None when rdev does not know what it had cost. Then the
    cost is told only where it cannot hold anything older, and is None otherwise: never a guess.
    """
    total = _reported(result)
    if total is None:
        return {"cost_usd": None, "models": None, "session_total": None}
    start = _start(result, total, before)
    return {
        "cost_usd": None if start is None else _less(total.cost_usd, start.cost_usd),
        "models": None if start is None else _own_models(total, start),
        "session_total": {"cost_usd": total.cost_usd, "models": total.models},
    }


def _start(
    result: dict[str, Any], total: SessionTotal, before: SessionTotal | None
) -> SessionTotal | None:
    """Where this command's part of the total begins."""
    own = _own_tokens(result)
    if before is None:
        return NOTHING if total.tokens <= own else None
    return before if _goes_on(total, before, own) else NOTHING


def _goes_on(total: SessionTotal, before: SessionTotal, own: float) -> bool:
    """Whether claude counted on from `before`: then it holds that, and this command on top."""
    if not total.models:  # all there is to go by is the cost
        return total.cost_usd >= before.cost_usd
    return (
        total.cost_usd >= before.cost_usd
        and total.tokens >= before.tokens + own
        and all(
            total.models.get(model, {}).get(name, 0.0) >= earlier
            for model, used in before.models.items()
            for name, earlier in used.items()
        )
    )


def _own_models(total: SessionTotal, start: SessionTotal) -> dict[str, Used]:
    """What each model has done since, those that have done nothing left out."""
    since = {
        model: {
            name: _less(number, start.models.get(model, {}).get(name, 0.0))
            for name, number in used.items()
        }
        for model, used in total.models.items()
    }
    return {model: used for model, used in since.items() if any(used.values())}


def _reported(result: dict[str, Any]) -> SessionTotal | None:
    cost = result.get("total_cost_usd")
    if isinstance(cost, bool) or not isinstance(cost, int | float):
        return None
    reported = result.get("modelUsage")
    models = reported.items() if isinstance(reported, dict) else ()
    return SessionTotal(
        number(cost),
        {
            model: {ours: number(used.get(theirs)) for ours, theirs in _MODEL_FIELDS.items()}
            for model, used in models
            if isinstance(used, dict) and model.isprintable() and len(model) <= _LONGEST_NAME
        },
    )


def _own_tokens(result: dict[str, Any]) -> float:
    usage = result.get("usage")
    return sum(number(usage.get(name)) for name in _OWN_FIELDS) if isinstance(usage, dict) else 0


def _less(number: float, before: float) -> float:
    left = round(float(number) - before, _DIGITS)
    return int(left) if left.is_integer() else left


@dataclass(frozen=True)
class Part:
    """What a command used of one model; of no model in particular when that is None."""

    model: str | None
    cost_usd: float
    tokens: tuple[float, ...]  # input, output, cache read, cache creation


def parts(outcome: dict[str, Any] | None) -> list[Part]:
    """What an outcome says was used, by model; one part where it tells none apart."""
    agent = (outcome or {}).get("agent") or {}
    if agent.get("models"):
        return [
            Part(model, number(used.get(_COST)), tuple(number(used.get(n)) for n in _TOKENS))
            for model, used in agent["models"].items()
        ]
    usage = agent.get("usage") or {}
    return [Part(None, number(agent.get(_COST)), tuple(number(usage.get(n)) for n in _OWN_FIELDS))]


def main_model(outcome: dict[str, Any] | None) -> str | None:
    """The model that most was spent on."""
    return min(parts(outcome), key=lambda p: (-p.cost_usd, -p.tokens[1], p.model or "")).model


def usage_event(outcome: dict[str, Any]) -> dict[str, Any]:
    """The `usage` event of an outcome that has an agent: cost and tokens of this command alone."""
    agent = outcome["agent"]
    used = parts(outcome)
    sums = (int(sum(part.tokens[n] for part in used)) for n in range(len(_TOKENS)))
    return {
        "session_id": agent.get("session_id"),
        "num_turns": agent.get("num_turns"),
        "cost_usd": agent.get(_COST),
        "session_cost_usd": (agent.get("session_total") or {}).get(_COST),
        **dict(zip(_TOKENS, sums, strict=True)),
        "models": agent.get("models"),
    }


def number(value: Any) -> float:
    """A program's number, when it is one that a sum can hold; else 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    return value if math.isfinite(value) and 0 <= value < _MOST else 0.0

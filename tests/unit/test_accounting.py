"""What a command cost, out of what its session cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from common.domain.accounting import NOTHING, SessionTotal, bill, main_model, usage_event

FIXTURES = Path(__file__).parents[1] / "fixtures"


def result(cost: Any, tokens: int, own: int, model: str = "opus", **more: Any) -> dict[str, Any]:
    """A result that tells `tokens` of the session and `own` of this process."""
    used = {"inputTokens": tokens - 1, "outputTokens": 1, "costUSD": cost}
    usage = {"input_tokens": own - 1, "output_tokens": 1}
    return {"total_cost_usd": cost, "modelUsage": {model: used}, "usage": usage} | more


def total(cost: float, tokens: int, model: str = "opus") -> SessionTotal:
    """What the session's last command left behind."""
    before = bill(result(cost, tokens, tokens, model), NOTHING)["session_total"]
    stored = SessionTotal.stored(json.loads(json.dumps(before)))
    assert stored is not None
    return stored


def test_a_new_session_costs_what_claude_says() -> None:
    """Its total is this command's cost, by model too."""
    billed = bill(result(0.5, 100, 100), NOTHING)
    assert billed["cost_usd"] == 0.5
    assert billed["models"]["opus"]["input_tokens"] == 99
    assert billed["session_total"]["cost_usd"] == 0.5


def test_a_resumed_session_is_billed_the_difference() -> None:
    """claude goes on counting; the models of this command are the difference as well."""
    billed = bill(result(0.75, 150, 50), total(0.5, 100))
    assert billed["cost_usd"] == 0.25
    assert billed["models"] == {
        "opus": {
            "cost_usd": 0.25,
            "input_tokens": 50,
            "output_tokens": 0,
            "cache_read_tokens": 0,
            "cache_creation_tokens": 0,
        }
    }
    assert billed["session_total"]["models"]["opus"]["input_tokens"] == 149


def test_a_model_that_did_nothing_now_is_left_out() -> None:
    """What another model did before is in the total alone."""
    resumed = result(0.75, 150, 50, "haiku")
    resumed["modelUsage"]["opus"] = {"inputTokens": 99, "outputTokens": 1, "costUSD": 0.5}
    assert set(bill(resumed, total(0.5, 100))["models"]) == {"haiku"}


@pytest.mark.parametrize(
    ("cost", "tokens"),
    [(0.3, 50), (0.6, 120), (0.6, 149)],
    ids=["less than before", "more, without room for both", "one token short"],
)
def test_a_claude_that_did_not_go_on_counting_is_billed_in_full(cost: float, tokens: int) -> None:
    """Versions that begin anew are told by the tokens that this process used itself."""
    assert bill(result(cost, tokens, 50), total(0.5, 100))["cost_usd"] == cost


def test_a_session_that_rdev_does_not_know_is_not_guessed() -> None:
    """Its cost before is unknown, and so is this command's, unless nothing was before."""
    unknown = bill(result(0.75, 150, 50), None)
    assert (unknown["cost_usd"], unknown["models"]) == (None, None)
    assert unknown["session_total"]["cost_usd"] == 0.75
    assert bill(result(0.25, 50, 50), None)["cost_usd"] == 0.25


def test_a_result_without_tokens_by_model_is_billed_by_its_cost() -> None:
    """A very long result is kept without them."""
    assert bill({"total_cost_usd": 0.75}, total(0.5, 0))["cost_usd"] == 0.25


@pytest.mark.parametrize("cost", [None, "much", True])
def test_a_result_that_tells_no_cost_has_none(cost: Any) -> None:
    """Nothing is made up."""
    nothing = {"cost_usd": None, "models": None, "session_total": None}
    assert bill(result(0, 1, 1) | {"total_cost_usd": cost}, NOTHING) == nothing


def test_what_no_sum_could_hold_counts_as_nothing() -> None:
    """Infinite, negative and huge numbers, and names that are none, are a program's mistake."""
    wrong = result(float("inf"), 2, 2) | {
        "modelUsage": {"a\nb": {}, "opus": {"inputTokens": -5, "costUSD": 1e300}, "x": 3}
    }
    billed = bill(wrong, NOTHING)
    assert billed["cost_usd"] == 0
    assert set(billed["session_total"]["models"]) == {"opus"}
    assert billed["models"] == {}


@pytest.mark.parametrize("stored", [None, {}, {"cost_usd": 1}, {"models": []}])
def test_an_outcome_of_an_older_rdev_has_no_total(stored: Any) -> None:
    """So the command after it is not billed against a guess."""
    assert SessionTotal.stored(stored) is None


def test_the_event_adds_the_models_up() -> None:
    """Tokens of subagents and helpers count too, which `usage` leaves out."""
    outcome = {"agent": bill(result(0.75, 150, 50), total(0.5, 100)) | {"num_turns": 2}}
    event = usage_event(outcome)
    assert (event["cost_usd"], event["session_cost_usd"]) == (0.25, 0.75)
    assert (event["input_tokens"], event["output_tokens"], event["num_turns"]) == (50, 0, 2)
    assert main_model(outcome) == "opus"


def test_captured_results_are_billed_as_they_say() -> None:
    """Every captured run is a session of its own: its cost is the total."""
    seen = 0
    for path in sorted(FIXTURES.glob("claude-*/*.jsonl")):
        for line in map(json.loads, path.read_text().splitlines()):
            if line.get("type") == "result" and line["total_cost_usd"]:
                billed = bill(line, NOTHING)
                assert billed["cost_usd"] == pytest.approx(line["total_cost_usd"])
                costs = [used["cost_usd"] for used in billed["models"].values()]
                assert sum(costs) == pytest.approx(line["total_cost_usd"])
                seen += 1
    assert seen

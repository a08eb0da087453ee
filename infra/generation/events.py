"""The published events: their JSON Schemas, and the page that describes them."""

from __future__ import annotations

import json
import re
from pathlib import PurePosixPath
from typing import Any, Final

from common.entrypoints.models.announcements import EVENTS, EventData, type_of
from common.settings import Settings
from infra.generation.markdown import page, table

SCHEMAS: Final = PurePosixPath("functions/reference/schemas.json")
PAGE: Final = PurePosixPath("docs/reference/events.md")
_NOTE: Final = (
    "by `python -m infra.generate` from common/entrypoints.models.announcements.py: do not edit"
)


def files() -> dict[PurePosixPath, str]:
    """Both, by path."""
    text = json.dumps(schemas(), indent=2, ensure_ascii=False)
    return {
        SCHEMAS: f'{{"x-generated": "{_NOTE}",\n' + text.removeprefix("{\n") + "\n",
        PAGE: _page(),
    }


def schemas() -> dict[str, Any]:
    """The JSON Schema of every type's data, by type."""
    return {type_of(name): _schema(name, model) for name, (model, _) in EVENTS.items()}


def _schema(name: str, model: type[EventData]) -> dict[str, Any]:
    schema: dict[str, Any] = _plain(model.model_json_schema())
    where = f"{Settings.public_url}/schemas/{type_of(name)}.json"
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "$id": where, "title": type_of(name)} | schema


def _plain(value: Any) -> Any:
    """Without pydantic's titles, and with descriptions on one line."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {k: v for k, v in value.items() if k != "title" or not isinstance(v, str)}
    if isinstance(kept.get("description"), str):
        kept["description"] = re.sub(r"\s+", " ", kept["description"])
    return {k: _plain(v) for k, v in kept.items()}


def _page() -> str:
    rows = [
        [f"`{name}`", when, _fields(model), f"`/schemas/{type_of(name)}.json`"]
        for name, (model, when) in EVENTS.items()
    ]
    return page(
        "Events",
        "`common/entrypoints.models.announcements.py`",
        "What rdev publishes: CloudEvents 1.0 in binary mode to the broker, and the same as "
        "[webhooks](../guides/webhooks.md). Each is written in the transaction of what it tells, "
        "and published at least once: it may come twice, late, or out of order, and says so little "
        "that this does no harm. Read the command again when it matters.",
        table(["event", "when", "data", "schema"], rows),
        "## Attributes",
        table(
            ["attribute", "value"],
            [
                ["`id`", "`evt_` and 32 hexadecimal digits; the same each time it is sent"],
                ["`source`", "`/rdev`"],
                ["`type`", f"`{type_of('<event>')}`"],
                ["`subject`", "what it is about, such as `projects/<name>/commands/<id>`"],
                ["`dataschema`", "the schema of its data, below `RDEV_PUBLIC_URL`"],
                ["`traceparent`", "the trace of the request that caused it, when there is one"],
                ["`webhooks`", "`wanted` when a webhook may want to hear it"],
            ],
        ),
        "An event has no output, prompt, script, argument or environment in it, and less than "
        "64 KiB. `command.queued` is also the bell that starts the runner; forged or lost, it "
        "changes nothing but the time.",
    )  # fmt: skip


def _fields(model: type[EventData]) -> str:
    return ", ".join(f"`{name}`" for name in model.model_fields)

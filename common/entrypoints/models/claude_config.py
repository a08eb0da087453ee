"""Bodies and queries of the claude_config function."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from common.domain.claude_config import MOST_FILES, Definition, File, Kind
from common.entrypoints.models.base import Body, Query


def _base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64") from None
    return text


class FileBody(Body):
    """A file that is not plain text, or that can be executed; a text alone is `{"text": …}`."""

    text: str | None = None
    b64: Annotated[str, AfterValidator(_base64)] | None = None
    executable: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.text is None) == (self.b64 is None):
            raise ValueError("give either text or b64")
        return self

    def file(self) -> File:
        data = base64.b64decode(self.b64) if self.b64 is not None else (self.text or "").encode()
        return File(data, self.executable)


Files = Annotated[dict[str, str | FileBody], Field(max_length=MOST_FILES)]


def _files(files: Files) -> dict[str, File]:
    return {
        path: File(given.encode()) if isinstance(given, str) else given.file()
        for path, given in files.items()
    }


class CreateDefinition(Body):
    """`content` is the .md file (of a skill its SKILL.md), `files` a skill's others by path."""

    name: Annotated[str, Field(max_length=400)]
    content: str
    files: Files = Field(default_factory=dict)

    def definition(self, kind: Kind) -> Definition:
        return Definition(kind, self.name, self.content.encode(), _files(self.files))


class UpdateDefinition(Body):
    """`files` left out stay as they are; given, they are all that there will be."""

    content: str
    files: Files | None = None

    def definition(self, kind: Kind, name: str) -> Definition:
        return Definition(kind, name, self.content.encode(), _files(self.files or {}))


class HowStrict(Query):
    # Named as in the API; BaseModel has an old method of that name, which nothing here calls.
    how: Literal["strict", "lenient"] = Field(default="strict", alias="validate")

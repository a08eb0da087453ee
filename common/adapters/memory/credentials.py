"""Credentials in a dict of texts, by project."""

from __future__ import annotations

from common.domain.credentials import Credential, parse


class MemoryCredentials:
    def __init__(self, texts: dict[str, str] | None = None) -> None:
        self.texts = texts or {}

    def of(self, project: str) -> Credential | None:
        """See `Credentials.of`."""
        text = self.texts.get(project)
        return None if text is None else parse(text)

"""Sealer on Fernet (AES-128-CBC with HMAC-SHA256), so that secrets at rest are of no use alone.

The first key of RDEV_SECRET_KEYS seals, all of them open: a new key goes in front, and an old one
is taken out when nothing sealed with it is left.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from common.domain.errors import SecretsUnreadable, Unavailable


class FernetSealer:
    """Seals with the newest key, opens with any. Raises Unavailable without a proper key."""

    def __init__(self, keys: Sequence[str]) -> None:
        if not keys:
            raise Unavailable("RDEV_SECRET_KEYS holds no key, so no secret can be kept")
        try:
            self._keys = MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            raise Unavailable("RDEV_SECRET_KEYS holds what is no Fernet key") from None

    def seal(self, plain: bytes) -> bytes:
        return self._keys.encrypt(plain)

    def unseal(self, sealed: bytes) -> bytes:
        try:
            return self._keys.decrypt(sealed)
        except InvalidToken:
            raise SecretsUnreadable("no key in RDEV_SECRET_KEYS opens this secret") from None

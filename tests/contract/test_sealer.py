"""What the Sealer does: secrets at rest open with any configured key and with no other."""

from __future__ import annotations

import pytest
from cryptography.fernet import Fernet

from common.adapters.fernet import FernetSealer
from common.domain.errors import Unavailable

NEW, OLD = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def test_what_is_sealed_opens_again_and_is_not_readable() -> None:
    """Any bytes come back; the sealed form shows none of them."""
    sealer = FernetSealer([NEW])
    plain = b"hunter2\0\xff"
    assert sealer.unseal(sealer.seal(plain)) == plain
    assert plain not in sealer.seal(plain)


def test_the_newest_key_seals_and_older_ones_open() -> None:
    """A key put in front rotates: old secrets open, new ones need the new key."""
    before = FernetSealer([OLD]).seal(b"x")
    rotated = FernetSealer([NEW, OLD])
    assert rotated.unseal(before) == b"x"
    assert FernetSealer([NEW]).unseal(rotated.seal(b"y")) == b"y"


def test_an_unknown_key_is_our_trouble() -> None:
    """A secret no configured key opens is Unavailable, and nothing of it is shown."""
    with pytest.raises(Unavailable):
        FernetSealer([NEW]).unseal(FernetSealer([OLD]).seal(b"x"))
    with pytest.raises(Unavailable):
        FernetSealer([NEW]).unseal(b"not sealed at all")


@pytest.mark.parametrize("keys", [[], ["no key"]])
def test_keys_that_are_none_are_refused(keys: list[str]) -> None:
    """A process without a proper key does not start to keep secrets."""
    with pytest.raises(Unavailable, match="RDEV_SECRET_KEYS"):
        FernetSealer(keys)

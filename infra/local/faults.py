"""A broker that misbehaves on purpose: events dropped, doubled, reordered, delayed, by a seed.

`RDEV_BROKER_FAULTS="seed=7,drop=0.1,double=0.1,reorder=0.1,delay=0.05"`: each number is the share
of deliveries that it happens to. The same seed and order of events give the same faults.
"""

import random
from dataclasses import dataclass, fields
from typing import Self

_REORDER_S = 0.2  # long enough for what was published later to overtake
_DELAY_S = 5.0


class FaultsError(ValueError):
    """Wrong settings for the fault mode."""


@dataclass
class Faults:
    """Shares from 0 to 1, and the seed that decides whom they hit."""

    seed: int = 0
    drop: float = 0.0
    double: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `name=value` pairs, comma-separated; raise FaultsError."""
        known = {field.name for field in fields(cls)}
        chosen: dict[str, float] = {}
        for pair in filter(None, text.split(",")):
            name, _, number = (part.strip() for part in pair.partition("="))
            if name not in known:
                raise FaultsError(f"RDEV_BROKER_FAULTS: {name!r} is none of {', '.join(known)}")
            try:
                chosen[name] = float(number)
            except ValueError:
                raise FaultsError(f"RDEV_BROKER_FAULTS: {pair!r} is not NAME=NUMBER") from None
        seed = int(chosen.pop("seed", 0))
        return cls(seed, **chosen)

    def fates(self) -> list[float]:
        """Return how late (in seconds) each copy of one delivery is sent; none if it is lost."""
        if self._happens(self.drop):
            return []
        copies = 2 if self._happens(self.double) else 1
        return [self._lateness() for _ in range(copies)]

    def _lateness(self) -> float:
        late = _REORDER_S * self._random.random() if self._happens(self.reorder) else 0.0
        return late + (_DELAY_S * self._random.random() if self._happens(self.delay) else 0.0)

    def _happens(self, share: float) -> bool:
        return self._random.random() < share

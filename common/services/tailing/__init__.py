"""Following commands and projects as they happen: one reader per process, however many follow."""

from common.services.tailing.subscription import Subscription
from common.services.tailing.tailer import Ended, Pace, Tailer

__all__ = ["Ended", "Pace", "Subscription", "Tailer"]

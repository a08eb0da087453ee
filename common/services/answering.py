"""Part of following: claude's permission requests go out of its output, the answers into its stdin.

Every step may be the last one of this process. So a request is stored before the line that made it
counts as read, an answer before it is sent, and all that is sent has its place in the input: what
an adopter does again changes nothing.
"""

from __future__ import annotations

import threading
from typing import Any, Final
from uuid import UUID

from common.domain import approval
from common.domain.approval import Asked, Refused
from common.domain.errors import Unavailable
from common.domain.workspace import (
    OffsetBeyondEnd,
    Place,
    RunAbsent,
    WorkspaceError,
    WorkspaceGone,
)
from common.ports.approvals import Approvals, Inbox
from common.ports.queue import HEARTBEAT_S, LeaseLost
from common.ports.workspace import Workspace
from common.services import telemetry

AGAIN_S: Final = 0.5  # after trouble with the database or the workspace
_OVER: Final = (RunAbsent, WorkspaceGone)  # nobody reads the input any more

log = telemetry.logger("rdev.answering")


class Answering:
    """The input of one run that asks; `base` is how many bytes of it the start has brought."""

    def __init__(
        self,
        approvals: Approvals,
        workspace: Workspace,
        place: Place,
        run: str,
        command_id: UUID,
        token: int,
        base: int,
        wait_s: int,
    ) -> None:
        self._approvals = approvals
        self._workspace = workspace
        self._place = place
        self._run = run
        self._id = command_id
        self._token = token
        self._base = base
        self._wait_s = wait_s
        self._changed = threading.Condition()
        self._news = True
        self._closed = False
        self._at_rest = False
        name = f"answer-{command_id.hex[-8:]}"
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def asked(self, line: dict[str, Any]) -> None:
        """claude has asked; called before the line is stored. Raises LeaseLost, Unavailable."""
        request = approval.read(line)
        if isinstance(request, Asked):
            self._approvals.ask(self._id, self._token, request, self._wait_s)
        elif isinstance(request, Refused):
            self._approvals.answer(self._id, self._token, request.request_id, request.reply)
        else:
            log.warning("a request without an id", command_id=str(self._id))
        self.wake()

    def wake(self) -> None:
        """There may be something to send; called from any thread."""
        with self._changed:
            self._news = True
            self._changed.notify_all()

    def rest(self) -> None:
        """claude has said its last word: its input ends, so that it does."""
        with self._changed:
            if not self._at_rest:
                self._at_rest = self._news = True
                self._changed.notify_all()

    def close(self) -> None:
        """The run has ended, or this process does not follow it any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        pause: float | None = None
        while self._waited(pause):
            try:
                pause = self._round()
            except (LeaseLost, *_OVER):
                return
            except OffsetBeyondEnd as error:  # it was closed, or others write there too
                log.warning("input refused", command_id=str(self._id), detail=str(error))
                return
            except (Unavailable, WorkspaceError) as error:
                log.warning("not answered yet", command_id=str(self._id), detail=str(error))
                pause = AGAIN_S
            except Exception as error:  # a bug; without us claude would wait for ever
                telemetry.invariant_violation.add(1, {"name": "answering_crashed"})
                log.error("answering failed", command_id=str(self._id), exc_info=error)
                pause = AGAIN_S

    def _waited(self, pause: float | None) -> bool:
        """False when it is over; True when there is news or `pause` has gone by."""
        with self._changed:
            self._changed.wait_for(lambda: self._news or self._closed, timeout=pause)
            self._news = False
            return not self._closed

    def _round(self) -> float | None:
        """Do what there is to do; seconds until there may be more without anybody saying so."""
        at_rest = self._at_rest
        inbox = self._approvals.inbox(self._id)
        for request_id in inbox.overdue:
            reply = approval.expire(request_id)
            self._approvals.expire(self._id, self._token, request_id, reply)
        if inbox.overdue:
            inbox = self._approvals.inbox(self._id)
        end = self._send(inbox)
        if at_rest:
            self._workspace.send(self._place, self._run, end, b"", last=True)
        # A decision wakes us; that it may be lost on its way is what the heartbeat stands behind.
        return None if inbox.next_s is None else min(inbox.next_s, HEARTBEAT_S)

    def _send(self, inbox: Inbox) -> int:
        """Send what was not sent; where the input ends then."""
        end = self._base
        for piece in inbox.pieces:
            if piece.data is not None:
                self._workspace.send(self._place, self._run, end, piece.data)
                self._approvals.sent(self._id, piece.number)
            end += piece.size
        return end

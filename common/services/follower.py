"""Use case: follow one command from its claim (or adoption) to its end.

A follower is a thread that owns a lease. It starts the run or attaches to it, reads its streams
from the stored offsets, appends what it reads, and finishes the command when the workspace has said
how it ended. It may be killed at any instruction: whoever adopts the command does the same again,
and nothing runs twice because the run's directory is claimed once.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, TypeVar, cast

from common.domain import mcp
from common.domain.accounting import NOTHING, SessionTotal, bill, usage_event
from common.domain.agent import AgentLines, is_request
from common.domain.command import Kind, Reason, State
from common.domain.credentials import BadCredential, Credential
from common.domain.errors import SecretsUnreadable, Unavailable
from common.domain.events import TRUNCATED, USAGE, NewEvent
from common.domain.launch import asks, job_for, prompt, run_id
from common.domain.outcome import EMPTY_SHA256, RESULT_SEEN, Conclusion, conclude, lost, never_ran
from common.domain.workspace import (
    ExitRecord,
    KillMode,
    OffsetBeyondEnd,
    Place,
    RunAbsent,
    RunState,
    RunStatus,
    StartRefused,
    Stream,
    StreamTotal,
    Superseded,
    TransportLost,
    WorkspaceError,
    WorkspaceGone,
)
from common.ports.approvals import Approvals
from common.ports.credentials import Credentials
from common.ports.queue import Claim, LeaseLost, Queue
from common.ports.sealer import Sealer
from common.ports.workspace import Output, Workspace
from common.services import telemetry
from common.services.answering import Answering
from common.services.ingest import Cutter, Ingest
from common.services.relay import Relay
from common.services.wakeups import Wakeups

READ_BYTES: Final = 256 * 1024
REHASH_BYTES: Final = 16 * 1024 * 1024  # larger streams are checked by size alone
LINGER_S: Final = 10.0  # that a claude may take to exit after its result
KEY_COMES_S: Final = 60.0  # a rollout brings keys to all processes, but not at once
RETRY_S: Final = (0.1, 5.0)  # first and longest pause while a workspace or the database is away
# kubelet tells the API server of a restarted container within about a second.
WHY_S: Final = 3.0
WHY_AGAIN_S: Final = 0.2

T = TypeVar("T")
log = telemetry.logger("rdev.follower")


def place_of(claim: Claim) -> Place:
    """Where the command of a claim runs."""
    project = claim.project
    return Place(
        project=project.name,
        path=project.workspace,
        namespace=project.namespace or "",
        pod=project.pod or "",
        pod_uid=claim.pod_uid or "",
        container=project.container or "",
    )


class Stopped(Exception):
    """This process stops: the command goes to another runner."""


class Follower:
    """One command under this runner's lease."""

    def __init__(
        self,
        claim: Claim,
        queue: Queue,
        workspace: Workspace,
        sealer: Sealer,
        credentials: Credentials,
        relay: Relay,
        wakeups: Wakeups,
        output_cap: int,
        keep_runs_s: int = 24 * 3600,
        approvals: Approvals | None = None,
        approval_s: int = 900,
    ) -> None:
        self.claim = claim
        self.command = claim.command
        self.token = claim.token
        self.place = place_of(claim)
        self.run = run_id(claim.command.id)
        self._queue = queue
        self._workspace = workspace
        self._sealer = sealer
        self._credentials = credentials
        self._relay = relay
        self._wakeups = wakeups
        self._cap = output_cap
        self._keep_runs_s = keep_runs_s
        self._approvals = approvals
        self._approval_s = approval_s
        self._answering: Answering | None = None
        self._stop = threading.Event()
        self._cancel_lock = threading.Lock()
        self._cancel: tuple[str, str] | None = None
        self._killed: str | None = None
        self._gone = Reason.WORKSPACE_GONE  # why, when the workspace has ended
        self._launched = False
        self._unsure = False  # a start of ours was lost on its way and may still arrive
        self._began = time.monotonic()
        self._pause = RETRY_S[0]
        self._ingest: Ingest | None = None
        self._outputs: list[Output] = []
        self._lines: AgentLines | None = None
        self._resting: threading.Timer | None = None
        self._ended_early = False
        if claim.cancel_mode:
            self._cancel = (claim.cancel_mode, claim.cancel_reason or Reason.USER)

    # -- what others ask of a follower -------------------------------------------------------

    def stop(self) -> None:
        """Stop following; the run goes on and so does its lease until it is released."""
        self._stop.set()
        if self._ingest is not None:
            self._ingest.abort()
        for output in list(self._outputs):
            output.close()

    def cancel(self, mode: str, reason: str) -> None:
        """End the run; called from any thread, as often as somebody asks."""
        with self._cancel_lock:
            self._cancel = (mode, reason)
            if not self._launched or self._killed in {mode, "force"}:
                return
            self._killed = mode
        threading.Thread(target=self._kill, args=(mode, reason), daemon=True).start()

    def news(self) -> None:
        """Somebody may have decided what claude asked; called from any thread."""
        if (answering := self._answering) is not None:
            answering.wake()

    def tidy(self) -> None:
        """Let the workspace remove runs that ended long ago; it matters to nobody when it fails."""
        try:
            self._workspace.gc(self.place, self._keep_runs_s)
        except WorkspaceError as error:
            log.warning("old runs not removed", project=self.place.project, detail=str(error))

    # -- the life of a command -----------------------------------------------------------------

    def follow(self) -> bool:
        """Run to the end. True: the command ended; False: it is somebody else's now."""
        try:
            while True:
                try:
                    self._once()
                    return True
                except Unavailable as error:
                    log.warning("database away, following resumes", detail=error.detail)
                    self._reload()
        except (LeaseLost, Stopped) as gone:
            if isinstance(gone, LeaseLost):
                telemetry.lease_fenced.add(1)
            return False
        finally:
            self._close_outputs()
            self._wakeups.forget(self.command.id)

    def _reload(self) -> None:
        """After database trouble: what was stored is known only to the database, so ask it.

        Slower each time: a full disk may refuse every append while it answers every question.
        """
        self._close_outputs()
        self._stop.wait(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(RETRY_S[1], self._pause * 2)
        self.claim = self._patiently(lambda: self._queue.held(self.command.id, self.token))
        self.command = self.claim.command

    def _once(self) -> None:
        status, first = self._patiently(self._enter_or_gone)
        self._finish(self._settle(status, first))

    def _enter_or_gone(self) -> tuple[RunStatus, Output | None]:
        try:
            return self._enter()
        except WorkspaceGone as gone:
            return self._absent(gone), None

    def _absent(self, gone: WorkspaceGone) -> RunStatus:
        """What the run was in has ended: it cannot be asked, and cannot run any more."""
        self._gone = gone.reason
        log.warning("workspace gone", command_id=str(self.command.id), detail=str(gone))
        return RunStatus(RunState.ABSENT)

    def _enter(self) -> tuple[RunStatus, Output | None]:
        """Start the run, or find what became of it."""
        if self.command.started_at is not None:
            return self._workspace.status(self.place, self.run), None
        if self._cancel is not None and self._workspace.refuse(self.place, self.run):
            return RunStatus(RunState.REFUSED), None
        if self._cancel is not None:
            return self._workspace.status(self.place, self.run), None
        return self._start()

    def _start(self) -> tuple[RunStatus, Output | None]:
        sealed = self.claim.sealed_env
        try:
            env, mcp_secrets = mcp.unpack(self._sealer.unseal(sealed) if sealed else b"")
        except SecretsUnreadable as error:
            if time.monotonic() - self._began < KEY_COMES_S:
                raise
            return self._refused(StartRefused("secrets_unreadable", error.detail)), None
        with telemetry.span(
            "rdev.exec.start",
            parent=self.command.traceparent,
            rdev__command__id=str(self.command.id),
            rdev__command__kind=str(self.command.kind),
            rdev__project__id=self.command.project,
        ):
            try:
                job = job_for(
                    self.command,
                    env,
                    self._cap,
                    mcp_secrets,
                    self._approval_s,
                    self._credential(),
                )
            except BadCredential as error:
                said = f"the credential of project {self.command.project}: {error}"
                return self._refused(StartRefused("bad_credential", said)), None
            except ValueError as error:  # nobody could ever start it
                return self._refused(StartRefused("bad_job", str(error))), None
            try:
                begun = self._workspace.start(self.place, job)
            except StartRefused as error:
                return self._refused(error), None
            except TransportLost:
                self._unsure = True
                raise
        if begun.output is not None:
            self._outputs.append(begun.output)
        return begun.status, begun.output

    def _credential(self) -> Credential | None:
        claude = self.command.kind is Kind.CLAUDE
        return self._credentials.of(self.command.project) if claude else None

    def _refused(self, error: StartRefused) -> RunStatus:
        """Nothing was claimed by this call. An earlier one may be on its way: leave a tombstone."""
        earlier = self.token > 1 or self._unsure
        if earlier and not self._workspace.refuse(self.place, self.run):
            return self._workspace.status(self.place, self.run)
        nothing = StreamTotal(0, EMPTY_SHA256)
        record = ExitRecord("start_failed", None, None, nothing, nothing, detail=str(error))
        return RunStatus(RunState.DONE, record)

    def _settle(self, status: RunStatus, first: Output | None) -> Conclusion:
        """From the run's state now to its conclusion, following it as long as it lives."""
        if status.state is RunState.REFUSED:
            return self._never_ran()
        if status.state is RunState.ABSENT:
            return self._lost(self._why_lost(self._gone))
        if status.exit is not None and status.exit.reason == "start_failed":
            return conclude(self.command.kind, status.exit, None, separate=self._separate)
        final = self._pump(first)
        if final.exit is not None:
            return self._concluded(final.exit)
        if final.state is RunState.REFUSED:
            return self._never_ran()
        gone = final.state is RunState.ABSENT
        return self._lost(self._why_lost(self._gone if gone else Reason.SUPERVISOR))

    def _never_ran(self) -> Conclusion:
        """A tombstone: of a cancel, or of a predecessor whose start was refused."""
        if self._cancel is None:
            return Conclusion(State.FAILED, never_ran(Reason.START_FAILED))
        return Conclusion(State.CANCELLED, never_ran(Reason(self._cancel[1])))

    def _launched_now(self) -> None:
        if self.command.started_at is None:
            event = self._queue.mark_running(self.command.id, self.token)
            self._wakeups.state(self.command.id, self.command.project)
            self._relay.presently(event)
        with self._cancel_lock:
            self._launched = True
            asked = self._cancel
        if asked is not None:
            self.cancel(*asked)

    # -- reading and writing -------------------------------------------------------------------

    def _pump(self, first: Output | None) -> RunStatus:
        """Copy the streams into events until the run ended; answers its final status."""
        ingest = self._ingest = self._new_ingest()
        if self._stop.is_set():
            ingest.abort()
        finals: list[RunStatus] = []
        failures: list[BaseException] = []
        readers = [
            threading.Thread(
                target=self._read, args=(stream, output, ingest, finals, failures), daemon=True
            )
            for stream, output in self._sources(first)
        ]
        for reader in readers:  # they read while `running` is being written
            reader.start()
        try:
            self._launched_now()
            self._answer()
            self._mind(ingest)
            while (events := ingest.batch()) is not None:
                self._take(events)
                self._mind(ingest)
        finally:
            ingest.abort()
            self._wake()
            if self._answering is not None:
                self._answering.close()
            self._close_outputs()
            for reader in readers:
                reader.join()
        if failures:
            raise failures[0]
        if self._stop.is_set() or not finals:
            raise Stopped
        return finals[-1]

    def _new_ingest(self) -> Ingest:
        offsets = self.claim.offsets
        self._ended_early = False
        if not self._separate:
            return Ingest({"merged": Cutter("merged", offsets.get("merged", 0))})
        out: Cutter | AgentLines = Cutter("stdout", offsets.get("stdout", 0))
        if self.command.kind is Kind.CLAUDE:
            stored = offsets.get("stdout", 0)
            known = self._queue.agent_state(self.command.id) if stored else None
            out = self._lines = AgentLines(stored, known)
        return Ingest({"stdout": out, "stderr": Cutter("stderr", offsets.get("stderr", 0))})

    @property
    def _separate(self) -> bool:
        return self.command.kind is Kind.CLAUDE or self.command.spec.get("streams") == "separate"

    def _sources(self, first: Output | None) -> list[tuple[Stream, Output | None]]:
        names = ("stdout", "stderr") if self._separate else ("merged",)
        return [(cast(Stream, name), first if name != "stderr" else None) for name in names]

    def _read(
        self,
        stream: Stream,
        output: Output | None,
        ingest: Ingest,
        finals: list[RunStatus],
        failures: list[BaseException],
    ) -> None:
        """A reader's thread: its stream's end, or what kept it from there."""
        try:
            final = self._drain(stream, output, ingest)
            if final is not None:
                finals.append(final)
                ingest.close(stream)
                return
        except BaseException as error:  # carried to the follower's thread, which raises it
            failures.append(error)
        ingest.abort()

    def _drain(self, stream: Stream, output: Output | None, ingest: Ingest) -> RunStatus | None:
        """From the stored offset to the end, over as many connections as it takes."""
        offset = ingest.start(stream)
        while not ingest.aborted:
            try:
                if output is None:
                    output = self._open(stream, offset, ingest)
                while data := output.read(READ_BYTES):
                    ingest.put(stream, data)
                    offset += len(data)
                if output.status is not None:
                    return output.status
            except RunAbsent:
                return RunStatus(RunState.ABSENT)
            except WorkspaceGone as gone:  # what was read of it is kept
                return self._absent(gone)
            except OffsetBeyondEnd:  # the spool shrank: what runs there cannot be followed
                self._patiently(self._kill_hard)
                return RunStatus(RunState.LOST)
            except Superseded:  # by our adopter, or by a predecessor that does not know yet
                self._queue.held(self.command.id, self.token)
            except WorkspaceError as error:
                telemetry.exec_reattach.add(1, {"reason": type(error).__name__})
            if output is not None:
                output.close()
                output = None
            self._stop.wait(RETRY_S[0])
        return None

    def _open(self, stream: Stream, offset: int, ingest: Ingest) -> Output:
        output = self._workspace.follow(self.place, self.run, stream, offset)
        self._outputs.append(output)
        if ingest.aborted:
            output.close()
        return output

    def _answer(self) -> None:
        """From now on what claude asks is answered, where it may ask."""
        if self._approvals is None or not asks(self.command):
            return
        self._answering = Answering(
            self._approvals,
            self._workspace,
            self.place,
            self.run,
            self.command.id,
            self.token,
            len(prompt(self.command)),
            self._approval_s,
        )
        self._answering.start()

    def _take(self, events: list[NewEvent]) -> None:
        """Append what was read; a request among it is stored before its line counts as read."""
        if self._answering is None or self._lines is None:
            return self._append(events)
        waiting: list[NewEvent] = []
        for event in events:
            if is_request(event):
                if waiting:
                    self._append(waiting)
                self._answering.asked(self._lines.requests.popleft())
                waiting = []
            waiting.append(event)
        self._append(waiting)
        return None

    def _append(self, events: list[NewEvent]) -> None:
        mode = self._queue.append(self.command.id, self.token, events)
        self._pause = RETRY_S[0]
        self._wakeups.news(self.command.id, self.command.project)
        size = sum(len(e.data) for e in events)
        telemetry.output_bytes.add(size)
        telemetry.output_chunks.add(len(events))
        if mode and self._cancel is None:
            self.cancel(mode, Reason.SHUTDOWN if mode == "shutdown" else Reason.USER)

    # -- claude, which may be at its end without ending ------------------------------------------

    def _mind(self, ingest: Ingest) -> None:
        """End a claude that can come to nothing more, as far as what was stored tells."""
        lines = self._lines
        if lines is None:
            return
        if lines.init is not None and self._unconnected():  # before it costs anything
            self._end_early(Reason.MCP_FAILED, ingest)
        if lines.at_rest and self._answering is not None:
            self._answering.rest()
        if not lines.at_rest:
            self._wake()
        elif self._resting is None:
            # Known to hang after its result (claude-code#25629); its exit takes a second at most.
            self._resting = threading.Timer(LINGER_S, self._end_early, (RESULT_SEEN, ingest))
            self._resting.daemon = True
            self._resting.start()

    def _wake(self) -> None:
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None

    def _end_early(self, reason: str, ingest: Ingest) -> None:
        with self._cancel_lock:
            if self._ended_early:
                return
            self._ended_early = True
        threading.Thread(target=self._insist, args=(reason, ingest), daemon=True).start()

    def _insist(self, reason: str, ingest: Ingest) -> None:
        """Kill until it got through: nobody else asks again. (An adopter comes to it by itself.)"""
        while not ingest.aborted:
            try:
                # INT lets a claude that works end its tools; one that is done needs no such time.
                working = reason != RESULT_SEEN
                mode = KillMode.GRACEFUL if working else KillMode.SHUTDOWN
                self._workspace.kill(
                    self.place, self.run, mode, str(reason), interrupt_first=working
                )
                return
            except WorkspaceError as error:
                log.warning("kill did not get through", detail=str(error))
            self._stop.wait(RETRY_S[1])

    def _close_outputs(self) -> None:
        for output in self._outputs:
            output.close()
        self._outputs = []

    # -- the end -------------------------------------------------------------------------------

    def _concluded(self, record: ExitRecord) -> Conclusion:
        stored = self._queue.held(self.command.id, self.token).offsets
        main = "stdout" if self._separate else "merged"
        totals = {main: record.stdout} | ({"stderr": record.stderr} if self._separate else {})
        for stream, total in totals.items():
            whole = stored.get(stream, 0) == total.size
            if whole and 0 < total.size <= REHASH_BYTES:
                whole = self._queue.stored_digest(self.command.id, stream) == total.sha256
            if not whole:
                telemetry.invariant_violation.add(1, {"name": "output_mismatch"})
                return self._lost(Reason.OUTPUT_MISMATCH)
        result = self._lines.result if self._lines else None
        end = conclude(
            self.command.kind,
            record,
            result,
            separate=self._separate,
            unconnected=self._unconnected(),
        )
        return end if result is None else self._billed(end, result)

    def _billed(self, end: Conclusion, result: dict[str, object]) -> Conclusion:
        """With what this command alone has cost, and the event that says so."""
        agent = end.outcome["agent"] | bill(result, self._spent_before())
        outcome = end.outcome | {"agent": agent}
        used = NewEvent.of(USAGE, usage_event(outcome))
        return replace(end, outcome=outcome, said=(*end.said, used))

    def _spent_before(self) -> SessionTotal | None:
        """What the session had cost when this command came; None: rdev does not know."""
        session = self.command.spec.get("session") or {}
        return self._queue.session_total(self.command.id) if session.get("id") else NOTHING

    def _unconnected(self) -> list[str]:
        if self._lines is None:
            return []
        return mcp.unconnected(self.command.spec.get("options") or {}, self._lines.init)

    def _lost(self, reason: Reason) -> Conclusion:
        stored = self._queue.held(self.command.id, self.token).offsets
        digests = {s: self._queue.stored_digest(self.command.id, s) for s in stored}
        return lost(reason, stored, digests)

    def _why_lost(self, seen: Reason) -> Reason:
        """A container that was started anew has a lost run in it before its pod says so: ask on."""
        if not self.place.pod_uid or seen in (Reason.POD_DELETED, Reason.POD_RESTARTED):
            return seen
        ends = time.monotonic() + WHY_S
        while time.monotonic() < ends and not self._stop.is_set():
            try:
                self._workspace.verify(self.place)
            except WorkspaceGone as gone:
                return gone.reason
            except WorkspaceError as error:
                log.warning("reason not known yet", detail=str(error))
            self._stop.wait(WHY_AGAIN_S)
        return seen

    def _finish(self, end: Conclusion) -> None:
        event = self._queue.finish(self.command.id, self.token, end.state, end.outcome, end.said)
        telemetry.output_truncated.add(sum(event.type == TRUNCATED for event in end.said))
        self._wakeups.state(self.command.id, self.command.project)
        self._relay.soon(event)
        attributes = {"kind": str(self.command.kind), "outcome": str(end.state)}
        telemetry.finished.add(1, attributes)
        log.info(
            "command ended",
            command_id=str(self.command.id),
            project=self.command.project,
            outcome=str(end.state),
            reason=end.outcome["reason"],
        )

    # -- trouble -------------------------------------------------------------------------------

    def _kill(self, mode: str, reason: str) -> None:
        try:
            self._workspace.kill(
                self.place,
                self.run,
                KillMode(mode),
                str(reason),
                interrupt_first=self.command.kind is Kind.CLAUDE and mode == "graceful",
            )
        except WorkspaceError as error:
            # The heartbeat asks again in 3 s; the command stays `cancelling` until then.
            with self._cancel_lock:
                self._killed = None
            log.warning("kill did not get through", detail=str(error))

    def _kill_hard(self) -> RunStatus:
        return self._workspace.kill(self.place, self.run, KillMode.FORCE, "supervisor")

    def _patiently(self, attempt: Callable[[], T]) -> T:
        """Repeat while the workspace or the database is away; the lease says when to give up."""
        pause, longest = RETRY_S
        while True:
            if self._stop.is_set():
                raise Stopped
            try:
                return attempt()
            except (WorkspaceError, Unavailable) as error:
                log.warning("asked again", err_type=type(error).__name__, detail=str(error))
            self._stop.wait(pause * random.uniform(0.5, 1.0))
            pause = min(longest, pause * 2)

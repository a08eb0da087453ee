"""The composition root: the only place where adapters are chosen and services are wired.

Everything is built on first use, so a function imports only what it needs: one that never touches a
workspace never imports a transport, one that never publishes never imports an HTTP client. Tests
enter by the same door with `App(settings, ports)`.
"""

from __future__ import annotations

import asyncio
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

from common.settings import Settings, settings

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from uuid import UUID

    from common.domain.command import Command
    from common.ports.approvals import Approvals
    from common.ports.audit import AuditLog
    from common.ports.claude_files import ClaudeFiles
    from common.ports.commands import CommandStore
    from common.ports.credentials import Credentials
    from common.ports.dead_letters import DeadLetters
    from common.ports.dependencies import Dependencies
    from common.ports.discovery import Cluster, DiscoveryStore
    from common.ports.events import EventReader
    from common.ports.keys import KeyStore
    from common.ports.outbox import Outbox, Publisher, RunnerBell
    from common.ports.oversight import Oversight
    from common.ports.projects import ProjectSource, ProjectStore
    from common.ports.queue import Claim, Queue
    from common.ports.sealer import Sealer
    from common.ports.sessions import SessionStore
    from common.ports.signals import Signals
    from common.ports.status import SystemStatus
    from common.ports.transport import Transport
    from common.ports.triggers import TriggerStore
    from common.ports.upkeep import Upkeep
    from common.ports.webhooks import Courier, DeliveryQueue, SenderBell, WebhookStore
    from common.ports.workspace import Workspace
    from common.services.approve import Approve
    from common.services.authorise import Authorise
    from common.services.breaker import SharedBreakers
    from common.services.bury import Bury
    from common.services.cancel import Cancel
    from common.services.discover import Discover
    from common.services.fan_out import FanOut
    from common.services.follower import Follower
    from common.services.health import Health
    from common.services.manage_claude_config import ManageClaudeConfig
    from common.services.manage_keys import ManageKeys
    from common.services.manage_triggers import ManageTriggers
    from common.services.manage_webhooks import ManageWebhooks
    from common.services.oversee import Oversee
    from common.services.prepare_command import PrepareCommand
    from common.services.presence import Presence
    from common.services.read_audit import ReadAudit
    from common.services.read_commands import ReadCommands
    from common.services.read_dead_letters import ReadDeadLetters
    from common.services.read_output import ReadOutput
    from common.services.read_projects import ReadProjects
    from common.services.read_sessions import ReadSessions
    from common.services.receive import Receive
    from common.services.receive_github import ReceiveGithub
    from common.services.refusals import Refusals
    from common.services.relay import Relay
    from common.services.repair import Repair
    from common.services.reprioritise import Reprioritise
    from common.services.retry import Retry
    from common.services.runner import Runner
    from common.services.sender import Sender
    from common.services.submit import Submit
    from common.services.tailing import Tailer
    from common.services.timers import Timers
    from common.services.wakeups import Wakeups
    from common.services.watch import Watch

RUNNER = "on-command-queued"
SENDER = "on-webhook-due"


class App:
    """One process's adapters and services. `ports` overrides adapters by attribute name."""

    def __init__(self, configured: Settings, ports: dict[str, Any] | None = None) -> None:
        self.settings = configured
        self.draining = asyncio.Event()
        self.cancel_on_exit = False
        self.closing: list[Any] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = 0
        for name, port in (ports or {}).items():
            self.__dict__[name] = port

    # -- adapters ------------------------------------------------------------------------------

    @cached_property
    def database(self) -> Any:
        from common.adapters.postgres.pool import Database
        from common.domain.errors import Unavailable

        if not self.settings.database_url:
            raise Unavailable("no database is configured: set RDEV_DATABASE_URL")
        database = Database(
            self.settings.database_url,
            max_open=self.settings.pool_open,
            max_idle=self.settings.pool_idle,
        )
        self.closing.append(database)
        return database

    @cached_property
    def commands(self) -> CommandStore:
        from common.adapters.postgres.commands import PgCommandStore

        return PgCommandStore(self.database)

    @cached_property
    def queue(self) -> Queue:
        from common.adapters.postgres.queue import PgQueue

        return PgQueue(self.database)

    @cached_property
    def events(self) -> EventReader:
        from common.adapters.postgres.events import PgEventReader

        return PgEventReader(self.database)

    @cached_property
    def keys(self) -> KeyStore:
        from common.adapters.postgres.keys import PgKeyStore

        return PgKeyStore(self.database)

    @cached_property
    def projects(self) -> ProjectStore:
        from common.adapters.postgres.projects import PgProjectStore

        return PgProjectStore(self.database)

    @cached_property
    def approvals(self) -> Approvals:
        from common.adapters.postgres.approvals import PgApprovals

        return PgApprovals(self.database)

    @cached_property
    def sessions(self) -> SessionStore:
        from common.adapters.postgres.sessions import PgSessionStore

        return PgSessionStore(self.database)

    @cached_property
    def audit(self) -> AuditLog:
        from common.adapters.postgres.audit import PgAuditLog

        return PgAuditLog(self.database)

    @cached_property
    def oversight(self) -> Oversight:
        from common.adapters.postgres.oversight import PgOversight

        return PgOversight(self.database)

    @cached_property
    def outbox(self) -> Outbox:
        from common.adapters.postgres.outbox import PgOutbox

        return PgOutbox(self.database)

    @cached_property
    def signals(self) -> Signals:
        from common.adapters.postgres.signals import PgSignals

        return PgSignals(self.database, self.settings.listen)

    @cached_property
    def upkeep(self) -> Upkeep:
        from common.adapters.postgres.upkeep import PgUpkeep

        return PgUpkeep(self.database)

    @cached_property
    def triggers(self) -> TriggerStore:
        from common.adapters.postgres.triggers import PgTriggerStore

        return PgTriggerStore(self.database)

    @cached_property
    def dead_letters(self) -> DeadLetters:
        from common.adapters.postgres.dead_letters import PgDeadLetters

        return PgDeadLetters(self.database)

    @cached_property
    def status(self) -> SystemStatus:
        from common.adapters.postgres.status import PgStatus

        return PgStatus(self.database)

    @cached_property
    def sealer(self) -> Sealer:
        from common.adapters.fernet import FernetSealer

        return FernetSealer(self.settings.secret_keys)

    @cached_property
    def credentials(self) -> Credentials:
        from pathlib import Path

        from common.adapters.credentials import FolderCredentials

        named = self.settings.claude_credentials
        home = Path(self.settings.home).resolve()
        return FolderCredentials(Path(named) if named else home / "claude-credentials")

    @cached_property
    def publisher(self) -> Publisher:
        from common.adapters.http.broker import HttpPublisher

        publisher = HttpPublisher(self.settings.broker_url, self.settings.public_url)
        self.closing.append(publisher)
        return publisher

    @cached_property
    def bell(self) -> RunnerBell:
        from common.adapters.http.bell import HttpBell

        bell = HttpBell(self.service_url(RUNNER))
        self.closing.append(bell)
        return bell

    @cached_property
    def webhooks(self) -> WebhookStore:
        from common.adapters.postgres.webhooks import PgWebhookStore

        return PgWebhookStore(self.database)

    @cached_property
    def delivery_queue(self) -> DeliveryQueue:
        from common.adapters.postgres.webhooks import PgDeliveryQueue

        return PgDeliveryQueue(self.database)

    @cached_property
    def courier(self) -> Courier:
        from common.adapters.http.courier import HttpCourier

        courier = HttpCourier(self.settings.webhook_allow)
        self.closing.append(courier)
        return courier

    @cached_property
    def sender_bell(self) -> SenderBell:
        from common.adapters.http.bell import HttpSenderBell

        bell = HttpSenderBell(self.service_url(SENDER))
        self.closing.append(bell)
        return bell

    @cached_property
    def workspace(self) -> Workspace:
        from common.services.supervision import SupervisedWorkspace

        return SupervisedWorkspace(self.transport)

    @cached_property
    def claude_files(self) -> ClaudeFiles:
        from common.services.claude_files import WorkspaceClaudeFiles

        return WorkspaceClaudeFiles(self.transport)

    @cached_property
    def transport(self) -> Transport:
        """The way into workspaces. Raises Unavailable."""
        if self.on_kubernetes:
            from common.adapters.kubernetes.pods import Pods
            from common.adapters.kubernetes.transport import KubernetesTransport

            api, runs = self.kubernetes_api, self.settings.workspace_runs
            return KubernetesTransport(api.access, Pods(api), self.breakers, runs)

        from pathlib import Path

        from common.adapters.workspace_local import LocalTransport

        return LocalTransport(Path(self.settings.home).resolve() / "runs")

    @cached_property
    def kubernetes_api(self) -> Any:
        """Plain calls to the API server, behind its breaker. Raises Unavailable."""
        from common.domain.errors import Unavailable
        from common.ports.dependencies import KUBERNETES

        try:
            from common.adapters.kubernetes.access import Access
            from common.adapters.kubernetes.api import Api
        except ModuleNotFoundError as error:
            raise Unavailable(
                f"workspaces in Kubernetes need {error.name}: install `rdev[kubernetes]`"
            ) from error
        s = self.settings
        access = Access(s.kubernetes_context, s.kubernetes_namespace, s.kubeconfig)
        self.closing.append(access)
        return Api(access, self.breakers.of(KUBERNETES))

    @cached_property
    def cluster(self) -> Cluster:
        api = self.kubernetes_api
        from common.adapters.kubernetes.cluster import PodCluster

        return PodCluster(api)

    @cached_property
    def dependencies(self) -> Dependencies:
        from common.adapters.postgres.dependencies import PgDependencies

        return PgDependencies(self.database)

    @cached_property
    def source(self) -> ProjectSource:
        from pathlib import Path

        from common.adapters.directories import DirectorySource

        return DirectorySource(Path(self.settings.home).resolve())

    # -- services ------------------------------------------------------------------------------

    @cached_property
    def authorise(self) -> Authorise:
        from common.services.authorise import Authorise

        return Authorise(self.keys)

    @cached_property
    def relay(self) -> Relay:
        from common.services.relay import Relay

        relay = Relay(self.outbox, self.publisher)
        self.closing.append(relay)
        return relay

    @cached_property
    def wakeups(self) -> Wakeups:
        from common.services.background import Background
        from common.services.wakeups import Wakeups

        sender = Background("wakeups")
        self.closing.append(sender)
        return Wakeups(self.signals, sender)

    @cached_property
    def timers(self) -> Timers:
        from common.services.timers import Timers

        return Timers(lambda: self.repair.promote())  # noqa: PLW0108  # built when it is due

    @cached_property
    def submit(self) -> Submit:
        from common.services.submit import Submit

        return Submit(self.commands, self.sealer, self.relay, self.timers, self.wakeups)

    @cached_property
    def cancel(self) -> Cancel:
        from common.services.cancel import Cancel

        return Cancel(self.read_commands, self.commands, self.relay, self.wakeups, self.bell)

    @cached_property
    def approve(self) -> Approve:
        from common.services.approve import Approve

        return Approve(self.read_commands, self.approvals, self.wakeups)

    @cached_property
    def reprioritise(self) -> Reprioritise:
        from common.services.reprioritise import Reprioritise

        return Reprioritise(self.read_commands, self.commands)

    @cached_property
    def retry(self) -> Retry:
        from common.services.retry import Retry

        return Retry(self.read_commands, self.submit)

    @cached_property
    def read_commands(self) -> ReadCommands:
        from common.services.read_commands import ReadCommands

        return ReadCommands(self.commands, self.bell)

    @cached_property
    def read_output(self) -> ReadOutput:
        from common.services.read_output import ReadOutput

        return ReadOutput(self.read_commands, self.commands)

    @cached_property
    def read_projects(self) -> ReadProjects:
        from common.services.read_projects import ReadProjects

        return ReadProjects(self.projects)

    @cached_property
    def read_sessions(self) -> ReadSessions:
        from common.services.read_sessions import ReadSessions

        return ReadSessions(self.sessions, self.read_projects)

    @cached_property
    def manage_keys(self) -> ManageKeys:
        from common.services.manage_keys import ManageKeys

        return ManageKeys(self.keys, lambda event: self.relay.soon(event))  # noqa: PLW0108

    @cached_property
    def manage_webhooks(self) -> ManageWebhooks:
        from common.services.manage_webhooks import ManageWebhooks

        return ManageWebhooks(self.webhooks, self.courier, self.sealer, self.sender_bell)

    @cached_property
    def fan_out(self) -> FanOut:
        from common.services.fan_out import FanOut

        return FanOut(self.delivery_queue, self.sender_bell)

    @cached_property
    def sender(self) -> Sender:
        from common.services.sender import Sender

        return Sender(self.delivery_queue, self.courier, self.sealer, self.relay, self.sender_bell)

    @cached_property
    def sender_presence(self) -> Presence:
        from common.adapters.http.hold import Holder
        from common.services.presence import Presence

        holder = Holder(self.service_url(SENDER) + "/follow")
        return Presence(holder.hold, lambda: self.sender.sending)

    @cached_property
    def manage_claude_config(self) -> ManageClaudeConfig:
        from common.services.manage_claude_config import ManageClaudeConfig

        return ManageClaudeConfig(self.read_projects, self.claude_files, self.audit)

    @cached_property
    def oversee(self) -> Oversee:
        from common.services.oversee import Oversee

        return Oversee(self.oversight, self.bell)

    @cached_property
    def read_audit(self) -> ReadAudit:
        from common.services.read_audit import ReadAudit

        return ReadAudit(self.audit)

    @cached_property
    def refusals(self) -> Refusals:
        from common.services.refusals import Refusals

        refusals = Refusals(lambda: self.audit)
        self.closing.append(refusals)
        return refusals

    @cached_property
    def discover(self) -> Discover:
        from common.services.discover import Discover

        # Projects of pods, from an earlier run, are gone where workspaces are directories.
        self.discoveries.own(self.source.name)
        return Discover(self.source, self.projects)

    @cached_property
    def repair(self) -> Repair:
        from common.ports.upkeep import Retention
        from common.services.repair import Repair

        s = self.settings
        keep = Retention(
            s.output_days,
            s.commands_days,
            s.audit_days,
            s.idempotency_hours,
            s.dead_letters_days,
            s.deliveries_days,
        )
        return Repair(
            self.upkeep,
            self.relay,
            self.bell,
            self.wakeups,
            self.discover_now,
            keep,
            self.seal_audit_now,
            self.repair_webhooks,
        )

    def repair_webhooks(self) -> None:
        """Make the deliveries of lost events and ring for what is due."""
        self.fan_out.repair()

    def seal_audit_now(self) -> None:
        """Chain what the audit trail has gained; built only where a tick runs."""
        from common.services.seal_audit import SealAudit

        SealAudit(self.audit)()

    @cached_property
    def bury(self) -> Bury:
        from common.services.bury import Bury

        return Bury(self.dead_letters)

    @cached_property
    def prepare_command(self) -> PrepareCommand:
        from common.services.prepare_command import PrepareCommand

        return PrepareCommand(self.triggers, self.sealer)

    @cached_property
    def receive(self) -> Receive:
        from common.services.receive import Receive

        return Receive(self.triggers, self.prepare_command, self.submit, self.bury)

    @cached_property
    def receive_github(self) -> ReceiveGithub:
        from common.services.receive_github import ReceiveGithub

        return ReceiveGithub(self.triggers, self.sealer, self.receive)

    @cached_property
    def manage_triggers(self) -> ManageTriggers:
        from common.services.manage_triggers import ManageTriggers

        return ManageTriggers(self.triggers, self.prepare_command, self.sealer)

    @cached_property
    def read_dead_letters(self) -> ReadDeadLetters:
        from common.services.read_dead_letters import ReadDeadLetters

        return ReadDeadLetters(
            self.dead_letters, self.triggers, lambda: self.receive, lambda: self.publisher
        )

    def discover_now(self) -> None:
        """Reconcile the projects; built only where a tick runs."""
        if self.on_kubernetes:
            self.watch.reconcile()
        else:
            self.discover()

    @cached_property
    def discoveries(self) -> DiscoveryStore:
        from common.adapters.postgres.dependencies import PgDiscoveryStore

        return PgDiscoveryStore(self.database)

    @cached_property
    def watch(self) -> Watch:
        from common.ports.dependencies import KUBERNETES
        from common.services.watch import Watch

        return Watch(
            self.cluster,
            self.discoveries,
            self.upkeep.exclusive,
            self.bell,
            self.breakers.of(KUBERNETES).heartbeat,
        )

    @cached_property
    def breakers(self) -> SharedBreakers:
        from common.domain.breaker import Thresholds
        from common.services.breaker import SharedBreakers

        s = self.settings
        limits = Thresholds(s.breaker_failures, s.breaker_open_s, s.breaker_open_s * 6.0)
        return SharedBreakers(self.dependencies, limits)

    @cached_property
    def health(self) -> Health:
        from common.services.health import Health

        return Health(self.status, kubernetes=self.on_kubernetes)

    @cached_property
    def tailer(self) -> Tailer:
        from common.services.tailing import Tailer

        return Tailer(self.events, self.signals, self.bell)

    @cached_property
    def runner(self) -> Runner:
        from common.services.runner import Runner

        return Runner(
            self.queue, self.signals, self.bell, self.follower, self.settings.runner_commands
        )

    def follower(self, claim: Claim) -> Follower:
        """A follower for one claim."""
        from common.services.follower import Follower

        return Follower(
            claim,
            self.queue,
            self.workspace,
            self.sealer,
            self.credentials,
            self.relay,
            self.wakeups,
            self.settings.output_cap,
            self.settings.runs_hours * 3600,
            self.approvals,
            self.settings.approval_s,
        )

    @cached_property
    def presence(self) -> Presence:
        from common.adapters.http.hold import Holder
        from common.services.presence import Presence

        holder = Holder(self.service_url(RUNNER) + "/follow")
        return Presence(holder.hold, lambda: self.runner.following)

    # -- the process ---------------------------------------------------------------------------

    @property
    def on_kubernetes(self) -> bool:
        """Whether workspaces are pods."""
        return self.settings.workspaces == "kubernetes"

    def service_url(self, service: str) -> str:
        """A function's cluster-local address."""
        return self.settings.service_url.replace("{service}", service)

    def require_compatible_schema(self) -> None:
        """Raise Unavailable while code and schema do not fit; an unreachable database passes."""
        if self.settings.database_url:
            self.health.require_compatible_schema()

    def telemetry_started(self, service: str) -> None:
        """Logs as JSON lines; exporters only when OTEL_* asks for them."""
        from common.adapters.telemetry import start
        from common.domain.redaction import Redactor

        start(service, self.settings.log_level, Redactor(self.settings.secrets))

    def cancel_here(self, command_id: UUID) -> None:
        """Mark a command of this runner as cancelled because the laptop's rdev stops."""
        self.cancel.by_shutdown(command_id)

    def migrate(self) -> None:
        """Bring the database's schema up to date. Raises RdevError with what a person must do."""
        from common.adapters.postgres.migrate import MigrationError, migrate
        from common.domain.errors import RdevError

        try:
            migrate(self.settings.listen)  # a pooler would spread its advisory lock over sessions
        except MigrationError as error:
            raise RdevError(str(error)) from error

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` on the event loop until this process ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def wait(self, command_id: UUID, seconds: float) -> Command | None:
        """The command once it has ended; None when it takes longer or too many wait already."""
        if self._waiting >= self.settings.waiters:
            return None
        self._waiting += 1
        try:
            return await self.tailer.wait_for_end(command_id, seconds)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Finish what is in the air and let go of connections."""
        for resource in reversed(self.closing):
            resource.close()


@cache
def app() -> App:
    """This process's App."""
    return App(settings())

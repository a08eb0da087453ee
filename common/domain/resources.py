"""Resources as callers see them (api.md, "Shapes"). Field names are a contract."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from common.domain import identifiers
from common.domain.approval import Approval
from common.domain.audit import AuditEntry
from common.domain.command import Command, Priority, State, shown
from common.domain.events import text_or_base64, timestamp
from common.domain.keys import ApiKey
from common.domain.oversight import Depth, ProjectQueue, Usage
from common.domain.project import Project
from common.domain.session import Session
from common.domain.triggers import Channel, Match, Trigger
from common.domain.webhooks import Attempt, Delivery, Endpoint, Message, Payload


def _time(at: datetime | None) -> str | None:
    return timestamp(at) if at is not None else None


def command_resource(command: Command) -> dict[str, Any]:
    """A command. Environment values are never shown: their names map to null."""
    cid = identifiers.show(identifiers.COMMAND, command.id)
    base = f"/v1/commands/{cid}"
    return {
        "id": cid,
        "project": command.project,
        "kind": str(command.kind),
        "state": str(shown(command.state)),
        "priority": command.priority.label,
        "queue_position": 0 if command.state is State.CLAIMED else command.queue_position,
        "created_at": timestamp(command.created_at),
        "started_at": _time(command.started_at),
        "finished_at": _time(command.finished_at),
        "run_at": _time(command.run_at),
        "key_id": identifiers.show(identifiers.KEY, command.key_id),
        "session_id": command.session,
        "retry_of": identifiers.show(identifiers.COMMAND, command.retry_of)
        if command.retry_of
        else None,
        "labels": command.labels,
        "spec": command.spec
        | {"timeouts": asdict(command.timeouts), "env": dict.fromkeys(command.env_names)},
        "outcome": command.outcome,
        "links": {
            "self": base,
            "stream": f"/v1/streams/commands/{cid}",
            "output": f"{base}/output",
            "cancel": f"{base}/cancel",
        },
    }


def approval_resource(asked: Approval) -> dict[str, Any]:
    """A permission request; its input is there as long as its command lives."""
    return {
        "tool_use_id": asked.tool_use_id,
        "tool_name": asked.tool_name,
        "input": json.loads(asked.input) if asked.input is not None else None,
        "state": str(asked.state),
        "message": asked.message,
        "key_id": identifiers.show(identifiers.KEY, asked.key_id) if asked.key_id else None,
        "requested_at": timestamp(asked.requested_at),
        "expires_at": timestamp(asked.expires_at),
        "decided_at": _time(asked.decided_at),
    }


def queue_resource(queue: ProjectQueue) -> dict[str, Any]:
    """The queue of a project; every priority is there."""
    depths = {p.label: queue.depths.get(p, Depth()) for p in Priority}
    return {
        "project": queue.project,
        "paused_at": _time(queue.paused_at),
        "queued": queue.queued,
        "running": queue.running,
        "oldest_s": queue.oldest_s,
        "by_priority": {label: asdict(depth) for label, depth in depths.items()},
    }


def session_resource(session: Session) -> dict[str, Any]:
    """A claude session; no prompt, no answer."""
    busy = session.busy_with
    return asdict(session) | {
        "state": "free" if busy is None else "busy",
        "busy_with": identifiers.show(identifiers.COMMAND, busy) if busy else None,
        "first_command": identifiers.show(identifiers.COMMAND, session.first_command),
        "last_command": identifiers.show(identifiers.COMMAND, session.last_command),
        "started_at": timestamp(session.started_at),
        "last_used_at": timestamp(session.last_used_at),
    }


def usage_resource(usage: Usage) -> dict[str, Any]:
    """Sums over ended commands."""
    key_id = identifiers.show(identifiers.KEY, usage.key_id) if usage.key_id else None
    return asdict(usage) | {"key_id": key_id}


def audit_resource(entry: AuditEntry) -> dict[str, Any]:
    """An entry of the audit trail."""
    return {
        "id": identifiers.show(identifiers.AUDIT, entry.id),
        "at": timestamp(entry.at),
        "key_id": identifiers.show(identifiers.KEY, entry.key_id) if entry.key_id else None,
        "action": entry.action,
        "target": entry.target,
        "project": entry.project,
        "detail": entry.detail,
        "request_id": entry.request_id,
        "client_ip": entry.client_ip,
        "peer_ip": entry.peer_ip,
    }


def trigger_resource(trigger: Trigger) -> dict[str, Any]:
    """A trigger. Values of its command's environment are not in it: their names map to null."""
    tid = identifiers.show(identifiers.TRIGGER, trigger.id)
    base, limit = f"/v1/triggers/{tid}", trigger.rate_limit
    return {
        "id": tid,
        "name": trigger.name,
        "key_id": identifiers.show(identifiers.KEY, trigger.key_id),
        "filter": trigger.filter,
        "command": trigger.command,
        "accept": [str(channel) for channel in Channel if channel in trigger.accept],
        "enabled": trigger.enabled,
        "rate_limit": {"limit": limit.limit, "window_s": limit.window_s},
        "created_at": timestamp(trigger.created_at),
        "updated_at": timestamp(trigger.updated_at),
        "links": {
            "self": base,
            "matches": f"{base}/matches",
            "github": f"/v1/events/github/{tid}" if Channel.GITHUB in trigger.accept else None,
        },
    }


def match_resource(match: Match) -> dict[str, Any]:
    """What became of an event at a trigger."""
    cid = match.command_id
    return {
        "id": identifiers.show(identifiers.MATCH, match.id),
        "at": _time(match.at),
        "event_id": match.event_id,
        "source": match.source,
        "type": match.type,
        "outcome": str(match.outcome),
        "command_id": identifiers.show(identifiers.COMMAND, cid) if cid else None,
        "reason": match.reason,
        "detail": match.detail,
    }


def project_resource(project: Project) -> dict[str, Any]:
    """A project."""
    return {
        "name": project.name,
        "description": project.description,
        "phase": str(project.phase),
        "workspace": project.workspace,
        "allowed_commands": list(project.allowed_commands)
        if project.allowed_commands is not None
        else None,
        "max_concurrent_commands": project.max_concurrent_commands,
        "running": project.running,
        "queued": project.queued,
        "paused": project.paused_at is not None,
        "issues": list(project.issues),
    }


def key_resource(key: ApiKey) -> dict[str, Any]:
    """A key, without its secret."""
    limit = key.rate_limit
    return {
        "id": identifiers.show(identifiers.KEY, key.id),
        "name": key.name,
        "prefix": key.prefix,
        "scopes": sorted(key.scopes),
        "projects": sorted(key.projects) if key.projects is not None else None,
        "allowed_ips": list(key.allowed_ips),
        "expires_at": _time(key.expires_at),
        "rate_limit": {"limit": limit.limit, "window_s": limit.window_s} if limit else None,
        "max_concurrent": key.max_concurrent,
        "created_at": timestamp(key.created_at),
        "revoked_at": _time(key.revoked_at),
        "last_used_at": _time(key.last_used_at),
        "replaced_by": identifiers.show(identifiers.KEY, key.replaced_by)
        if key.replaced_by
        else None,
    }


def webhook_resource(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint, without its secrets: values of headers are never shown, names map to null."""
    return {
        "id": identifiers.show(identifiers.WEBHOOK, endpoint.id),
        "url": endpoint.url,
        "description": endpoint.description,
        "event_types": sorted(endpoint.event_types) if endpoint.event_types is not None else None,
        "projects": sorted(endpoint.projects) if endpoint.projects is not None else None,
        "payload": str(endpoint.payload),
        "headers": dict.fromkeys(endpoint.header_names),
        "enabled": endpoint.disabled_at is None,
        "disabled_at": _time(endpoint.disabled_at),
        "disabled_reason": endpoint.disabled_reason,
        "failing_since": _time(endpoint.failing_since),
        "key_id": identifiers.show(identifiers.KEY, endpoint.key_id),
        "created_at": timestamp(endpoint.created_at),
    }


def delivery_resource(delivery: Delivery) -> dict[str, Any]:
    """A delivery with its attempts."""
    return {
        "id": identifiers.show(identifiers.DELIVERY, delivery.id),
        "webhook_id": identifiers.show(identifiers.WEBHOOK, delivery.endpoint_id),
        "event_id": identifiers.show(identifiers.EVENT, delivery.event_id),
        "event_type": delivery.event_type,
        "project": delivery.project,
        "state": str(delivery.state),
        "created_at": timestamp(delivery.created_at),
        "next_attempt_at": _time(delivery.next_at),
        "attempts": [_attempt(attempt) for attempt in delivery.attempts],
    }


def sent_resource(delivery: Delivery, message: Message, payload: Payload) -> dict[str, Any]:
    """A delivery alone: also what is sent, and the beginning of what was answered."""
    answers = [text_or_base64(attempt.response) for attempt in delivery.attempts]
    shown = delivery_resource(delivery)
    for attempt, answer in zip(shown["attempts"], answers, strict=True):
        attempt["response"] = answer
    return shown | {"body": message.body(payload).decode("ascii")}


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "at": timestamp(attempt.at),
        "status": attempt.status,
        "duration_ms": attempt.duration_ms,
        "error": attempt.error,
    }

"""The audit trail: filter, export as NDJSON, verify the chain that seals it."""

from __future__ import annotations

from uuid import UUID

from common.domain import identifiers
from common.domain.audit import AuditFilter
from common.domain.events import dumps
from common.domain.resources import audit_resource
from common.entrypoints import examples, pages
from common.entrypoints.call import Call, Reply
from common.entrypoints.function import Function, Scale
from common.entrypoints.models.audit import ExportAudit, ListAudit

function = Function(
    name="audit",
    summary="Who did what: filter, export, verify",
    prefixes=("/v1/audit",),
    scale=Scale(maximum=1),  # read by few; connections are for those who work
)


@function.get("/v1/audit", summary="List what was done and what was refused, newest first",
              scope="audit:read", query=ListAudit, answer="AuditPage",
              answer_example=examples.page_of(examples.AUDIT))  # fmt: skip
def listed(call: Call) -> Reply:
    q: ListAudit = call.query
    wanted = _filter(q, pages.before(identifiers.AUDIT, q.cursor), q.limit + 1)
    found = call.app.read_audit.many(wanted, call.caller)
    return Reply(pages.page(found, q.limit, identifiers.AUDIT, audit_resource))


@function.get("/v1/audit/export", summary="The same as lines of JSON, all of them", scope="audit:read",
              query=ExportAudit, media_type="application/x-ndjson", answer_example='{"id":"aud_…"}\n')  # fmt: skip
def export(call: Call) -> Reply:
    entries = call.app.read_audit.all(_filter(call.query, None, 1), call.caller)
    lines = (dumps(audit_resource(entry)) + b"\n" for entry in entries)
    return Reply(lines, media_type="application/x-ndjson")


@function.get("/v1/audit/verify", summary="Check the chain; the first broken entry is named",
              scope="audit:read", answer="AuditVerdict", answer_example=examples.VERDICT)  # fmt: skip
def verify(call: Call) -> Reply:
    found = call.app.read_audit.verify()
    broken = None
    if found.broken is not None:
        entry_id = identifiers.show(identifiers.AUDIT, identifiers.numbered(found.broken))
        broken = {"id": entry_id, "reason": found.reason}
    head = {"seq": found.link.seq, "hash": found.link.hash.hex()}
    verdict = {"ok": broken is None, "checked": found.count, "head": head, "broken": broken}
    return Reply(verdict)


def _filter(q: ExportAudit, before: UUID | None, limit: int) -> AuditFilter:
    return AuditFilter(
        projects=frozenset(q.project) if q.project else None,
        key_id=identifiers.parse(identifiers.KEY, q.key) if q.key else None,
        action=q.action,
        target=q.target,
        since=q.since,
        until=q.until,
        before=before,
        limit=limit,
    )


handle = function.target()

"""API keys: create (the secret is shown once), list, show, update, rotate, revoke."""

from __future__ import annotations

from common.domain import identifiers
from common.domain.resources import key_resource
from common.entrypoints import examples, pages
from common.entrypoints.call import Call, Reply
from common.entrypoints.function import Function
from common.entrypoints.models.base import PageQuery
from common.entrypoints.models.keys import CreateKey, RotateKey, UpdateKey
from common.ports.keys import CreatedKey

function = Function(
    name="keys",
    summary="API keys with scopes, projects, address ranges and limits",
    prefixes=("/v1/keys",),
)


@function.post("/v1/keys", summary="Create a key; its text is in this answer only", scope="keys:admin",
               body=CreateKey, idempotent=True, status=201, body_example=examples.CREATE_KEY,
               answer="CreatedKey", answer_example=examples.KEY | {"key": "rdev_…"})  # fmt: skip
def create(call: Call, body: CreateKey) -> Reply:
    created, text = call.app.manage_keys.create(
        body.key(), call.caller, call.origin, call.idempotency
    )
    return _with_text(created, text)


def _with_text(created: CreatedKey, text: str | None) -> Reply:
    resource = key_resource(created.key) | {"key": text}
    headers = {"location": f"/v1/keys/{resource['id']}"}
    if created.replayed:
        headers["idempotency-replayed"] = "true"
    return Reply(resource, 201, headers)


@function.get("/v1/keys", summary="List keys, newest first", scope="keys:admin", query=PageQuery,
              answer="KeyPage", answer_example=examples.page_of(examples.KEY))  # fmt: skip
def listed(call: Call) -> Reply:
    q: PageQuery = call.query
    found = call.app.manage_keys.many(
        pages.before(identifiers.KEY, q.cursor), q.limit + 1, call.caller
    )
    return Reply(pages.page(found, q.limit, identifiers.KEY, key_resource))


@function.get("/v1/keys/{id}", summary="Show a key, without its secret", scope="keys:admin",
              answer="Key", answer_example=examples.KEY)  # fmt: skip
def show(call: Call) -> Reply:
    return Reply(key_resource(call.app.manage_keys.one(call.path["id"], call.caller)))


@function.patch("/v1/keys/{id}", summary="Change a key; what is left out stays", scope="keys:admin",
                body=UpdateKey, body_example={"name": "ci", "allowed_ips": ["10.0.0.0/8"]},
                others={409: "It is revoked"}, answer="Key", answer_example=examples.KEY)  # fmt: skip
def update(call: Call, body: UpdateKey) -> Reply:
    key = call.app.manage_keys.update(call.path["id"], body.changes(), call.caller, call.origin)
    return Reply(key_resource(key))


@function.post("/v1/keys/{id}/rotate", summary="Replace a key; the old one works on for `grace_s` seconds",
               scope="keys:admin", body=RotateKey, body_optional=True, idempotent=True, status=201,
               body_example={"grace_s": 3600}, others={409: "It is revoked, or was rotated before"},
               answer="CreatedKey", answer_example=examples.KEY | {"key": "rdev_…"})  # fmt: skip
def rotate(call: Call, body: RotateKey) -> Reply:
    made, text = call.app.manage_keys.rotate(
        call.path["id"], body.grace_s, call.caller, call.origin, call.idempotency
    )
    return _with_text(made, text)


@function.delete("/v1/keys/{id}", summary="Revoke a key from the next request on", scope="keys:admin",
                 status=204)  # fmt: skip
def revoke(call: Call) -> Reply:
    call.app.manage_keys.revoke(call.path["id"], call.caller, call.origin)
    return Reply(status=204)


handle = function.target()

"""Webhooks: endpoints and their secrets, and what became of every delivery."""

from __future__ import annotations

from typing import Any

from common.domain import identifiers
from common.domain.resources import delivery_resource, sent_resource, webhook_resource
from common.domain.webhooks import Delivery, Endpoint
from common.entrypoints import examples, pages
from common.entrypoints.call import Call, Reply
from common.entrypoints.function import Function
from common.entrypoints.models import webhooks as models

SCOPE = "webhooks:write"
CREATED: dict[str, Any] = examples.WEBHOOK | {"secret": "whsec_…"}

function = Function(
    name="webhooks",
    summary="Webhooks: endpoints, secrets, deliveries and their attempts",
    prefixes=("/v1/webhooks",),
    secret_keys=True,
)


@function.post("/v1/webhooks", summary="Create a webhook; its secret is in this answer only", scope=SCOPE,
               body=models.CreateWebhook, idempotent=True, status=201, body_example=examples.CREATE_WEBHOOK,
               answer="CreatedWebhook", answer_example=CREATED)  # fmt: skip
def create(call: Call, body: models.CreateWebhook) -> Reply:
    created, secret = call.app.manage_webhooks.create(
        body.endpoint(), body.headers, call.caller, call.origin, call.idempotency
    )
    return _with_secret(created.endpoint, secret)


def _with_secret(endpoint: Endpoint, secret: str | None) -> Reply:
    resource = webhook_resource(endpoint) | {"secret": secret}
    headers = {"location": f"/v1/webhooks/{resource['id']}"}
    replayed = {"idempotency-replayed": "true"} if secret is None else {}
    return Reply(resource, 201, headers | replayed)


@function.get("/v1/webhooks", summary="List webhooks, newest first", scope=SCOPE, query=models.ListWebhooks,
              answer="WebhookPage", answer_example=examples.page_of(examples.WEBHOOK))  # fmt: skip
def listed(call: Call) -> Reply:
    q: models.ListWebhooks = call.query
    before = pages.before(identifiers.WEBHOOK, q.cursor)
    found = call.app.manage_webhooks.many(before, q.limit + 1, call.caller)
    return Reply(pages.page(found, q.limit, identifiers.WEBHOOK, webhook_resource))


@function.get("/v1/webhooks/{id}", summary="Show a webhook, without its secrets", scope=SCOPE,
              answer="Webhook", answer_example=examples.WEBHOOK)  # fmt: skip
def show(call: Call) -> Reply:
    return Reply(webhook_resource(call.app.manage_webhooks.one(call.path["id"], call.caller)))


@function.patch("/v1/webhooks/{id}", summary="Change, enable or disable a webhook; what is left out stays",
                scope=SCOPE, body=models.UpdateWebhook, body_example={"enabled": True},
                answer="Webhook", answer_example=examples.WEBHOOK)  # fmt: skip
def update(call: Call, body: models.UpdateWebhook) -> Reply:
    endpoint = call.app.manage_webhooks.update(
        call.path["id"], body.changes(), body.new_headers, call.caller, call.origin
    )
    return Reply(webhook_resource(endpoint))


@function.delete("/v1/webhooks/{id}", summary="Delete a webhook: nothing more is sent", scope=SCOPE, status=204)  # fmt: skip
def delete(call: Call) -> Reply:
    call.app.manage_webhooks.delete(call.path["id"], call.caller, call.origin)
    return Reply(status=204)


@function.post("/v1/webhooks/{id}/rotate", summary="Replace the secret; the old one signs too for `grace_s` seconds",
               scope=SCOPE, body=models.RotateWebhook, body_optional=True, idempotent=True, status=201,
               body_example={"grace_s": 86_400}, answer="CreatedWebhook", answer_example=CREATED)  # fmt: skip
def rotate(call: Call, body: models.RotateWebhook) -> Reply:
    rotated = call.app.manage_webhooks.rotate(
        call.path["id"], body.grace_s, call.caller, call.origin, call.idempotency
    )
    return _with_secret(*rotated)


@function.post("/v1/webhooks/{id}/ping", summary="Send a `webhook.ping`, to see whether deliveries arrive",
               scope=SCOPE, status=202, others={409: "It is disabled"},
               answer="Delivery", answer_example=examples.DELIVERY)  # fmt: skip
def ping(call: Call) -> Reply:
    return _accepted(call.app.manage_webhooks.ping(call.path["id"], call.caller, call.origin))


def _accepted(delivery: Delivery) -> Reply:
    resource = delivery_resource(delivery)
    location = f"/v1/webhooks/{resource['webhook_id']}/deliveries/{resource['id']}"
    return Reply(resource, 202, {"location": location})


@function.get("/v1/webhooks/{id}/deliveries", summary="List deliveries with their attempts, newest first",
              scope=SCOPE, query=models.ListDeliveries,
              answer="DeliveryPage", answer_example=examples.page_of(examples.DELIVERY))  # fmt: skip
def deliveries(call: Call) -> Reply:
    q: models.ListDeliveries = call.query
    found = call.app.manage_webhooks.deliveries(call.path["id"], q.wanted(), call.caller)
    return Reply(pages.page(found, q.limit, identifiers.DELIVERY, delivery_resource))


@function.get("/v1/webhooks/{id}/deliveries/{delivery}", summary="Show a delivery: what is sent, what was answered",
              scope=SCOPE, answer="SentDelivery", answer_example=examples.SENT)  # fmt: skip
def delivery(call: Call) -> Reply:
    sent = call.app.manage_webhooks.delivery(call.path["id"], call.path["delivery"], call.caller)
    return Reply(sent_resource(sent.delivery, sent.message, sent.payload))


@function.post("/v1/webhooks/{id}/deliveries/{delivery}/redeliver", scope=SCOPE, status=202,
               summary="Send a delivery again, under the same `webhook-id`", others={409: "The webhook is disabled"},
               answer="Delivery", answer_example=examples.DELIVERY)  # fmt: skip
def redeliver(call: Call) -> Reply:
    ids = call.path["id"], call.path["delivery"]
    return _accepted(call.app.manage_webhooks.redeliver(*ids, call.caller, call.origin))


@function.post("/v1/webhooks/{id}/recover", scope=SCOPE, body=models.RecoverWebhook, status=202,
               summary="Send what was not delivered in a range of time, also what was missed while disabled",
               body_example={"since": "2026-01-01T00:00:00Z"}, others={409: "It is disabled"},
               answer="Recovered", answer_example={"deliveries": 12})  # fmt: skip
def recover(call: Call, body: models.RecoverWebhook) -> Reply:
    count = call.app.manage_webhooks.recover(call.path["id"], body.range(), call.caller, call.origin)  # fmt: skip
    return Reply({"deliveries": count}, 202, {"location": f"/v1/webhooks/{call.path['id']}/deliveries"})  # fmt: skip


handle = function.target()

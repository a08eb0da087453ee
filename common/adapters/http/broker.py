"""Publisher over HTTP: CloudEvents in binary mode to the broker's ingress.

The in-memory broker answers only after it has delivered, so this waits 1 s at most and never in a
request: a row in the outbox stands behind every event.
"""

from __future__ import annotations

import httpx
from cloudevents.conversion import to_binary
from cloudevents.http import CloudEvent

from common.domain.announcements import bounded
from common.domain.errors import Unavailable
from common.domain.events import dumps
from common.ports.outbox import OutgoingEvent

TIMEOUT_S = 1.0
SOURCE = "/rdev"


def attributes_of(event: OutgoingEvent, schemas: str) -> dict[str, str]:
    """Context attributes; ASCII only, since the SDK does not percent-encode them.

    `schemas`: the address below which the schema of each type is.
    """
    attributes = {
        "id": f"evt_{event.id.hex}",
        "source": SOURCE,
        "type": event.type,
        "subject": event.subject,
        "datacontenttype": "application/json",
        "dataschema": f"{schemas}/{event.type}.json",
    }
    if event.webhooks:
        attributes["webhooks"] = "wanted"
    if event.traceparent:
        attributes["traceparent"] = event.traceparent
    return attributes


class HttpPublisher:
    """One pooled client per process."""

    def __init__(self, url: str, public_url: str) -> None:
        self._url = url
        self._schemas = f"{public_url.rstrip('/')}/schemas"
        self._client = httpx.Client(timeout=TIMEOUT_S, trust_env=False)

    def publish(self, event: OutgoingEvent) -> None:
        if not self._url:
            raise Unavailable("no broker is configured: set RDEV_BROKER_URL")
        headers, body = to_binary(
            CloudEvent(attributes_of(event, self._schemas), bounded(event.data)),
            data_marshaller=dumps,
        )
        try:
            answer = self._client.post(self._url, headers=headers, content=body)
        except httpx.HTTPError as error:
            raise Unavailable(f"the broker did not answer: {type(error).__name__}") from None
        if answer.status_code // 100 != 2:
            raise Unavailable(f"the broker answered {answer.status_code}")

    def close(self) -> None:
        self._client.close()

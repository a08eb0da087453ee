"""RunnerBell and SenderBell over HTTP: doorbells POSTed straight to the Service they are for.

The same CloudEvents that a broker would deliver, so each has one way in. Losing one costs latency
only, so failures are logged and nothing else.
"""

from __future__ import annotations

import httpx
from cloudevents.conversion import to_binary
from cloudevents.http import CloudEvent

from common.adapters.http.broker import SOURCE
from common.domain.events import dumps
from common.domain.identifiers import new_id
from common.services import telemetry

TIMEOUT_S = 6.0  # it is answered within 5 s, a cold one starts in between
RING = "ai.orchard9.rdev.project.rung.v1"
DUE = "ai.orchard9.rdev.webhook.due.v1"

log = telemetry.logger("rdev.bell")


class _Doorbell:
    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.Client(timeout=TIMEOUT_S, trust_env=False)

    def close(self) -> None:
        self._client.close()

    def _post(self, type_: str, subject: str, data: dict[str, str]) -> None:
        attributes = {
            "id": f"evt_{new_id().hex}",
            "source": SOURCE,
            "type": type_,
            "subject": subject,
            "datacontenttype": "application/json",
        }
        headers, body = to_binary(CloudEvent(attributes, data), data_marshaller=dumps)
        try:
            answer = self._client.post(self._url, headers=headers, content=body)
        except httpx.HTTPError as error:
            log.warning("nobody heard the bell", subject=subject, err_type=type(error).__name__)
            return
        if answer.status_code // 100 != 2:
            log.warning("nobody heard the bell", subject=subject, status=answer.status_code)


class HttpBell(_Doorbell):
    """The runner's."""

    def ring(self, project: str) -> None:
        self._post(RING, f"projects/{project}", {"project": project})


class HttpSenderBell(_Doorbell):
    """The sender's."""

    def ring(self) -> None:
        self._post(DUE, "webhooks", {})

"""RunnerBell over HTTP: the runner's own doorbell, POSTed straight to its Service.

The same CloudEvent that a broker would deliver, so the runner has one way in. Losing it costs
latency only, so failures are logged and nothing else.
"""

from __future__ import annotations

import httpx
from cloudevents.conversion import to_binary
from cloudevents.http import CloudEvent

from common.adapters.http.broker import SOURCE
from common.domain.events import dumps
from common.domain.identifiers import new_id
from common.services import telemetry

TIMEOUT_S = 6.0  # a runner answers within 5 s, a cold one starts in between
RING = "ai.orchard9.rdev.project.rung.v1"

log = telemetry.logger("rdev.bell")


class HttpBell:
    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.Client(timeout=TIMEOUT_S, trust_env=False)

    def ring(self, project: str) -> None:
        attributes = {
            "id": f"evt_{new_id().hex}",
            "source": SOURCE,
            "type": RING,
            "subject": f"projects/{project}",
            "datacontenttype": "application/json",
        }
        headers, body = to_binary(
            CloudEvent(attributes, {"project": project}), data_marshaller=dumps
        )
        try:
            answer = self._client.post(self._url, headers=headers, content=body)
        except httpx.HTTPError as error:
            log.warning("runner not rung", project=project, err_type=type(error).__name__)
            return
        if answer.status_code // 100 != 2:
            log.warning("runner not rung", project=project, status=answer.status_code)

    def close(self) -> None:
        self._client.close()

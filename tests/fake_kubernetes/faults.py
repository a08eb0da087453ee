"""What the fake can be told to do wrong; each is a thing that real clusters did."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Faults:
    """All off at first. Numbers are counts; 0 and "" mean off."""

    token: str = ""  # the bearer token that counts; others are answered 401
    certificate: str = ""  # the client certificate's name that counts; others are answered 401
    down: bool = False  # every connection is reset, also those that are open
    status: int = 0  # plain requests are answered with this status …
    status_times: int = 0  # … so many times; 0 is for ever
    retry_after: str = ""
    stall: str = ""  # plain requests get no `status`, or not the rest of the `body`
    page: int = 0  # objects in one page of a list at most
    pages_expire: bool = False  # the second page of every list is answered 410
    watch_drop_every: int = 0  # events after which a watch is cut
    watch_gone: bool = False  # the next watch is told 410 as an event
    watch_stall: bool = False  # watches stay open and say nothing
    exec_v4: bool = False  # as before Kubernetes 1.29
    exec_status: int = 0  # the handshake is refused with this status
    exec_pods: list[str] = field(default_factory=list)  # only there; empty: everywhere
    exec_drop_every: int = 0  # frames of output after which the connection is cut
    exec_early_success: bool = False  # Success before the output was sent (kubernetes#124571)
    exec_no_status: bool = False  # it ends in good order without a status
    exec_bad_status: bool = False
    exec_runtime_failure: bool = False  # the container runtime could not start anything
    exec_stall: bool = False  # the handshake is never answered
    exec_mute: bool = False  # the connection stays, and nothing is heard or said on it any more
    frame_bytes: int = 32 * 1024

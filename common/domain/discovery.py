"""Which projects there are: labelled pods merged with the settings people wrote, settings winning.

Pure. A source (a ConfigMap, projects.yaml) gives entries by project name; a bad entry or field is
an issue of its project and the others live on. A pod belongs to the project its label names, unless
an entry's `pod_selector` says which pods are its.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from common.domain.command import Kind, Reason
from common.domain.project import DEFAULT_MAX_CONCURRENT, NAME, FoundProject, Phase

PREFIX: Final = "rdev.orchard9.ai"
PROJECT, NAME_LABEL = f"{PREFIX}/project", f"{PREFIX}/name"
# A label's value cannot hold "/", so an annotation of the same key is accepted, and wins.
WORKSPACE: Final = f"{PREFIX}/workspace"
DESCRIPTION: Final = f"{PREFIX}/description"
# Which container to run in: rdev's own word, then the one kubectl exec honours.
CONTAINER: Final = (f"{PREFIX}/container", "kubectl.kubernetes.io/default-container")
DEFAULT_WORKSPACE: Final = "/workspace"

KEYS: Final = frozenset(
    (
        "name",
        "description",
        "pod_selector",
        "workspace",
        "allowed_commands",
        "max_concurrent_commands",
    )
)
NOBODY: Final[Mapping[str, str]] = MappingProxyType({})
_RANK: Final = {Phase.READY: 0, Phase.PENDING: 1, Phase.UNREACHABLE: 2, Phase.GONE: 3}
_POD_NAME: Final = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?")


@dataclass(frozen=True)
class Container:
    name: str
    ready: bool = False
    running: bool = False
    restarts: int = 0


@dataclass(frozen=True)
class Pod:
    """A pod as the API shows it. `created` is RFC 3339 in UTC, so it sorts as text."""

    namespace: str
    name: str
    uid: str
    phase: str
    containers: tuple[Container, ...]
    created: str = ""
    terminating: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """What somebody wrote for a project; `problem` when it could not even be read."""

    value: Any = None
    problem: str | None = None


@dataclass(frozen=True)
class Found:
    """Projects by name; `notes` are troubles that belong to none of them."""

    projects: tuple[FoundProject, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Life:
    """One life of a container: what a command runs in, and what ends with it.

    Its text is kept in `pod_uid`, with the command, because the project may move to another pod
    while this one goes on. `labelled`: the pod's labels named the project, not a `pod_selector`.
    """

    uid: str
    restarts: int
    pod: str
    container: str
    labelled: bool

    def __str__(self) -> str:
        how = "label" if self.labelled else "selector"
        return f"{self.uid}/{self.restarts}/{self.pod}/{self.container}/{how}"

    @classmethod
    def parse(cls, text: str) -> Life | None:
        """None for text that names no life, such as a laptop's empty one."""
        match text.split("/"):
            case [uid, restarts, pod, container, how] if restarts.isdecimal():
                return cls(uid, int(restarts), pod, container, how == "label")
        return None

    def ended(self, pod: Pod) -> Reason | None:
        """Why it is over, when the pod of its name is this one now; None while it lasts."""
        if pod.uid != self.uid:
            return Reason.POD_DELETED
        restarts = {container.name: container.restarts for container in pod.containers}
        if restarts.get(self.container, self.restarts) != self.restarts:
            return Reason.POD_RESTARTED
        return None

    def has_left(self, pod: Pod, project: str) -> bool:
        """Whether the pod's labels no longer name the project they named."""
        return self.labelled and project_of(pod) != project


def project_of(pod: Pod) -> str | None:
    """The project a pod's labels name."""
    if pod.labels.get(PROJECT) != "true":
        return None
    return pod.labels.get(NAME_LABEL) or pod.name


def merge(
    pods: Sequence[Pod], entries: Mapping[str, Entry], holders: Mapping[str, str] = NOBODY
) -> Found:
    """Every project there is now. `holders`: the lives that have the projects so far, by name."""
    labelled, notes = _labelled(pods)
    for name in sorted(entries):
        if not NAME.fullmatch(name):
            notes.append(f"{name[:80]!r} in the settings is no project name")
    names = {name for name in {*labelled, *entries} if NAME.fullmatch(name)}
    found = [
        _project(n, labelled.get(n, []), pods, entries.get(n, Entry()), holders.get(n, ""))
        for n in sorted(names)
    ]
    return Found(tuple(found), tuple(notes))


def _labelled(pods: Sequence[Pod]) -> tuple[dict[str, list[Pod]], list[str]]:
    """Pods by the project their labels name."""
    found: dict[str, list[Pod]] = {}
    notes = []
    for pod in pods:
        name = project_of(pod)
        if name is None:
            continue
        if NAME.fullmatch(name):
            found.setdefault(name, []).append(pod)
        else:
            notes.append(f"pod {pod.name}: {name[:80]!r} is no project name")
    return found, notes


def _project(
    name: str, labelled: list[Pod], pods: Sequence[Pod], entry: Entry, holder: str
) -> FoundProject:
    settings, issues = settings_of(entry)
    if settings.get("name") not in (None, name):
        issues.append(f"name: {settings['name']!r} differs from its key {name!r}")
    matching = labelled
    if "pod_selector" in settings:
        selected = _select(settings["pod_selector"], pods, issues)
        matching = labelled if selected is None else selected
    pod = _best(matching, issues, holder.partition("/")[0])
    if pod is None:
        wanted = settings.get("pod_selector")
        issues.append(f"no pod matches {wanted!r}" if wanted else "there is no pod for it")
        return _found(name, settings, None, None, DEFAULT_WORKSPACE, issues)
    container = container_of(pod, issues)
    workspace = _absolute(
        pod.annotations.get(WORKSPACE) or pod.labels.get(WORKSPACE) or DEFAULT_WORKSPACE
    )
    return _found(name, settings, pod, container, workspace, issues)


def _found(
    name: str,
    settings: Mapping[str, Any],
    pod: Pod | None,
    container: Container | None,
    workspace: str,
    issues: list[str],
) -> FoundProject:
    given = settings.get("workspace", workspace)
    if not given.startswith("/"):
        issues.append(f"workspace: {given!r} is not an absolute path")
        given = workspace
    allowed = settings.get("allowed_commands")
    return FoundProject(
        name=name,
        workspace=given,
        phase=Phase.UNREACHABLE if pod is None else phase_of(pod, container),
        description=settings.get("description")
        or (pod.annotations.get(DESCRIPTION, "") if pod else ""),
        namespace=pod.namespace if pod else None,
        pod=pod.name if pod else None,
        pod_uid=_life(pod, container, labelled="pod_selector" not in settings),
        container=container.name if container else None,
        allowed_commands=tuple(allowed) if allowed is not None else None,
        max_concurrent_commands=settings.get("max_concurrent_commands", DEFAULT_MAX_CONCURRENT),
        issues=tuple(issues),
    )


def _life(pod: Pod | None, container: Container | None, *, labelled: bool) -> str | None:
    if pod is None or container is None:
        return None
    return str(Life(pod.uid, container.restarts, pod.name, container.name, labelled))


def phase_of(pod: Pod, container: Container | None) -> Phase:
    """`ready`: commands start there. `pending`: soon, by itself. `unreachable`: not by itself."""
    if pod.terminating or container is None:
        return Phase.UNREACHABLE
    if pod.phase == "Pending":
        return Phase.PENDING
    if pod.phase != "Running":
        return Phase.UNREACHABLE
    if container.ready and container.running:
        return Phase.READY
    return Phase.PENDING if container.running else Phase.UNREACHABLE


def container_of(pod: Pod, issues: list[str]) -> Container | None:
    """The container that commands run in."""
    named = {container.name: container for container in pod.containers}
    for key in CONTAINER:
        wanted = pod.annotations.get(key)
        if wanted in named:
            return named[wanted]
        if wanted:
            issues.append(f"pod {pod.name}: {key} names {wanted!r}, which it has not")
    if len(named) > 1:
        first = pod.containers[0].name
        issues.append(
            f"pod {pod.name} has containers {', '.join(named)}: using {first}; "
            f"the annotation {CONTAINER[0]} chooses another"
        )
    return pod.containers[0] if pod.containers else None


def _best(pods: Sequence[Pod], issues: list[str], holder: str) -> Pod | None:
    """The ready one: the pod of UID `holder`, then the oldest.

    So no newcomer takes a project away, nor a pod of any age that was only now labelled so.
    """

    def order(pod: Pod) -> tuple[int, bool, bool, str, str]:
        phase = phase_of(pod, container_of(pod, []))
        return _RANK[phase], pod.terminating, pod.uid != holder, pod.created, pod.name

    ranked = sorted(pods, key=order)
    if len(ranked) > 1:
        names = ", ".join(pod.name for pod in ranked[:5])
        issues.append(f"{len(ranked)} pods match ({names}): using {ranked[0].name}")
    return ranked[0] if ranked else None


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


# -- settings that people write -------------------------------------------------------------------


def settings_of(entry: Entry) -> tuple[dict[str, Any], list[str]]:
    """The usable settings of an entry, and one issue for each that is not."""
    if entry.problem is not None:
        return {}, [entry.problem]
    if entry.value is None:
        return {}, []
    if not isinstance(entry.value, dict):
        return {}, ["its settings must be a mapping"]
    good, issues = {}, []
    for key, value in entry.value.items():
        problem = _wrong(str(key), value)
        if problem:
            issues.append(f"{str(key)[:80]}: {problem}")
        else:
            good[str(key)] = value
    return good, issues


def _wrong(key: str, value: Any) -> str | None:
    if key not in KEYS:
        return f"is no setting; there are {', '.join(sorted(KEYS))}"
    if key == "allowed_commands":
        kinds = [str(kind) for kind in Kind]
        if not isinstance(value, list) or any(v not in kinds for v in value):
            return f"must be a list of {', '.join(kinds)}"
    elif key == "max_concurrent_commands":
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1000:
            return "must be a whole number from 1 to 1000"
    elif not isinstance(value, str):
        return "must be text"
    elif "\0" in value:
        return "holds NUL"
    return None


# -- selectors ------------------------------------------------------------------------------------

_KEY: Final = r"(?:[A-Za-z0-9.-]+/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?"
_VALUE: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9])?)?"
_EQUALITY: Final = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})")
_SET: Final = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_EXISTS: Final = re.compile(rf"(!?)\s*({_KEY})")


def _select(selector: str, pods: Sequence[Pod], issues: list[str]) -> list[Pod] | None:
    """Pods by name or by labels; None (and an issue) when it is neither."""
    text = selector.strip()
    if _POD_NAME.fullmatch(text):
        return [pod for pod in pods if pod.name == text]
    try:
        return [pod for pod in pods if matches(text, pod.labels)]
    except ValueError as error:
        issues.append(f"pod_selector: {error}")
        return None


def matches(selector: str, labels: Mapping[str, str]) -> bool:
    """Kubernetes' label selectors, all requirements of which must hold. Raises ValueError."""
    requirements = re.split(r",(?![^()]*\))", selector)
    # Each is read, since a wrong requirement is wrong also behind one that does not hold.
    held = [_holds(requirement.strip(), labels) for requirement in requirements]
    return all(held)


def _holds(requirement: str, labels: Mapping[str, str]) -> bool:
    if found := _EQUALITY.fullmatch(requirement):
        return (labels.get(found[1]) == found[3]) == (found[2] != "!=")
    if found := _SET.fullmatch(requirement):
        values = {value.strip() for value in found[3].split(",")}
        return (labels.get(found[1]) in values) == (found[2] == "in")
    if found := _EXISTS.fullmatch(requirement):
        return (found[2] in labels) != bool(found[1])
    raise ValueError(f"{requirement[:80]!r} is neither a pod's name nor a label selector")

"""common/domain/discovery.py: pods and settings become projects, settings winning by field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.domain.command import Reason
from common.domain.discovery import (
    CONTAINER,
    DESCRIPTION,
    NAME_LABEL,
    PROJECT,
    WORKSPACE,
    Container,
    Entry,
    Life,
    Pod,
    matches,
    merge,
    phase_of,
)
from common.domain.project import FoundProject, Phase

UP = Container("claudebox", ready=True, running=True)


def pod(name: str = "demo-0", project: str | None = "demo", **fields: Any) -> Pod:
    labels = fields.pop("labels", {})
    if project is not None:
        labels = {PROJECT: "true", NAME_LABEL: project} | labels
    plain: dict[str, Any] = {"uid": f"uid-{name}", "phase": "Running", "containers": (UP,)}
    return Pod("work", name, labels=labels, **plain | fields)


def only(pods: list[Pod], **entries: Any) -> FoundProject:
    """The one project there is."""
    found = merge(pods, {name: Entry(value) for name, value in entries.items()})
    assert len(found.projects) == 1
    assert found.notes == ()
    return found.projects[0]


def test_a_labelled_pod_is_a_project() -> None:
    """Its labels and annotations say all that is needed."""
    found = only([pod(annotations={DESCRIPTION: "A demo", WORKSPACE: "/src"})])
    assert (found.name, found.description, found.workspace) == ("demo", "A demo", "/src")
    assert (found.namespace, found.pod, found.container) == ("work", "demo-0", "claudebox")
    assert (found.phase, found.issues) == (Phase.READY, ())
    assert found.pod_uid == "uid-demo-0/0/demo-0/claudebox/label"


@pytest.mark.parametrize("value", ["false", "True", "", None])
def test_only_true_makes_a_project(value: str | None) -> None:
    """Any other value of the label, or none, does not."""
    labels = {NAME_LABEL: "demo"} | ({} if value is None else {PROJECT: value})
    assert merge([pod(project=None, labels=labels)], {}).projects == ()


def test_without_a_name_label_the_pod_names_it() -> None:
    """The pod's own name is a project name too."""
    assert only([pod("solo", None, labels={PROJECT: "true"})]).name == "solo"


@pytest.mark.parametrize(
    ("label", "note", "path"),
    [(None, None, "/workspace"), ("src", None, "/src"), ("src", "/deep/er", "/deep/er")],
)
def test_where_the_work_tree_is(label: str | None, note: str | None, path: str) -> None:
    """A label cannot hold a slash and gets one; the annotation wins; else it is /workspace."""
    found = pod(
        labels={} if label is None else {WORKSPACE: label},
        annotations={} if note is None else {WORKSPACE: note},
    )
    assert only([found]).workspace == path


def test_settings_win_field_by_field() -> None:
    """What an entry does not say stays as the pod says."""
    notes = {DESCRIPTION: "of the pod", WORKSPACE: "/pod"}
    found = only(
        [pod(annotations=notes)],
        demo={"workspace": "/entry", "allowed_commands": ["git"], "max_concurrent_commands": 2},
    )
    assert (found.description, found.workspace) == ("of the pod", "/entry")
    assert (found.allowed_commands, found.max_concurrent_commands) == (("git",), 2)


def test_a_bad_field_is_an_issue_and_the_others_count() -> None:
    """Each wrong value says what is wrong, and the good ones are used."""
    found = only(
        [pod()],
        demo={
            "description": "good",
            "max_concurrent_commands": 0,
            "allowed_commands": ["dance"],
            "workspace": 7,
            "color": "red",
            "name": "other",
        },
    )
    assert found.description == "good"
    assert found.max_concurrent_commands == 5
    assert [issue.partition(":")[0] for issue in found.issues] == [
        "max_concurrent_commands",
        "allowed_commands",
        "workspace",
        "color",
        "name",
    ]


@pytest.mark.parametrize("value", [["a list"], "text", 7])
def test_an_entry_that_is_no_mapping_is_an_issue(value: object) -> None:
    """The project lives on as its pod says."""
    found = only([pod()], demo=value)
    assert (found.phase, found.issues) == (Phase.READY, ("its settings must be a mapping",))


def test_an_entry_that_cannot_be_read_spoils_no_other() -> None:
    """Its own project says why; the other one knows nothing of it."""
    entries = {"bad": Entry(problem="bad.yaml cannot be read in line 2"), "demo": Entry({})}
    bad, good = merge([pod(), pod("bad-0", "bad")], entries).projects
    assert bad.issues == ("bad.yaml cannot be read in line 2",)
    assert good.issues == ()


def test_a_workspace_must_be_absolute() -> None:
    """A relative path is an issue, and the pod's word counts."""
    found = only([pod()], demo={"workspace": "src"})
    assert found.workspace == "/workspace"
    assert found.issues == ("workspace: 'src' is not an absolute path",)


def test_settings_without_a_pod_are_an_unreachable_project() -> None:
    """People see that it is configured, and why nothing can run there."""
    found = only([], demo={"pod_selector": "app=demo"})
    assert (found.phase, found.pod) == (Phase.UNREACHABLE, None)
    assert found.issues == ("no pod matches 'app=demo'",)
    assert only([], demo={}).issues == ("there is no pod for it",)


def test_a_selector_is_a_pods_name_or_labels() -> None:
    """Both find the pod; labels of rdev are not needed then."""
    pods = [pod("db-0", None, labels={"app": "db"}), pod("web-0", None, labels={"app": "web"})]
    assert only(pods, demo={"pod_selector": "web-0"}).pod == "web-0"
    found = only(pods, demo={"pod_selector": "app in (db)"})
    assert (found.pod, found.pod_uid) == ("db-0", "uid-db-0/0/db-0/claudebox/selector")


def test_a_selector_replaces_the_labels() -> None:
    """A pod that only carries the name is not taken when the settings say another."""
    pods = [pod("forged", "demo"), pod("real", None, labels={"app": "demo"})]
    assert only(pods, demo={"pod_selector": "app=demo"}).pod == "real"


def test_a_selector_that_is_none_is_an_issue() -> None:
    """The labelled pod stays the project's."""
    found = only([pod()], demo={"pod_selector": "app==(x"})
    assert found.pod == "demo-0"
    assert "neither a pod's name nor a label selector" in found.issues[0]


def test_of_several_pods_the_ready_one_and_the_oldest_first() -> None:
    """A newcomer does not take a project away; readiness does. Both is said."""
    young = pod("young", created="2026-01-02T00:00:00Z")
    old = pod("old", created="2026-01-01T00:00:00Z")
    down = pod("aged", created="2025-01-01T00:00:00Z", phase="Failed")
    found = only([young, down, old])
    assert found.pod == "old"
    assert found.issues == ("3 pods match (old, young, aged): using old",)


def test_a_terminating_pod_is_the_last_choice() -> None:
    """Of two that cannot be used, the one that stays."""
    leaving = pod("a", created="2025-01-01T00:00:00Z", terminating=True)
    failed = pod("b", created="2026-01-01T00:00:00Z", phase="Failed")
    assert only([leaving, failed]).pod == "b"


@pytest.mark.parametrize("key", CONTAINER)
def test_an_annotation_chooses_the_container(key: str) -> None:
    """rdev's own and kubectl's."""
    two = (UP, Container("tools", ready=True, running=True, restarts=3))
    found = only([pod(containers=two, annotations={key: "tools"})])
    assert (found.container, found.issues) == ("tools", ())
    assert found.pod_uid == "uid-demo-0/3/demo-0/tools/label"


def test_without_a_choice_the_first_container_and_a_word_about_it() -> None:
    """So does an annotation that names none of them."""
    two = (UP, Container("tools"))
    assert "using claudebox" in only([pod(containers=two)]).issues[0]
    wrong = only([pod(containers=two, annotations={CONTAINER[0]: "nobody"})])
    assert wrong.container == "claudebox"
    assert "which it has not" in wrong.issues[0]


@pytest.mark.parametrize(
    ("fields", "container", "phase"),
    [
        ({}, UP, Phase.READY),
        ({}, Container("c", running=True), Phase.PENDING),
        ({}, Container("c", restarts=4), Phase.UNREACHABLE),
        ({}, None, Phase.UNREACHABLE),
        ({"phase": "Pending"}, Container("c"), Phase.PENDING),
        ({"phase": "Succeeded"}, UP, Phase.UNREACHABLE),
        ({"phase": "Unknown"}, UP, Phase.UNREACHABLE),
        ({"terminating": True}, UP, Phase.UNREACHABLE),
    ],
)
def test_phases(fields: dict[str, Any], container: Container | None, phase: Phase) -> None:
    """Ready where a command would start now, pending where waiting is enough."""
    assert phase_of(pod(**fields), container) is phase


def test_names_that_are_none_are_said() -> None:
    """Pods and entries with impossible names are notes, since no project can say it."""
    found = merge([pod("UPPER", None, labels={PROJECT: "true"})], {"not a name": Entry({})})
    assert found.projects == ()
    assert len(found.notes) == 2


@pytest.mark.parametrize(
    ("selector", "labels", "holds"),
    [
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "c"}, False),
        ("a!=b", {}, True),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("a in (b, c)", {"a": "c"}, True),
        ("a notin (b,c)", {"a": "c"}, False),
        ("a notin (b)", {}, True),
        ("a=b,c in (d,e),!f", {"a": "b", "c": "e"}, True),
        ("example.com/a=b", {"example.com/a": "b"}, True),
        ("a=", {"a": ""}, True),
    ],
)
def test_selectors(selector: str, labels: dict[str, str], holds: bool) -> None:
    """As Kubernetes reads them."""
    assert matches(selector, labels) is holds


@pytest.mark.parametrize("selector", ["a=b,", "a in b", "a=(b)", "=b", "a b", "a>1", ""])
def test_a_wrong_selector_is_an_error_wherever_it_is_wrong(selector: str) -> None:
    """Also behind a requirement that does not hold."""
    with pytest.raises(ValueError, match="neither"):
        matches(f"x=y,{selector}", {})


def test_a_life_is_read_back_from_its_text() -> None:
    """And text that is none is none."""
    life = Life("u", 2, "p", "c", labelled=True)
    assert Life.parse(str(life)) == life
    assert Life.parse("") is None
    assert Life.parse("u/x/p/c/label") is None


def test_how_a_life_ends() -> None:
    """Another UID is another pod; another restart count of its container is another life."""
    life = Life("uid-demo-0", 0, "demo-0", "claudebox", labelled=True)
    assert life.ended(pod()) is None
    assert life.ended(pod(uid="another")) is Reason.POD_DELETED
    again = Container("claudebox", restarts=1)
    assert life.ended(pod(containers=(again,))) is Reason.POD_RESTARTED
    other = Container("sidecar", restarts=9)
    assert life.ended(pod(containers=(UP, other))) is None


def test_a_pod_can_leave_its_project() -> None:
    """By its labels, when they were what made it the project's."""
    moved = pod(project="other")
    assert Life("u", 0, "demo-0", "c", labelled=True).has_left(moved, "demo")
    assert not Life("u", 0, "demo-0", "c", labelled=False).has_left(moved, "demo")
    assert not Life("u", 0, "demo-0", "c", labelled=True).has_left(pod(), "demo")


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_keys = st.sampled_from(
    ["name", "description", "pod_selector", "workspace", "allowed_commands", "x"]
)


@given(
    st.dictionaries(
        st.sampled_from(["demo", "other", "Bad"]), _values | st.dictionaries(_keys, _values)
    )
)
def test_no_settings_break_the_others(values: dict[str, Any]) -> None:
    """Whatever an entry holds, the labelled project is there and absolute."""
    found = merge([pod()], {name: Entry(value) for name, value in values.items()})
    assert "demo" in {project.name for project in found.projects}
    assert all(project.workspace.startswith("/") for project in found.projects)

"""Projects: list, show, claude's sessions in one, and the short forms that create a command."""

from __future__ import annotations

from operator import attrgetter

from common.domain import identifiers
from common.domain.resources import project_resource, session_resource
from common.entrypoints import examples, pages
from common.entrypoints.call import Call, Later, Reply
from common.entrypoints.function import Function
from common.entrypoints.models.base import PageQuery
from common.entrypoints.models.commands import ClaudeFields, GitFields, ShellFields
from common.entrypoints.submission import submit

function = Function(
    name="projects",
    summary="Projects and the short forms that run a command in one",
    prefixes=("/v1/projects",),
    secret_keys=True,
)


@function.get("/v1/projects", summary="List projects", scope="projects:read",
              answer="ProjectPage", answer_example=examples.page_of(examples.PROJECT))  # fmt: skip
def listed(call: Call) -> Reply:
    found = call.app.read_projects.many(call.caller)
    return Reply({"items": [project_resource(p) for p in found], "next_cursor": None})


@function.get("/v1/projects/{project}", summary="Show a project", scope="projects:read",
              answer="Project", answer_example=examples.PROJECT)  # fmt: skip
def show(call: Call) -> Reply:
    return Reply(project_resource(call.app.read_projects.one(call.path["project"], call.caller)))


@function.get("/v1/projects/{project}/sessions", summary="List claude's sessions there, the last used first",
              scope="commands:read", query=PageQuery, answer="SessionPage",
              answer_example=examples.page_of(examples.SESSION))  # fmt: skip
def sessions(call: Call) -> Reply:
    q: PageQuery = call.query
    before = pages.before(identifiers.COMMAND, q.cursor)
    found = call.app.read_sessions.many(call.path["project"], before, q.limit + 1, call.caller)
    place = attrgetter("last_command")
    return Reply(pages.page(found, q.limit, identifiers.COMMAND, session_resource, place))


@function.get("/v1/projects/{project}/sessions/{id}", summary="Show a session: turns, cost, who holds it",
              scope="commands:read", answer="Session", answer_example=examples.SESSION)  # fmt: skip
def session(call: Call) -> Reply:
    found = call.app.read_sessions.one(call.path["project"], call.path["id"], call.caller)
    return Reply(session_resource(found))


@function.post("/v1/projects/{project}/shell", summary="Run a shell command there",
               scope="commands:write:shell", body=ShellFields, idempotent=True, status=202,
               body_example={"script": "make test"}, answer="Command", answer_example=examples.COMMAND)  # fmt: skip
def shell(call: Call, body: ShellFields) -> Reply | Later:
    return submit(call, body.command(call.path["project"]))


@function.post("/v1/projects/{project}/git", summary="Run git there", scope="commands:write:git",
               body=GitFields, idempotent=True, status=202, body_example={"args": ["log", "--oneline", "-5"]},
               answer="Command", answer_example=examples.COMMAND)  # fmt: skip
def git(call: Call, body: GitFields) -> Reply | Later:
    return submit(call, body.command(call.path["project"]))


@function.post("/v1/projects/{project}/claude", summary="Run claude there", scope="commands:write:claude",
               body=ClaudeFields, idempotent=True, status=202, body_example={"prompt": "Fix the failing test"},
               answer="Command", answer_example=examples.COMMAND)  # fmt: skip
def claude(call: Call, body: ClaudeFields) -> Reply | Later:
    return submit(call, body.command(call.path["project"]))


handle = function.target()

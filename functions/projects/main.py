"""Projects: list, show, and the short forms that create a command in one."""

from __future__ import annotations

from common.domain.resources import project_resource
from common.entrypoints import examples
from common.entrypoints.call import Call, Later, Reply
from common.entrypoints.function import Function
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

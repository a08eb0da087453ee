"""What claude reads in a project's `.claude`: commands, skills and agents, checked and changed."""

from __future__ import annotations

from common.domain import config_resources as resources
from common.domain.claude_config import Kind
from common.entrypoints import config_examples as examples
from common.entrypoints.call import Call, Reply
from common.entrypoints.conditions import etag, if_match
from common.entrypoints.function import Account, Function, Scale
from common.entrypoints.models.claude_config import CreateDefinition, HowStrict, UpdateDefinition
from common.services.manage_claude_config import View

READ, WRITE = "claude-config:read", "claude-config:write"
KINDS = "/v1/claude-config/{project}/{kind}"
ONE = KINDS + "/{name}"

function = Function(
    name="claude_config",
    summary="Commands, skills and agents in a workspace's .claude: checked, written, explained",
    prefixes=("/v1/claude-config",),
    account=Account.RUNNER,
    scale=Scale(target=10, concurrency=20),  # each request holds an exec or two
)


def _kind(call: Call) -> Kind:
    return Kind.of(call.path["kind"])


def _shown(view: View, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    tag = {"etag": etag(view.etag)} if view.etag else {}
    content = resources.definition_resource(view.definition, view.effect, view.issues)
    return Reply(content, status, tag | (headers or {}))


@function.get("/v1/claude-config/{project}/effective", scope=READ,
              summary="What claude will load of all that is there, and why not of the rest",
              others={409: "The workspace would not be looked into"},
              answer="EffectiveConfig", answer_example=examples.EFFECTIVE)  # fmt: skip
def effective(call: Call) -> Reply:
    found, tree = call.app.manage_claude_config.effective(call.path["project"], call.caller)
    return Reply(resources.effective_resource(found, tree))


@function.post(KINDS + ":validate", scope=READ, body=CreateDefinition, body_example=examples.CREATE,
               summary="Check a definition and write nothing", answer="ConfigVerdict",
               answer_example=examples.VERDICT)  # fmt: skip
def validate(call: Call, body: CreateDefinition) -> Reply:
    wanted = body.definition(_kind(call))
    issues = call.app.manage_claude_config.validate(call.path["project"], wanted, call.caller)
    return Reply(resources.verdict_resource(issues))


@function.get(KINDS, scope=READ, summary="List the commands, skills or agents, broken ones too",
              others={409: "The folder is a link"}, answer="ConfigPage", answer_example=examples.PAGE)  # fmt: skip
def listed(call: Call) -> Reply:
    project, kind = call.path["project"], _kind(call)
    found, truncated = call.app.manage_claude_config.many(project, kind, call.caller)
    items = [resources.line_resource(item.effect, item.issues) for item in found]
    return Reply({"items": items, "next_cursor": None, "truncated": truncated})


@function.post(KINDS, scope=WRITE, body=CreateDefinition, query=HowStrict, idempotent=True, status=201,
               summary="Create one; the same content again is the same creation", body_example=examples.CREATE,
               others={409: "It is there with other content, or something is in the way"},
               answer="ConfigDefinition", answer_example=examples.DEFINITION)  # fmt: skip
def create(call: Call, body: CreateDefinition) -> Reply:
    project, wanted = call.path["project"], body.definition(_kind(call))
    view = call.app.manage_claude_config.create(
        project, wanted, call.caller, call.origin, lenient=call.query.how == "lenient"
    )
    location = f"/v1/claude-config/{project}/{wanted.kind}/{wanted.name}"
    return _shown(view, 201, {"location": location})


@function.get(ONE, scope=READ, summary="Show one in full, with its ETag",
              others={409: "It is a link, or larger than rdev carries", 422: "The name"},
              answer="ConfigDefinition", answer_example=examples.DEFINITION)  # fmt: skip
def show(call: Call) -> Reply:
    project, name = call.path["project"], call.path["name"]
    return _shown(call.app.manage_claude_config.one(project, _kind(call), name, call.caller))


@function.put(ONE, scope=WRITE, body=UpdateDefinition, query=HowStrict, body_example=examples.UPDATE,
              summary="Replace one whose ETag is in If-Match", conditional=True,
              others={409: "Something is in the way"}, answer="ConfigDefinition", answer_example=examples.DEFINITION)  # fmt: skip
def update(call: Call, body: UpdateDefinition) -> Reply:
    view = call.app.manage_claude_config.update(
        call.path["project"], body.definition(_kind(call), call.path["name"]),
        if_match(call.headers), call.caller, call.origin,
        keep_files=body.files is None, lenient=call.query.how == "lenient",
    )  # fmt: skip
    return _shown(view)


@function.delete(ONE, scope=WRITE, summary="Remove one whose ETag is in If-Match", conditional=True,
                 status=204, others={409: "Something is in the way", 422: "The name"})  # fmt: skip
def delete(call: Call) -> Reply:
    call.app.manage_claude_config.delete(
        call.path["project"], _kind(call), call.path["name"], if_match(call.headers),
        call.caller, call.origin,
    )  # fmt: skip
    return Reply(status=204)


handle = function.target()

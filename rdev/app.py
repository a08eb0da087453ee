"""What every verb needs: the settings, the console, and the server once it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rdev.errors import ServerFault, WrongUsage
from rdev.output import Console
from rdev.settings import Settings

if TYPE_CHECKING:
    from rdev.http import Api

MOST_PROJECTS = 1000


@dataclass(frozen=True, slots=True)
class App:
    """One invocation of `rdev`."""

    settings: Settings
    console: Console

    @classmethod
    def from_environment(cls) -> App:
        """This process's environment and streams."""
        settings = Settings.from_environment()
        return cls(settings, Console(settings.environ))

    def connect(self) -> Api:
        """The server that the settings name.

        Raises Unreachable when none is named, NotAllowed without a key. No request is made yet.
        """
        # httpx takes a tenth of a second to import; `rdev --help` and `rdev up` do without.
        from rdev.http import Api

        return Api(self.settings.server(), tell=self.console.say)

    def project(self, api: Api, named: str | None) -> str:
        """The project to work in: the named one, RDEV_PROJECT or the profile's, or the only one.

        Raises WrongUsage when that leaves a choice.
        """
        chosen = named or api.server.project
        if chosen is not None:
            return chosen
        names = [project_name(p) for p in api.pages("/v1/projects", {}, limit=MOST_PROJECTS)]
        if len(names) != 1:
            raise WrongUsage(_which_project(names))
        self.console.say(f"in {names[0]}, the only project")
        return names[0]


def project_name(value: Any) -> str:
    """The name in a project resource; raises ServerFault when there is none."""
    if isinstance(value, dict) and isinstance(value.get("name"), str):
        return str(value["name"])
    raise ServerFault("the server's answer is not a project; is this an rdev server?")


def _which_project(names: list[str]) -> str:
    if not names:
        return "there is no project that this key may see"
    return f"which project? use -p with one of: {', '.join(sorted(names))}"

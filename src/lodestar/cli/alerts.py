"""`lodestar alerts …`: what is firing, and whether the channels work."""

from typing import Annotated

import typer

from lodestar.cli.edge import guarded
from lodestar.cli.options import Env, Json, the_environment

__all__ = ["alerts_app"]

UNDELIVERED = 4

alerts_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Look at alerts, and try out the channels.",
)


@alerts_app.command("list")
def alerts_list(env: Env = None, as_json: Json = False) -> None:
    """List what is pending and firing now."""
    with guarded(as_json=as_json) as out:
        environment = the_environment(env)
        from lodestar.cli.alert_views import AlertsView
        from lodestar.factory.alerts import Alerting

        section = environment.config.alerts
        state = Alerting(environment).state()
        out.show(AlertsView(state, len(section.rules), list(section.channels)))


@alerts_app.command("test")
def alerts_test(
    channel: Annotated[str | None, typer.Option(help="This channel alone.")] = None,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Send a test message through every channel, and say which took it."""
    with guarded(as_json=as_json) as out:
        environment = the_environment(env)
        from lodestar.cli.alert_views import TriedView
        from lodestar.factory.alerts import Alerting

        tested = Alerting(environment).test(channel)
        out.show(TriedView(tested))
        if any(one.problem for one in tested):
            raise typer.Exit(UNDELIVERED)

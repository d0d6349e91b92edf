"""The command line: parses, calls one pipeline, prints. Heavy libraries load inside the commands."""

import gc
import os
from typing import TYPE_CHECKING, Annotated

import typer

from lodestar.cli.alerts import alerts_app
from lodestar.cli.checking import add_check_command
from lodestar.cli.deploy import deploy_app
from lodestar.cli.edge import WORSE, guarded
from lodestar.cli.features import add_feature_commands
from lodestar.cli.infra import infra_app
from lodestar.cli.making import add_init_command
from lodestar.cli.monitoring import FailOnDrift, add_monitoring_commands
from lodestar.cli.options import (
    Env,
    Json,
    Overrides,
    Params,
    RecipeFile,
    RunId,
    the_environment,
    the_settings,
)
from lodestar.cli.promotion import add_promotion_commands
from lodestar.cli.serving import add_serving_commands, prove_ahead
from lodestar.cli.tracing import traced

if TYPE_CHECKING:
    from lodestar.core.performance import Comparison

__all__ = ["app", "main"]

app = typer.Typer(
    name="lodestar",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
runs_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Look at the runs of this project."
)
app.add_typer(runs_app, name="runs")
app.add_typer(infra_app, name="infra")
app.add_typer(deploy_app, name="deploy")
app.add_typer(alerts_app, name="alerts")
add_init_command(app)

FailOnDegradation = Annotated[
    bool,
    typer.Option(
        "--fail-on-degradation",
        help=f"Exit with {WORSE} where it is worse than baseline or champion.",
    ),
]


def _say_version(wanted: bool) -> None:
    if wanted:
        from lodestar import __version__

        typer.echo(f"lodestar {__version__}")
        raise typer.Exit


@app.callback()
def every_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_say_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """One recipe, one config per environment, one artifact that batch and API both run."""


@app.command()
def train(
    recipe_file: RecipeFile = None,
    context_params: Params = None,
    overrides: Overrides = None,
    env: Env = None,
    strict: Annotated[bool, typer.Option("--strict", help="Possible leakage is an error.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue a search that was killed or interrupted.")
    ] = False,
    fail_on_degradation: FailOnDegradation = False,
    as_json: Json = False,
) -> None:
    """Train a recipe and leave one artifact in MLflow."""
    with guarded(as_json=as_json) as out:
        from lodestar.settings.loading import parse_context_params

        settings = the_settings(recipe_file, env, overrides)
        params = parse_context_params(context_params)
        from lodestar.cli.alerting import show_with_alerts
        from lodestar.cli.present import TrainView
        from lodestar.pipelines.train import train as run

        with (
            out.progress() as progress,
            traced(settings.environment, "train", progress) as steps,
        ):
            trained = run(settings, params, strict=strict, resume=resume, progress=steps)
            steps.about(recipe=trained.recipe, run_id=trained.saved.run_id)
            prove_ahead(settings.environment, trained.saved.run_id, progress)
        serving = settings.environment.config.environment.serving
        view = TrainView(trained, serves=serving == "allowed")
        show_with_alerts(out, view, settings.environment, trained)
        _exit_if_worse(trained.performance, asked=fail_on_degradation)


@app.command("batch-inference")
def batch_inference(
    run_id: RunId,
    context_params: Params = None,
    output: Annotated[str | None, typer.Option(help="Where the predictions go.")] = None,
    fail_on_drift: FailOnDrift = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Score only what an interrupted batch has left.")
    ] = False,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Score a batch with a run's artifact."""
    # Read when Arrow loads. Its own allocators keep freed pages: 40 MB more at the peak of a batch.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    with guarded(as_json=as_json) as out:
        from lodestar.settings.loading import parse_context_params

        environment, params = the_environment(env), parse_context_params(context_params)
        from lodestar.cli.alerting import show_with_alerts
        from lodestar.cli.present import BatchView
        from lodestar.pipelines.batch_inference import batch_inference as run

        with out.progress() as progress, traced(environment, "batch-inference", progress) as steps:
            scored = run(environment, run_id, params, output=output, resume=resume, progress=steps)
            steps.about(recipe=scored.recipe, run_id=scored.run_id, rows=scored.rows)
        show_with_alerts(out, BatchView(scored), environment, scored)
        if fail_on_drift and scored.drift is not None and scored.drift.verdict == "drift":
            raise typer.Exit(WORSE)


@app.command()
def evaluate(
    run_id: RunId,
    data: Annotated[str | None, typer.Option(help="Labelled data: a file or URI.")] = None,
    context_params: Params = None,
    fail_on_degradation: FailOnDegradation = False,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Judge a run's artifact on labelled data."""
    with guarded(as_json=as_json) as out:
        from lodestar.settings.loading import parse_context_params

        environment, params = the_environment(env), parse_context_params(context_params)
        from lodestar.cli.alerting import show_with_alerts
        from lodestar.cli.present import EvaluateView
        from lodestar.pipelines.evaluate import evaluate as run

        with out.progress() as progress, traced(environment, "evaluate", progress) as steps:
            evaluated = run(environment, run_id, params, data=data, progress=steps)
            steps.about(recipe=evaluated.recipe, run_id=evaluated.run_id)
        show_with_alerts(out, EvaluateView(evaluated), environment, evaluated)
        _exit_if_worse(evaluated.performance, asked=fail_on_degradation)


@app.command()
def verify(run_id: RunId, env: Env = None, as_json: Json = False) -> None:
    """Check an artifact's files, versions and probe."""
    with guarded(as_json=as_json) as out:
        environment = the_environment(env)
        from lodestar.cli.present import VerifyView
        from lodestar.pipelines.verify import verify as run

        out.show(VerifyView(run(environment, run_id)))


@app.command()
def schema(
    which: Annotated[str, typer.Argument(help="recipe, config or features")],
) -> None:
    """Print the JSON Schema of recipe, config or features."""
    with guarded(as_json=False):
        import json

        from pydantic import BaseModel

        from lodestar.errors import UsageError, choices
        from lodestar.settings.config import Config
        from lodestar.settings.features import FeatureView
        from lodestar.settings.recipe import Recipe

        models: dict[str, type[BaseModel]] = {
            "recipe": Recipe,
            "config": Config,
            "features": FeatureView,
        }
        if which not in models:
            raise UsageError(f"there is no schema {which!r}", hint=choices(which, list(models)))
        typer.echo(json.dumps(models[which].model_json_schema(), indent=2))


@runs_app.command("list")
def runs_list(
    most: Annotated[int, typer.Option("--most", min=1, help="How many, newest first.")] = 20,
    env: Env = None,
    as_json: Json = False,
) -> None:
    """List the newest runs."""
    with guarded(as_json=as_json) as out:
        environment = the_environment(env)
        from lodestar.cli.present import RunsView
        from lodestar.factory.environment import EnvironmentFactory

        out.show(RunsView(EnvironmentFactory(environment).store().runs(most=most)))


@runs_app.command("show")
def runs_show(
    run: Annotated[str, typer.Argument(help="Run id or a unique prefix.")],
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Show one run: its metrics and parameters."""
    with guarded(as_json=as_json) as out:
        environment = the_environment(env)
        from lodestar.cli.present import RunView
        from lodestar.factory.environment import EnvironmentFactory

        out.show(RunView(EnvironmentFactory(environment).store().find(run)))


@runs_app.command("compare")
def runs_compare(
    first: Annotated[str, typer.Argument(help="Run id or a unique prefix.")],
    second: Annotated[str, typer.Argument(help="Run id or a unique prefix.")],
    env: Env = None,
    as_json: Json = False,
) -> None:
    """Compare two runs: metrics, and the parameters that differ."""
    with guarded(as_json=as_json) as out:
        environment = the_environment(env)
        from lodestar.cli.present import CompareView
        from lodestar.factory.environment import EnvironmentFactory

        store = EnvironmentFactory(environment).store()
        out.show(CompareView(store.find(first), store.find(second)))


def _exit_if_worse(performance: "tuple[Comparison, ...]", *, asked: bool) -> None:
    from lodestar.pipelines.performance import degraded

    if asked and degraded(performance):
        raise typer.Exit(WORSE)


# `--help` lists commands in the order in which they are added.
add_monitoring_commands(app)
add_check_command(app)
add_serving_commands(app)
add_promotion_commands(app, runs_app)
add_feature_commands(app)


def main() -> None:
    """Run the command line."""
    # Imports make a million objects that stay; the collector looking through them over and over is a
    # tenth of a command's time.
    gc.set_threshold(50_000, 20, 100)
    # Read when OpenMP loads. Its threads else spin while they wait for each other, and two of them on
    # a core that others use as well are 20 times slower than one.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()

"""Give a run an alias such as `champion`, after a look at its artifact; give it back."""

from collections.abc import Callable
from dataclasses import dataclass

from lodestar.artifact.aliases import Holder, Moved
from lodestar.artifact.contract import contract_of
from lodestar.artifact.references import check_alias
from lodestar.artifact.register import OpenedRun
from lodestar.artifact.store import RunStore
from lodestar.artifact.wrapper import PyfuncWrapper, load_wrapper
from lodestar.errors import ArtifactError
from lodestar.factory.environment import EnvironmentFactory
from lodestar.interface.progress import Progress
from lodestar.settings.loading import Environment

__all__ = ["Promotion", "promote", "rollback"]


@dataclass(frozen=True)
class Promotion:
    """Who has an alias now and who had it before; `differences` were overruled by force."""

    now: Holder
    before: Holder | None
    differences: tuple[str, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether anything had to be done."""
        return self.before is None or self.before.version != self.now.version


def promote(
    environment: Environment,
    reference: str,
    alias: str,
    *,
    force: bool,
    tell: Progress,
    then: Callable[[OpenedRun, PyfuncWrapper], None] | None = None,
) -> Promotion:
    """Verify a run's artifact, hold its contract against the present holder's, and move the alias.

    `then` is given the artifact, which is loaded, once the alias is moved.

    Raises:
        UsageError: no name for an alias, or no such run.
        ArtifactError: the artifact is not what it was; or, without `force`, callers would notice the
            exchange, or the present holder cannot be looked at.
    """
    check_alias(alias)
    store = EnvironmentFactory(environment).store()
    tell.stage("Verifying the artifact")
    with store.opened(reference) as opened:
        wrapper, warnings = load_wrapper(opened.folder, digest=opened.digest)
        for note in (*opened.notes, *warnings):
            tell.note(note)
        tell.stage("Comparing it with the present holder")
        holder = store.holder(wrapper.contents.recipe_name, alias)
        differences: tuple[str, ...] = ()
        if holder is not None and holder.run_id != opened.run_id:
            differences = _differences(store, holder, wrapper, force=force)
        tell.stage("Moving the alias")
        moved = store.promote(opened.run_id, alias)
        if then is not None:
            then(opened, wrapper)
    return _promotion(moved, differences)


def rollback(environment: Environment, alias: str, recipe: str | None) -> Promotion:
    """Give an alias back to the run that had it before.

    Raises:
        UsageError: nobody has it, or nobody had it before.
    """
    return _promotion(EnvironmentFactory(environment).store().rollback(alias, recipe))


def _promotion(moved: Moved, differences: tuple[str, ...] = ()) -> Promotion:
    return Promotion(moved.now, moved.before, differences)


def _differences(
    store: RunStore, holder: Holder, wrapper: PyfuncWrapper, *, force: bool
) -> tuple[str, ...]:
    """What callers would notice; refused unless forced."""
    try:
        with store.opened(holder.run_id) as opened:
            present, _ = load_wrapper(opened.folder, digest=opened.digest)
    except ArtifactError as error:
        if force:
            return (f"{holder.alias} could not be looked at: {error.what}",)
        raise ArtifactError(
            f"{holder.alias} is run {holder.run_id}, which cannot be compared with: {error.what}",
            hint="--force promotes all the same",
        ) from error
    found = contract_of(present.contents).differences(contract_of(wrapper.contents))
    if found and not force:
        raise ArtifactError(
            f"callers of {holder.recipe}@{holder.alias} would notice the exchange:\n  "
            + "\n  ".join(found),
            hint="--force promotes all the same",
        )
    return found

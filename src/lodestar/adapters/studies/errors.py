"""What Optuna and its databases say when a study cannot be used, as our errors: never a password."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import optuna
from sqlalchemy.exc import SQLAlchemyError

from lodestar.errors import ExternalError, first_line

__all__ = ["busy", "translated", "unusable"]

OF_THE_CONFIG = "see hyperparameter_tuning.storage in the config"


@contextmanager
def translated(name: str, secrets: Sequence[str] = ()) -> Iterator[None]:
    """Raise ExternalError for whatever keeps the study `name` from being opened."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise unusable(
            name, error, secrets, hint="pip install 'lodestar-ml[postgres]', or another driver"
        ) from error
    except (
        optuna.exceptions.OptunaError,
        SQLAlchemyError,
        OSError,
        ImportError,
        ValueError,
    ) as error:
        raise unusable(name, error, secrets) from error
    except (KeyError, TypeError, AssertionError) as error:
        # A journal that holds something else than a study.
        raise unusable(name, ValueError("it holds no study of Optuna's")) from error


def unusable(
    name: str, error: Exception, secrets: Sequence[str] = (), *, hint: str = OF_THE_CONFIG
) -> ExternalError:
    """The first line of what was said, which has no SQL in it, without any of the secrets."""
    reason = first_line(error.__cause__ or error)
    for secret in filter(None, secrets):
        reason = reason.replace(secret, "***")
    return ExternalError(f"the study {name} cannot be used: {reason}", hint=hint)


def busy(name: str) -> ExternalError:
    """Two writers of one study would try each slot twice."""
    return ExternalError(
        f"another command is running the search {name}", hint="wait for it, or stop it"
    )

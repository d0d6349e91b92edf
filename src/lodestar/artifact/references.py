"""What names a run: its id or digest, a prefix of these, or an alias in the model registry."""

import re
from dataclasses import dataclass

from lodestar.errors import UsageError

__all__ = ["Reference", "check_alias", "parse_reference"]

RUN_ID = 32
DIGEST = 64
_HEX = re.compile(r"^[0-9a-f]{4,64}$")
_ALIAS = re.compile(r"^(?:(?P<recipe>[\w. -]{1,200})@)?(?P<alias>[A-Za-z0-9_-]{1,100})$", re.ASCII)
_RESERVED = re.compile(r"^(latest|v[0-9]+)$", re.IGNORECASE)
_ONLY_HEX = re.compile(r"^[0-9a-f]+$")


@dataclass(frozen=True)
class Reference:
    """Either `prefix` is set, or `alias` and perhaps the `recipe` whose alias it is."""

    text: str
    prefix: str | None = None
    alias: str | None = None
    recipe: str | None = None

    @property
    def is_run_id(self) -> bool:
        """Whether it has the length of a whole run id."""
        return self.prefix is not None and len(self.prefix) == RUN_ID

    @property
    def is_digest(self) -> bool:
        """Whether it is a whole digest."""
        return self.prefix is not None and len(self.prefix) == DIGEST


def parse_reference(text: str) -> Reference:
    """Read `a1b2c3d4`, `champion` or `uplift_model_exp3@champion`.

    Raises:
        UsageError: it is none of these.
    """
    if _HEX.match(text):
        return Reference(text, prefix=text)
    found = _ALIAS.match(text)
    if found is None or (found["recipe"] is None and _ONLY_HEX.match(text)):
        raise UsageError(
            f"{text!r} is no run id and no alias: run ids and digests are 4 to 64 of 0-9 and a-f, "
            "aliases have letters, digits, _ and -",
            hint="lodestar runs list shows the runs; an alias may say its recipe: recipe@champion",
        )
    return Reference(text, alias=found["alias"], recipe=found["recipe"])


def check_alias(name: str) -> None:
    """Refuse a name that could not be told from a run id, or that MLflow keeps for itself.

    Raises:
        UsageError: saying what a name may be.
    """
    found = _ALIAS.match(name)
    if found is None or found["recipe"] is not None:
        raise UsageError(
            f"{name!r} is no alias", hint="letters, digits, _ and -, 100 at most; f.e. champion"
        )
    if _ONLY_HEX.match(name) or _RESERVED.match(name):
        why = "MLflow keeps it for itself" if _RESERVED.match(name) else "it reads as a run id"
        raise UsageError(f"{name!r} cannot be an alias: {why}", hint="f.e. champion, challenger")

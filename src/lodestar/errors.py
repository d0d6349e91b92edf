"""The errors a user can meet, and the exit code that each one ends the command with.

```
LodestarError                 1  a bug of ours, when raised bare
├── UsageError                2  the command line
├── SettingsError             2  recipe or config: every problem of the files at once
├── DataError                 3  the rows themselves
│   ├── SchemaError           3  columns gone, new or of another type
│   └── IncompleteError       3  parts of a batch failed; the others are kept
├── ExternalError             4  an outside system is unreachable or refuses
│   └── UnreachableError      4  the tracking server does not answer
├── NotAllowedError           5  this environment does not do that
└── ArtifactError             6  tampered with, mismatched or incompatible
```
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar

__all__ = [
    "ArtifactError",
    "DataError",
    "ExternalError",
    "IncompleteError",
    "LodestarError",
    "NotAllowedError",
    "Problem",
    "SchemaError",
    "SettingsError",
    "UnreachableError",
    "UsageError",
    "choices",
    "described",
    "first_line",
]


class LodestarError(Exception):
    """What is wrong, where (`file:line:key` for YAML), and a hint that names what would be right."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{place}{self.what}{hint}"


class UsageError(LodestarError):
    """The command line asks for something that cannot be."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a recipe or config file; `extra` is what to install where nothing else is."""

    what: str
    where: str
    hint: str | None = None
    extra: str | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"\n  hint: {self.hint}" if self.hint else "")


class SettingsError(LodestarError):
    """Everything that is wrong in the recipe and config files, in the order of the files."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        first = problems[0]
        super().__init__(first.what, where=first.where, hint=first.hint)
        self.problems = tuple(problems)

    @classmethod
    def one(cls, what: str, *, where: str, hint: str | None = None) -> "SettingsError":
        """Say a single problem."""
        return cls([Problem(what, where, hint)])

    @property
    def missing_extras(self) -> tuple[str, ...]:
        """The extras that would put everything right; none where something else is wrong too."""
        extras = [problem.extra for problem in self.problems if problem.extra]
        return tuple(sorted(set(extras))) if len(extras) == len(self.problems) else ()

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class DataError(LodestarError):
    """The rows cannot be used: empty, not finite, one class only, null where training saw none."""

    exit_code = 3


class SchemaError(DataError):
    """The columns are not the ones that the recipe or the artifact was made for."""


class IncompleteError(DataError):
    """Some parts of a batch cannot be scored; all others were, and are kept to be gone on with."""


class ExternalError(LodestarError):
    """An outside system (file system, database, tracking server) is unreachable or refuses."""

    exit_code = 4


class UnreachableError(ExternalError):
    """The tracking server does not answer; what is known locally may still do."""


class NotAllowedError(LodestarError):
    """The environment's config does not allow this."""

    exit_code = 5


class ArtifactError(LodestarError):
    """The artifact is tampered with, incomplete, or not made for this installation."""

    exit_code = 6


def choices(given: str, valid: Sequence[str], *, most: int = 12) -> str:
    """Word the valid choices for a hint, the near ones first."""
    near = get_close_matches(given, valid, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(name) for name in near)}?"
    listed = ", ".join(sorted(valid)[:most])
    more = f" and {len(valid) - most} more" if len(valid) > most else ""
    return f"valid: {listed}{more}" if valid else "there are none"


def first_line(error: BaseException) -> str:
    """What an error says first; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def described(error: LodestarError) -> dict[str, Any]:
    """An error as plain values, for `--json` and for the process that asked."""
    problems = error.problems if isinstance(error, SettingsError) else (error,)
    return {
        "kind": type(error).__name__,
        "exit_code": error.exit_code,
        "problems": [
            {"what": item.what, "where": item.where, "hint": item.hint} for item in problems
        ],
    }

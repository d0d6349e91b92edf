"""Errors: what, where, hint, and one exit code for each kind."""

import pytest

from lodestar import errors
from lodestar.errors import (
    ArtifactError,
    DataError,
    ExternalError,
    LodestarError,
    NotAllowedError,
    Problem,
    SchemaError,
    SettingsError,
    UsageError,
    choices,
)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (LodestarError, 1),
        (UsageError, 2),
        (SettingsError, 2),
        (DataError, 3),
        (SchemaError, 3),
        (ExternalError, 4),
        (NotAllowedError, 5),
        (ArtifactError, 6),
    ],
)
def test_every_kind_ends_the_command_with_its_code(kind: type[LodestarError], code: int) -> None:
    assert kind.exit_code == code
    assert issubclass(kind, LodestarError)


def test_every_kind_has_its_place_in_the_drawn_tree() -> None:
    for name in errors.__all__:
        found = getattr(errors, name)
        if isinstance(found, type) and issubclass(found, LodestarError):
            assert any(name in line for line in str(errors.__doc__).splitlines())


def test_an_error_is_worded_with_place_and_hint() -> None:
    error = UsageError("it is wrong", where="a.yaml:3:key", hint="do it right")
    assert str(error) == "a.yaml:3:key: it is wrong\n  hint: do it right"
    assert str(UsageError("it is wrong")) == "it is wrong"


def test_problems_of_settings_come_in_order_and_all() -> None:
    error = SettingsError([Problem("one", "a:1", "x"), Problem("two", "b:2")])
    assert str(error) == "a:1: one\n  hint: x\nb:2: two"
    assert (error.what, error.where, error.hint) == ("one", "a:1", "x")
    single = SettingsError.one("one", where="a:1")
    assert single.problems == (Problem("one", "a:1"),)


def test_near_names_come_first_and_few_names_are_listed() -> None:
    assert choices("max_dept", ["max_depth", "eta"]) == "did you mean 'max_depth'?"
    assert choices("zzz", ["b", "a"]) == "valid: a, b"
    assert choices("zzz", []) == "there are none"
    listed = choices("zzz", [f"name{number:02}" for number in range(20)])
    assert listed.startswith("valid: name00, name01")
    assert listed.endswith("and 8 more")

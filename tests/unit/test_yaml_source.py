"""YAML as values that know their lines: every way in which a file can be bad is told, none raises."""

from pathlib import Path

import pytest

from lodestar.errors import SettingsError
from lodestar.settings.section import EnvText
from lodestar.settings.yaml_source import Source, parse_value, read_yaml


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "base.yaml"


def read(file: Path, text: str | bytes, **variables: str) -> Source:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(file, "config/base.yaml", variables=variables)


def told(source: Source) -> list[str]:
    return [str(problem) for problem in source.problems]


def test_values_have_their_plain_types(file: Path) -> None:
    source = read(
        file,
        "text: words\nquoted: '1'\nwhole: 12\nnumber: 1.5\nflag: true\nnothing: null\n"
        "list: [a, 2, {b: c}]\nday: 2025-01-31\nyes_word: yes\ncolon: 'a: b'\n",
    )
    assert not source.problems
    assert source.value == {
        "text": "words",
        "quoted": "1",
        "whole": 12,
        "number": 1.5,
        "flag": True,
        "nothing": None,
        "list": ["a", 2, {"b": "c"}],
        "day": "2025-01-31",
        "yes_word": "yes",
        "colon": "a: b",
    }


def test_every_key_knows_its_line_and_a_key_that_is_absent_that_of_its_parent(file: Path) -> None:
    source = read(file, "a:\n  b:\n    - x\n    - y: 1\nc: 2\n")
    assert source.where(("a", "b")) == "config/base.yaml:2:a.b"
    assert source.where(("a", "b", 1, "y")) == "config/base.yaml:4:a.b.1.y"
    assert source.where(("a", "b", 1, "z")) == "config/base.yaml:4:a.b.1.z"
    assert source.where(("c",)) == "config/base.yaml:5:c"
    assert source.where(("nowhere",)) == "config/base.yaml:1:nowhere"


BAD = {
    "a key twice": ("a: 1\nb:\n  c: 1\n  c: 2\n", "config/base.yaml:4:b: the key 'c' stands twice"),
    "a tab": ("a:\n\tb: 1\n", "config/base.yaml:2: not valid YAML"),
    "an open bracket": ("a: [1, 2\nb: 3\n", "config/base.yaml:2: not valid YAML"),
    "an open quote": ('a: "x\n', "config/base.yaml:2: not valid YAML"),
    "two documents": ("a: 1\n---\nb: 2\n", "not valid YAML"),
    "a control character": ("a: \x07\n", "not valid YAML: a control character"),
    "NUL": ("a: x\x00y\n", "not valid YAML: a control character"),
    "a python tag": ("a: !!python/object/apply:os.system ['id']\n", "is not allowed"),
    "a python scalar tag": ("a: !!python/name:os.system x\n", "config/base.yaml:1:a: the tag"),
    "binary": ("a: !!binary aGk=\n", "config/base.yaml:1:a: the tag"),
    "a tag of its own": ("a: !secret x\n", "config/base.yaml:1:a: the tag '!secret'"),
    "a list on top": ("- 1\n- 2\n", "must be a mapping"),
    "a word on top": ("hello\n", "must be a mapping"),
    "nothing": ("", "is empty"),
    "comments alone": ("# nothing\n", "is empty"),
    "a list as key": ("? [a, b]\n: 1\n", "a key must be a plain word"),
    "an unknown alias": ("a: *nowhere\n", "not valid YAML"),
    "a number that is none": ("a: !!int twelve\n", "config/base.yaml:1:a: cannot be read as int"),
    "not UTF-8": (b"a: \xff\xfe\n", "not UTF-8 text"),
    "a deep nest": ("a: " + "[" * 5_000 + "]" * 5_000 + "\n", "not valid YAML: nested too deeply"),
    "too large": ("a: " + "x" * 300_000 + "\n", "larger than 96 KiB"),
    "ten megabytes": ("a: 1\n" * 2_000_000, "larger than 96 KiB"),
    "too many values": ("a: [" + "1," * 20_001 + "]\n", "expands to more than"),
}


@pytest.mark.parametrize(("text", "problem"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_one_told_problem(file: Path, text: str | bytes, problem: str) -> None:
    source = read(file, text)
    assert len(source.problems) == 1, told(source)
    assert problem in told(source)[0]
    assert told(source)[0].startswith("config/base.yaml")


@pytest.mark.timeout(60)  # expanded, it would take longer than anybody can wait
def test_an_alias_bomb_is_refused_without_being_expanded(file: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 30):
        refs = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"a{level}: &a{level} [{refs}]")
    source = read(file, "\n".join(lines))
    assert told(source) == ["config/base.yaml:1: expands to more than 20000 values"]


def test_an_alias_to_its_own_parent_is_refused(file: Path) -> None:
    assert told(read(file, "a: &a\n  b: *a\n")) == [
        "config/base.yaml:1: expands to more than 20000 values"
    ]


def test_a_modest_alias_is_fine(file: Path) -> None:
    source = read(file, "a: &x [1, 2]\nb: *x\n")
    assert not source.problems
    assert source.value == {"a": [1, 2], "b": [1, 2]}


def test_a_merge_key_is_an_ordinary_key_and_so_an_unknown_one(file: Path) -> None:
    assert "<<" in read(file, "a: &x {b: 1}\nc:\n  <<: *x\n").value["c"]


def test_a_file_that_is_missing_or_a_folder_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        source = read_yaml(path, "config/x.yaml")
        assert told(source)[0].startswith("config/x.yaml: cannot be read: ")


def test_all_problems_of_a_file_are_told_at_once(file: Path) -> None:
    source = read(file, "a: 1\na: 2\nb: !x y\nc: ${GONE}\nd: ${GONE_TOO}\n")
    assert [problem.where for problem in source.problems] == [
        "config/base.yaml:2",
        "config/base.yaml:3:b",
        "config/base.yaml:4:c",
        "config/base.yaml:5:d",
    ]


@pytest.mark.parametrize(
    "value", ["0012345", "1e5", "true", "null", "a:b@c/%", "~", "[1]", "{", " x "]
)
def test_a_variables_value_stays_text_letter_for_letter(file: Path, value: str) -> None:
    source = read(file, "a: ${NAME}\nb: '${NAME}'\nc: pre-${NAME}-post\n", NAME=value)
    assert not source.problems
    assert source.value == {"a": value, "b": value, "c": f"pre-{value}-post"}
    assert all(isinstance(text, EnvText) for text in source.value.values())


def test_a_variable_is_not_filled_in_twice(file: Path) -> None:
    assert read(file, "a: ${ONE}\n", ONE="${TWO}", TWO="x").value == {"a": "${TWO}"}


def test_the_blueprints_default_keeps_its_colons(file: Path) -> None:
    text = "host: ${REDIS_HOST:localhost:6379}\nuri: ${OFFLINE_URI:file://local/features}\n"
    assert read(file, text).value == {"host": "localhost:6379", "uri": "file://local/features"}
    assert read(file, text, REDIS_HOST="redis:1").value["host"] == "redis:1"


def test_an_empty_variable_takes_the_default(file: Path) -> None:
    assert read(file, "a: ${NAME:other}\n", NAME="").value == {"a": "other"}


@pytest.mark.parametrize(("given", "state"), [({}, "not set"), ({"NAME": ""}, "empty")])
@pytest.mark.parametrize("text", ["a:\n  b: ${NAME}\n", "a:\n  b: x${NAME:}\n"])
def test_a_variable_without_value_or_default_is_named(
    file: Path, given: dict[str, str], state: str, text: str
) -> None:
    (problem,) = read(file, text, **given).problems
    assert problem.what == f"the environment variable NAME is {state}"
    assert problem.where == "config/base.yaml:2:a.b"
    assert "${NAME:default}" in str(problem.hint)


def test_a_variable_of_the_servers_here_names_the_command_that_sets_it(file: Path) -> None:
    (problem,) = read(file, "a: ${LODESTAR_POSTGRES_URI}\n").problems
    assert "lodestar infra up" in str(problem.hint)
    assert "export LODESTAR_POSTGRES_URI=…" in str(problem.hint)


def test_a_tab_is_told_to_be_spaces(file: Path) -> None:
    (problem,) = read(file, "a:\n\tb: 1\n").problems
    assert problem.where == "config/base.yaml:2"
    assert problem.hint == "indent with spaces"


def test_without_variables_a_dollar_is_only_a_letter(file: Path) -> None:
    file.write_text("a: ${NAME}\n")
    source = read_yaml(file, "recipes/x.yaml")
    assert source.value == {"a": "${NAME}"}
    assert not source.problems


def test_an_overlay_merges_mappings_and_replaces_the_rest(tmp_path: Path) -> None:
    base, top = tmp_path / "b.yaml", tmp_path / "t.yaml"
    base.write_text("a:\n  x: 1\n  y: [1, 2]\nb: 1\n")
    top.write_text("a:\n  y: [3]\n  z: 4\nb:\n  c: 1\n")
    merged = read_yaml(base, "b.yaml").overlay(read_yaml(top, "t.yaml"))
    assert merged.value == {"a": {"x": 1, "y": [3], "z": 4}, "b": {"c": 1}}
    assert merged.where(("a", "x")) == "b.yaml:2:a.x"
    assert merged.where(("a", "y")) == "t.yaml:2:a.y"
    assert merged.where(("a", "z")) == "t.yaml:3:a.z"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4", 4),
        ("0.5", 0.5),
        ("true", True),
        ("", None),
        ("words", "words"),
        ("[1, 2]", [1, 2]),
        ("{low: 1, high: 2}", {"low": 1, "high": 2}),
        ("'4'", "4"),
        ("${HOME}", "${HOME}"),
    ],
)
def test_an_overrides_value_is_read_as_yaml(text: str, value: object) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


@pytest.mark.parametrize("text", ["[1", "!!python/name:os.system x", "{a: 1, a: 2}"])
def test_an_overrides_value_that_is_no_yaml_is_an_error(text: str) -> None:
    with pytest.raises(SettingsError, match="--set"):
        parse_value(text)


def test_an_override_is_blamed_on_the_command_line(file: Path) -> None:
    source = read(file, "a:\n  b: 1\n  c: 2\n")
    source.put(("a", "b"), 3, "--set")
    source.put(("new", "deep"), 4, "--set")
    assert source.value == {"a": {"b": 3, "c": 2}, "new": {"deep": 4}}
    assert source.where(("a", "b")) == "--set:a.b"
    assert source.where(("a", "c")) == "config/base.yaml:3:a.c"
    assert source.where(("new", "deep")) == "--set:new.deep"

"""Feature declarations: what a file may say, what is told when it says something else, and selection."""

import json
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lodestar.core.features import select_features
from lodestar.errors import SettingsError, UsageError
from lodestar.settings.features import FeatureCatalog, FeatureView, load_features
from lodestar.settings.recipe import FeatureSelection

ROOT = Path(__file__).parents[2]
USERS = """\
namespace: users
entity_keys: {user_id: string}
source: {table: user_facts}
features: {age: int}
"""
SHORTEST = {
    "namespace": "users",
    "entity_keys": {"user_id": "string"},
    "source": {"table": "user_facts"},
    "features": {"age": "int"},
}
SIZE = 96 * 1024


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "features").mkdir()
    return tmp_path


def load(project: Path, **files: str) -> FeatureCatalog:
    for name, text in files.items():
        (project / "features" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return load_features(project)


def problems(project: Path, **files: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        load(project, **files)
    return [str(problem) for problem in caught.value.problems]


def test_the_shortest_declaration_has_sensible_defaults(project: Path) -> None:
    view = load(project, users=USERS).view("users")
    assert view.keys == ("user_id",)
    assert view.source.timestamp_col == "event_timestamp"
    assert view.source.times == ("event_timestamp",)
    assert view.source.created_col is None
    assert view.source.timezone is None
    assert view.ttl is None
    assert not view.features["age"].sensitive


def test_the_longest_declaration_is_read_whole(project: Path) -> None:
    text = """\
namespace: trips
description: Between two places.
owner: maps team
entity_keys: {to_id: int, from_id: string}
source:
  table: maps.trips
  timestamp_col: seen_at
  created_col: stored_at
  timezone: Asia/Seoul
ttl: 36h
features:
  minutes: {type: float, description: by car, sensitive: true}
  open: bool
  since: timestamp
"""
    view = load(project, any_name=text).view("trips")
    assert view.keys == ("to_id", "from_id")
    assert view.source.times == ("seen_at", "stored_at")
    assert view.source.timezone == "Asia/Seoul"
    assert view.ttl == timedelta(hours=36)
    assert list(view.features) == ["minutes", "open", "since"]
    assert view.features["minutes"].sensitive
    assert view.owner == "maps team"


def test_the_projects_own_declarations_are_valid() -> None:
    catalog = load_features(ROOT)
    assert sorted(catalog.views) == [
        "product_details",
        "session_summary",
        "user_demographics",
        "user_purchase_summary",
    ]
    assert sum(len(view.features) for view in catalog.views.values()) == 9


@pytest.mark.parametrize("folder", [True, False])
def test_no_files_are_no_namespaces(tmp_path: Path, folder: bool) -> None:
    if folder:
        (tmp_path / "features").mkdir()
    catalog = load_features(tmp_path)
    assert not catalog.views
    with pytest.raises(UsageError, match="no feature namespace 'users' is declared"):
        catalog.view("users")


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("1us", timedelta(microseconds=1)),
        ("250ms", timedelta(milliseconds=250)),
        ("30s", timedelta(seconds=30)),
        ("15m", timedelta(minutes=15)),
        ("6h", timedelta(hours=6)),
        ("3650d", timedelta(days=3650)),
        ("999999999d", timedelta(days=999_999_999)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(project: Path, text: str, duration: timedelta) -> None:
    assert load(project, users=f"{USERS}ttl: {text}\n").view("users").ttl == duration


@pytest.mark.parametrize(
    "text",
    ["90", "90 days", "-1d", "0d", "1.5h", "1D", "d", "1d2h", "true", "[1d]", "'1d\n'", "\u0661d"],
)
def test_other_durations_are_refused_with_examples(project: Path, text: str) -> None:
    (found,) = problems(project, users=f"{USERS}ttl: {text}\n")
    assert found.startswith(
        "features/users.yaml:5:ttl: a duration is a whole number and a unit: 30s"
    )


@pytest.mark.parametrize("text", ["1000000000d", "99999999999999999999s"])
def test_a_duration_that_no_calendar_holds_is_refused(project: Path, text: str) -> None:
    (found,) = problems(project, users=f"{USERS}ttl: {text}\n")
    assert "longer than any time can be" in found


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("namespace: users", "namespace: my users", 1, "a name is letters, digits and _"),
        ("namespace: users", "namespace: 1st", 1, "does not start with a digit"),
        ("namespace: users", 'namespace: "users\\n"', 1, "a name is letters, digits and _"),
        ("namespace: users", "namespace: [users]", 1, "must be text, not a list"),
        ("namespace: users", "name: users", 1, "the key 'namespace' is missing"),
        ("{table: user_facts}", "{table: a.b.c}", 3, "a table is a name, or a schema and a name"),
        ("{table: user_facts}", '{table: "../x"}', 3, "a table is a name, or a schema and a name"),
        ("{table: user_facts}", "{table: x, timezone: Europe/Berln}", 3, "mean Europe/Berlin?"),
        ("{table: user_facts}", "{table: x, timezone: '../UTC'}", 3, "is no time zone such as"),
        ("{table: user_facts}", "{table: x, timezone: ''}", 3, "is no time zone such as"),
        ("{table: user_facts}", "{tables: x}", 3, "the key 'table' is missing"),
        ("{table: user_facts}", "user_facts", 3, "must be a mapping, not text"),
        (
            "{table: user_facts}",
            "{table: x, created_col: event_timestamp}",
            3,
            "timestamp_col and created_col are one column",
        ),
        ("{user_id: string}", "{user_id: float}", 2, "'float' is none of the choices"),
        ("{user_id: string}", "{user id: string}", 2, "a name is letters, digits and _"),
        ("{user_id: string}", "{}", 2, "must not be empty"),
        ("{user_id: string}", "user_id", 2, "must be a mapping, not text"),
        ("{age: int}", "{}", 4, "must not be empty"),
        ("{age: int}", "{age: integer}", 4, "'integer' is none of the choices"),
        ("{age: int}", "{age: {type: int, unit: years}}", 4, "unknown key 'unit'"),
        ("{age: int}", "{age: {type: int, sensitive: 1}}", 4, "must be true or false"),
        ("{age: int}", "{age: 7}", 4, "must be a mapping, not a number"),
        ("{age: int}", "{age: null}", 4, "must be a mapping, not empty"),
        ("{age: int}", "{age: int, age: int}", 4, "the key 'age' stands twice"),
        ("{age: int}", "[age]", 4, "must be a mapping, not a list"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(
    project: Path, old: str, new: str, line: int, said: str
) -> None:
    found = problems(project, users=USERS.replace(old, new))
    assert any(said in each and each.startswith(f"features/users.yaml:{line}:") for each in found)
    assert not any("package.module" in each or "pydantic" in each for each in found)


@pytest.mark.parametrize(
    ("old", "new", "column"),
    [
        ("{age: int}", "{user_id: int}", "user_id"),
        ("{age: int}", "{event_timestamp: timestamp}", "event_timestamp"),
        ("{user_id: string}", "{event_timestamp: int}", "event_timestamp"),
        ("{table: user_facts}", "{table: x, created_col: age}", "age"),
    ],
)
def test_a_column_plays_one_part(project: Path, old: str, new: str, column: str) -> None:
    (found,) = problems(project, users=USERS.replace(old, new))
    assert f"{column}: a column is a key, a timestamp or a feature" in found


def test_all_problems_of_all_files_are_told_at_once(project: Path) -> None:
    found = problems(
        project,
        a=USERS.replace("int", "integer") + "ttl: soon\n",
        b="namespace: [\n",
        c="",
        d=USERS.replace("users", "others"),
    )
    assert [each.split(":")[0] for each in found] == [
        "features/a.yaml",
        "features/a.yaml",
        "features/b.yaml",
        "features/c.yaml",
    ]


def test_a_namespace_that_is_declared_twice_is_refused(project: Path) -> None:
    (found,) = problems(project, one=USERS, two=USERS)
    assert found == "features/two.yaml:1:namespace: the namespace 'users' is declared twice"


def test_a_file_too_large_to_be_a_declaration_is_not_read(project: Path) -> None:
    (found,) = problems(project, users=USERS + "#" * SIZE)
    assert "larger than 96 KiB" in found


def test_an_unknown_namespace_is_told_with_the_near_ones(project: Path) -> None:
    catalog = load(project, users=USERS)
    with pytest.raises(UsageError) as caught:
        catalog.view("user")
    assert "did you mean 'users'?" in str(caught.value)


@given(
    st.one_of(
        st.none(),
        st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta.max),
        st.integers(1, 10_000).map(lambda days: timedelta(days=days)),
    ),
    st.sampled_from([None, "created_at"]),
)
def test_a_view_comes_back_from_its_plain_values(
    ttl: timedelta | None, created: str | None
) -> None:
    source = {"table": "a.b", "created_col": created, "timezone": "Asia/Seoul"}
    view = FeatureView.model_validate({**SHORTEST, "source": source, "ttl": ttl})
    plain = json.loads(json.dumps(view.plain()))
    assert FeatureView.model_validate(plain) == view


def chosen(namespace: str, *features: str) -> FeatureSelection:
    return FeatureSelection.model_validate({"feature_namespace": namespace, "features": features})


def test_a_selection_keeps_the_recipes_order() -> None:
    catalog = load_features(ROOT)
    selected = select_features(
        catalog,
        [chosen("session_summary", "click_count"), chosen("product_details", "brand", "price")],
    )
    assert [(each.view.namespace, each.features) for each in selected] == [
        ("session_summary", ("click_count",)),
        ("product_details", ("brand", "price")),
    ]


def test_nothing_selected_is_nothing() -> None:
    assert select_features(load_features(ROOT), []) == ()


@pytest.mark.parametrize(
    ("selection", "said"),
    [
        ([("user_demographic", "age")], "did you mean 'user_demographics'?"),
        ([("user_demographics", "agee")], "did you mean 'age'?"),
        ([("user_demographics", "user_id")], "'user_demographics' has no feature 'user_id'"),
        ([("user_demographics", "age", "age")], "gives the feature 'age' twice"),
        ([("user_demographics", "age")] * 2, "gives the feature 'age' twice"),
    ],
)
def test_what_cannot_be_selected_is_told(selection: list[tuple[str, ...]], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        select_features(load_features(ROOT), [chosen(*item) for item in selection])
    assert said in str(caught.value)


def test_two_namespaces_that_give_one_name_are_both_told(project: Path) -> None:
    others = USERS.replace("users", "others").replace("user_facts", "other_facts")
    catalog = load(project, users=USERS, others=others)
    with pytest.raises(UsageError, match="'users' and 'others' both give 'age'"):
        select_features(catalog, [chosen("users", "age"), chosen("others", "age")])


def test_a_feature_that_the_rows_have_already_is_told(project: Path) -> None:
    catalog = load(project, users=USERS)
    with pytest.raises(UsageError, match="rows have a column 'age' already"):
        select_features(catalog, [chosen("users", "age")], spine_columns=["user_id", "age"])

"""Which of many names a pattern means."""

import pytest

from lodestar.adapters.files.patterns import fixed_part, is_pattern, matching
from lodestar.errors import DataError

NAMES = [
    *("a/1.csv", "a/2.csv", "a/b/3.csv", "a/b/c/4.csv", "b/5.csv", "a/_x/6.csv", "a/.7.csv"),
    *("a/x[1].csv", "a/x-.csv"),
]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a/*.csv", "a/1.csv a/2.csv a/x-.csv a/x[1].csv"),
        ("a/?.csv", "a/1.csv a/2.csv"),
        ("a/[!1x].csv", "a/2.csv"),
        ("a/[1-2].csv", "a/1.csv a/2.csv"),
        ("a/x[[]*", "a/x[1].csv"),
        ("a/x[]-]*", "a/x-.csv"),
        ("a/**/4.csv", "a/b/c/4.csv"),
        ("a/**/*.csv", "a/1.csv a/2.csv a/b/3.csv a/b/c/4.csv a/x-.csv a/x[1].csv"),
        ("a/b/**", "a/b/3.csv a/b/c/4.csv"),
        ("a/b/", "a/b/3.csv a/b/c/4.csv"),
        ("**/5.csv", "b/5.csv"),
        ("?/5.csv", "b/5.csv"),
        ("a/_x/*.csv", "a/_x/6.csv"),
    ],
)
def test_a_pattern_means_names_in_order(pattern: str, expected: str) -> None:
    assert matching(pattern, NAMES, suffixes=(".csv",)) == expected.split()


@pytest.mark.parametrize("pattern", ["a/.*", "c/*.csv", "a/*/b/*.csv", "5.csv", "a*"])
def test_what_means_nothing_is_an_error(pattern: str) -> None:
    with pytest.raises(DataError, match="no file is meant"):
        matching(pattern, NAMES, suffixes=(".csv",))


def test_the_fixed_part_ends_before_the_first_sign() -> None:
    assert [fixed_part(one) for one in ("a/b/*.csv", "a/b/", "a/x[1]/y", "*.csv", "a/b?c/d")] == [
        *("a/b/", "a/b/", "a/", "", "a/"),
    ]
    assert [is_pattern(one) for one in ("a/b", "a*", "a?", "[a")] == [False, True, True, True]

"""The page on point-in-time joins says what happens: its code runs, and prints what it says."""

import io
import re
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "point-in-time.md"
FENCED = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TRAPS = (
    "Late arrivals leak",
    "Rows get lost",
    "One entity gets another's features",
    "Ties fall as the file lies",
    "Times follow the session's zone",
)


def test_the_pages_code_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    said = io.StringIO()
    checked = 0
    for kind, block in FENCED.findall(PAGE.read_text(encoding="utf-8")):
        if kind == "python":
            with redirect_stdout(said):
                exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102 -- the page's own code
        else:
            assert said.getvalue() == block
            said = io.StringIO()
            checked += 1
    assert said.getvalue() == ""
    assert checked >= 8


@pytest.mark.parametrize("trap", TRAPS)
def test_each_known_trap_has_its_place_on_the_page(trap: str) -> None:
    assert f"### {trap}\n" in PAGE.read_text(encoding="utf-8")

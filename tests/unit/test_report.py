"""The run report: what stands on the page, that it is safe and offline, and its cost."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import lodestar.report
from lodestar.core.results import (
    CausalCurves,
    ClassificationCurves,
    ColumnProfile,
    Curve,
    Curves,
    DataProfile,
    Evaluation,
    Importance,
    LeakageFinding,
    MetricEstimate,
    RegressionCurves,
    Task,
    UpliftDecile,
)
from lodestar.report import RunReport, SplitSummary, render
from lodestar.report.markup import Html, json_text, tag

HOSTILE = "</script><script>alert(1)</script>"
SECTIONS = (
    "Headline metrics",
    "Performance",
    "Feature importance",
    "Data profile",
    "Split and leakage",
    "Hyperparameters",
    "Reproduce",
)
NAN = float("nan")


class Page(HTMLParser):
    """What a browser would make of the page: elements with attributes, and text by element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words = ""
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.words += data + " "

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def line(name: str, *, points: int = 50) -> Curve:
    x: NDArray[np.float64] = np.linspace(0, 1, points)
    return Curve(name, x, np.sqrt(x))


def classification(classes: tuple[str, ...] = ("no", "yes")) -> ClassificationCurves:
    lines = tuple(line(name) for name in (classes[1:] if len(classes) == 2 else classes))
    confusion = np.eye(len(classes), dtype=np.int64) * 1234 + 7
    return ClassificationCurves(classes, confusion, lines, lines, lines)


def regression() -> RegressionCurves:
    rng = np.random.default_rng(0)
    actual = rng.gamma(3, 40, 2000)
    return RegressionCurves(actual, actual + rng.normal(0, 9, 2000))


def causal() -> CausalCurves:
    deciles = (
        UpliftDecile(1, 320, 0.09, 0.08, 0.05, 0.11),
        UpliftDecile(2, 320, 0.02, NAN, NAN, NAN),
    )
    return CausalCurves(
        line("qini"), Curve("random", np.array([0.0, 1.0]), np.array([0.0, 1.0])), deciles
    )


def report(task: Task = "classification", curves: Curves | None = None) -> RunReport:
    made: dict[Task, Curves] = {
        "classification": classification(),
        "regression": regression(),
        "causal": causal(),
    }
    metrics = {"roc_auc": MetricEstimate(0.8734, 0.8601, 0.8852)}
    return RunReport(
        run_name="LGBMClassifier_churn_20250713",
        run_id="8f3c2a9be1d0",
        created="2025-07-13T23:10:43.120934+09:00",
        recipe_name="churn_model",
        task=task,
        model_class_path="lightgbm.LGBMClassifier",
        environment="LOCAL",
        evaluation=Evaluation(task, 3000, metrics, curves or made[task]),
        importances=tuple(
            Importance(f"feature_{place}", 0.1 / (place + 1), 0.01, "permutation", "roc_auc")
            for place in range(25)
        ),
        profile=DataProfile(
            15000,
            (
                ColumnProfile(
                    "age", "int64", 15000, 4000, 80, "feature", "18", "41", "99", (3, 0, 9)
                ),
                ColumnProfile(
                    "country", "string", 15000, 0, 38, "feature", top=(("KR", 9000), ("JP", 3000))
                ),
            ),
        ),
        findings=(),
        split=SplitSummary("stratified", 42, 12000, 3000),
        hyperparameters=(("num_leaves", "63"),),
        notes=("snapshot stands in for loader",),
        data_fingerprint="sha256:3f9a",
        recipe_yaml="model:\n  class_path: lightgbm.LGBMClassifier\n",
        sql="SELECT 1 WHERE 1 < 2",
        reproduce="APP_ENV=LOCAL lodestar train --recipe-file churn_model",
        versions=(("lightgbm", "4.6.0"),),
    )


def empty(task: Task, curves: Curves) -> RunReport:
    return replace(
        report(),
        task=task,
        evaluation=Evaluation(task, 0, {}, curves),
        importances=(),
        profile=DataProfile(0, ()),
        split=SplitSummary("random", 0, 0, 0),
        hyperparameters=(),
        notes=(),
        sql=None,
        versions=(),
    )


def figure_names(page: Page) -> list[str | None]:
    return [script["data-figure"] for script in page.all("script") if "data-figure" in script]


def test_a_range_may_be_broken_between_its_ends_and_nowhere_else() -> None:
    assert "<span>18 to</span> <span>99</span>" in render(report())


@pytest.mark.parametrize(
    ("task", "figures"),
    [
        ("classification", ["roc", "precision-recall", "calibration"]),
        ("regression", ["actual-predicted", "residuals", "residual-histogram"]),
        ("causal", ["qini", "uplift-deciles"]),
    ],
)
def test_every_section_and_the_figures_of_the_task_are_there(
    task: Task, figures: list[str]
) -> None:
    page = Page(render(report(task)))

    assert all(title in page.words for title in SECTIONS)
    assert figure_names(page) == figures
    places = {div["id"]: div for div in page.all("div") if div.get("class") == "plot"}
    assert list(places) == figures
    assert all(place["role"] == "img" and place["aria-label"] for place in places.values())


def test_what_identifies_the_run_can_be_read_and_its_command_copied() -> None:
    page = Page(render(report()))

    for text in (
        "churn_model",
        "8f3c2a9be1d0",
        "lightgbm.LGBMClassifier",
        "2025-07-13 23:10:43+09:00",
    ):
        assert text in page.words
    assert "12,000 train, 3,000 test" in page.words
    assert "snapshot stands in for loader" in page.words
    assert "APP_ENV=LOCAL lodestar train --recipe-file churn_model" in page.words
    assert "SELECT 1 WHERE 1 < 2" in page.words
    assert {button.get("data-copy") for button in page.all("button")} >= {"command", "recipe-yaml"}


def test_a_metric_shows_its_value_its_interval_and_a_bar() -> None:
    page = Page(render(report()))

    assert "0.8734" in page.words
    assert "0.8601 to 0.8852" in page.words
    bars = [svg for svg in page.all("svg") if svg.get("class") == "interval"]
    assert [bar["aria-label"] for bar in bars] == ["95 % interval of ROC AUC from 0.8601 to 0.8852"]


def test_features_after_the_twentieth_are_folded() -> None:
    page = Page(render(report()))

    assert "5 more features" in page.words
    opened, folded = page.words.split("5 more features")
    assert "feature_19" in opened
    assert "feature_20" not in opened
    assert "feature_24" in folded


def test_a_tiny_importance_is_nothing_beside_a_large_one_and_a_number_among_its_like() -> None:
    tiny = (
        Importance("tiny", 5.205e-6, 4.1e-7, "permutation", "mse"),
        Importance("negative", -5.205e-6, 0.0, "permutation", "mse"),
    )
    large = Importance("large", 0.25, 0.002, "permutation", "mse")

    beside = Page(render(replace(report(), importances=(*tiny, large)))).words
    alone = Page(render(replace(report(), importances=tiny))).words

    assert "e\N{MINUS SIGN}" not in beside
    assert "0.0000  \N{PLUS-MINUS SIGN} 0.0000" in beside
    assert "0.2500  \N{PLUS-MINUS SIGN} 0.0020" in beside
    assert "5.2e\N{MINUS SIGN}06  \N{PLUS-MINUS SIGN} 4.1e\N{MINUS SIGN}07" in alone


def test_few_classes_have_a_confusion_table_and_many_a_heatmap() -> None:
    few = Page(render(report(curves=classification(("a", "b", "c")))))
    many = Page(render(report(curves=classification(tuple(f"c{n}" for n in range(13))))))

    assert "confusion" not in figure_names(few)
    assert "1,241" in few.words
    assert "confusion" in figure_names(many)


def test_a_clean_split_is_green_and_findings_are_named_with_their_hints() -> None:
    finding = LeakageFinding(
        "target_proxy", "One column predicts the target.", "Exclude it.", 41, ("refund",)
    )
    clean = render(report())
    leaking = Page(render(replace(report(), findings=(finding,))))

    assert 'class="notice ok"' in clean
    assert 'class="notice warning"' not in clean
    for text in (
        "1 warning",
        "Target proxy",
        "One column predicts",
        "Exclude it.",
        "refund",
        "41 rows",
    ):
        assert text in leaking.words
    assert "Nothing found" not in leaking.words


@pytest.mark.parametrize(
    ("task", "curves"),
    [
        ("classification", ClassificationCurves((), np.zeros((0, 0), dtype=np.int64))),
        ("regression", RegressionCurves(np.array([]), np.array([]))),
        (
            "causal",
            CausalCurves(
                Curve("qini", np.array([]), np.array([])),
                Curve("random", np.array([]), np.array([])),
                (),
            ),
        ),
    ],
)
def test_a_run_with_nothing_to_show_says_so_in_each_section(task: Task, curves: Curves) -> None:
    page = Page(render(empty(task, curves)))

    assert all(title in page.words for title in SECTIONS)
    for text in (
        "No metric was computed",
        "There are no points to draw",
        "importance was not measured",
        "The profile has no columns",
        "estimator's own defaults",
        "the loader read a data URI",
    ):
        assert text in page.words


def test_numbers_that_are_none_are_drawn_as_gaps_and_worded_as_dashes() -> None:
    nothing = MetricEstimate(NAN, NAN, NAN)
    source = report("causal")
    text = render(replace(source, evaluation=replace(source.evaluation, metrics={"auuc": nothing})))
    page = Page(text)

    specs = [json.loads(script) for script in page.scripts if script.startswith("{")]
    assert specs[1]["data"][0]["y"] == [0.08, None]
    assert "no interval" in page.words


def test_hostile_names_are_text_everywhere() -> None:
    column = ColumnProfile(HOSTILE, HOSTILE, 9, 1, 5, HOSTILE, HOSTILE, HOSTILE, HOSTILE, (1, 2))
    words = ColumnProfile("x", "string", 9, 1, 5, "feature", top=((HOSTILE, 3),))
    hostile = replace(
        report(curves=classification(("no", HOSTILE))),
        run_name=HOSTILE,
        run_id=HOSTILE,
        created=HOSTILE,
        recipe_name=HOSTILE,
        model_class_path=HOSTILE,
        environment=HOSTILE,
        importances=(Importance(HOSTILE, 0.1, 0.0, "shap"),),
        profile=DataProfile(9, (column, words)),
        findings=(LeakageFinding(HOSTILE, HOSTILE, HOSTILE, 1, (HOSTILE,)),),
        hyperparameters=((HOSTILE, HOSTILE),),
        notes=(HOSTILE,),
        recipe_yaml=HOSTILE,
        sql=HOSTILE,
        reproduce=HOSTILE,
        versions=((HOSTILE, HOSTILE),),
    )
    plain, attacked = Page(render(report())), Page(render(hostile))

    assert len(attacked.all("script")) == len(plain.all("script"))
    assert "alert(1)" not in attacked.scripts[-1]
    assert HOSTILE in attacked.words


def test_plotly_is_given_names_that_it_does_not_read_as_tags() -> None:
    page = Page(render(report(curves=classification(("no", '<a href="https://x.test">y</a>')))))

    spec = json.loads(next(script for script in page.scripts if script.startswith("{")))
    assert spec["data"][1]["name"] == '&lt;a href="https://x.test"&gt;y&lt;/a&gt;'


def test_json_cannot_end_its_script_element() -> None:
    page = Page(render(report("regression")))

    specs = [script for script in page.scripts if script.startswith("{")]
    assert len(specs) == 3
    assert not any("<" in spec for spec in specs)
    assert "<" not in json_text(json.dumps(HOSTILE))
    assert json.loads(json_text(json.dumps(HOSTILE))) == HOSTILE


def test_markup_escapes_all_that_is_not_markup_already() -> None:
    made = tag("p", "a < b", tag("b", '"&"'), None, title='"><i>', hidden=False, data_x=1)

    assert made == '<p title="&quot;&gt;&lt;i&gt;" data-x="1">a &lt; b<b>&quot;&amp;&quot;</b></p>'
    assert not isinstance(Html("<b>") + "<script>", Html)


@pytest.mark.parametrize("task", ["classification", "regression", "causal"])
def test_the_page_asks_nothing_of_the_network(task: Task) -> None:
    text = render(report(task))
    page = Page(text)

    addresses = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in {"src", "href", "srcset", "action", "data", "poster"} and value
    ]
    assert addresses
    assert all(value.startswith("#") for value in addresses)
    assert not page.all("link")
    assert not re.search(r"https?://|@import|url\(", text)
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy


def test_every_link_leads_somewhere_and_no_id_stands_twice() -> None:
    page = Page(render(report()))

    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"] for link in page.all("a")} <= {f"#{name}" for name in ids}


def test_the_same_report_gives_the_same_page_below_two_and_a_half_megabytes() -> None:
    first, second = render(report("regression")), render(report("regression"))

    assert first == second
    assert len(first.encode()) < 2_500_000


def test_the_style_and_script_are_beside_the_module() -> None:
    folder = Path(lodestar.report.__file__).parent

    assert (folder / "style.css").is_file()
    assert "</script" not in (folder / "page.js").read_text(encoding="utf-8").lower()


def test_the_public_names_are_these() -> None:
    assert lodestar.report.__all__ == ["RunReport", "SplitSummary", "render"]

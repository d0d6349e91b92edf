"""The report's section about a hyperparameter search: its words, its figures, its limits."""

import html
import json
import math
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lodestar.core.results import (
    DataProfile,
    Evaluation,
    MetricEstimate,
    RegressionCurves,
)
from lodestar.core.tuning.result import Expected, Finalist, TrialRecord, TuningResult
from lodestar.report import RunReport, SplitSummary, render

HOSTILE = '</script><img src=x onerror="alert(1)">'
NAN = float("nan")
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"


def params(number: int) -> dict[str, Any]:
    return {"rate": 0.001 * (number + 1), "kind": ("a", "b")[number % 2]}


SPACE = {
    "rate": {"type": "float", "low": 0.001, "high": 1.0, "log": True},
    "kind": {"type": "categorical", "choices": ["a", "b"], "log": False},
}


def trial(number: int, value: float, state: str = "complete") -> TrialRecord:
    steps = range(10, 101 if state == "complete" else 41, 10)
    curve = tuple((step, value - 0.1 / step) for step in steps)
    return TrialRecord(
        number, state, value if state == "complete" else None, params(number), curve, 1.5
    )


def finalist(number: int, searched: float, scores: tuple[float, ...], error: float) -> Finalist:
    mean = sum(scores) / len(scores) if scores else searched
    return Finalist(number, params(number), searched, scores, mean, error, dropped=False)


def search() -> TuningResult:
    """Trial 4 looks best, trial 2 is chosen, trial 1 is dropped; 5 was pruned and 6 failed."""
    values = (0.90, 0.91, 0.93, 0.89, 0.95)
    chosen = finalist(2, 0.93, (0.94, 0.92, 0.93), 0.0061)
    naive = finalist(4, 0.95, (0.93, 0.91, 0.92), 0.0058)
    dropped = replace(finalist(1, 0.91, (0.90,), NAN), dropped=True)
    return TuningResult(
        metric="roc_auc",
        direction="maximize",
        best_params=chosen.params,
        best_score=chosen.mean,
        best_error=chosen.error,
        optimism=0.03,
        finalists=(chosen, naive, dropped),
        history=(
            *(trial(number, value) for number, value in enumerate(values)),
            trial(5, 0.88, "pruned"),
            TrialRecord(6, "failed", None, params(6), (), 0.1),
        ),
        search_space=SPACE,
        seconds=63.4,
        asked=10,
        notes=("the time was up after 7 of 10 trials",),
    )


def single() -> TuningResult:
    only = finalist(0, 0.9, (0.88,), NAN)
    return replace(
        search(),
        best_score=0.88,
        best_error=NAN,
        optimism=0.02,
        finalists=(only,),
        history=(trial(0, 0.9),),
        asked=1,
        notes=(),
    )


def report(tuning: TuningResult | None) -> RunReport:
    line = np.linspace(0, 1, 9)
    curves = RegressionCurves(line, line)
    return RunReport(
        run_name="run",
        run_id="8f3c2a9be1d0",
        created="2025-07-13T23:10:43+09:00",
        recipe_name="churn",
        task="regression",
        model_class_path="sklearn.linear_model.Ridge",
        environment="local",
        evaluation=Evaluation("regression", 9, {"r2": MetricEstimate(0.8, 0.7, 0.9)}, curves),
        importances=(),
        profile=DataProfile(0, ()),
        findings=(),
        split=SplitSummary("random", 42, 80, 20),
        hyperparameters=(),
        notes=("a note of the run", *(tuning.notes if tuning else ())),
        data_fingerprint="3f9a",
        recipe_yaml="",
        sql=None,
        reproduce="lodestar train",
        versions=(),
        tuning=tuning,
    )


def section(page: str) -> str:
    found = re.search(r'<section id="search".*?</section>', page, re.DOTALL)
    assert found is not None
    return found.group()


def words(markup: str) -> str:
    return re.sub(r"<script.*?</script>|<[^>]+>", "", markup, flags=re.DOTALL)


def specs(page: str) -> dict[str, Any]:
    found = re.findall(r'data-figure="([^"]+)">(.*?)</script>', page, re.DOTALL)
    return {name: json.loads(text) for name, text in found if name.startswith("search")}


def traces(spec: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {trace["name"]: trace for trace in spec["data"] if "name" in trace}


def test_values_that_were_corrected_are_said_to_be() -> None:
    corrected = tuple(replace(each, offset=0.01) for each in search().history)
    said = "It is corrected for how hard a trial's own rows are"
    assert said in html.unescape(section(render(report(replace(search(), history=corrected)))))
    assert said not in html.unescape(section(render(report(search()))))


def test_a_run_without_a_search_has_no_section_and_no_link_to_it() -> None:
    page = render(report(None))

    assert 'id="search"' not in page
    assert 'href="#search"' not in page
    assert 'href="#search"' in render(report(search()))


def test_the_headline_tells_what_was_tried_what_was_found_and_how_it_was_flattered() -> None:
    told = words(section(render(report(search()))))

    assert "7 of 10 trials in 63 s: 5 complete, 1 pruned, 1 failed." in told
    assert f"score ROC AUC 0.9300 {PLUS_MINUS} 0.0061" in told
    assert "over 3 common splits; higher is better" in told
    assert "looked best, number 4, which was not chosen" in told
    assert "had 0.9500 on its own split and 0.9200 on the common ones" in told
    assert "flattered itself by 0.0300" in told


def test_a_best_trial_that_did_no_better_on_its_own_split_is_not_called_flattered() -> None:
    modest = replace(search(), optimism=-0.002)

    assert "it had not flattered itself, it is 0.0020 better" in words(render(report(modest)))


def test_the_notes_of_the_search_stand_in_its_section_alone() -> None:
    page = render(report(search()))

    assert page.count("the time was up after 7 of 10 trials") == 1
    assert "the time was up after 7 of 10 trials" in section(page)
    assert "a note of the run" in page


def test_the_figures_are_there_in_the_order_of_the_story() -> None:
    assert list(specs(render(report(search())))) == [
        "search-history",
        "search-curves",
        "search-finals",
        "search-slice-1",
        "search-slice-2",
        "search-parallel",
    ]


@pytest.mark.parametrize(
    ("direction", "best"),
    [("maximize", [0.9, 0.91, 0.93, 0.95, 0.95]), ("minimize", [0.9, 0.89, 0.89])],
)
def test_the_best_so_far_goes_the_way_of_the_metric(direction: str, best: list[float]) -> None:
    made = specs(render(report(replace(search(), direction=direction))))

    assert traces(made["search-history"])["best so far"]["y"] == best


def test_a_pruned_trial_stands_at_its_last_intermediate_value_and_a_failed_one_at_the_edge() -> (
    None
):
    drawn = specs(render(report(search())))["search-history"]

    assert traces(drawn)["pruned"]["x"] == [5]
    assert traces(drawn)["pruned"]["y"] == [pytest.approx(0.88 - 0.1 / 40)]
    assert traces(drawn)["failed"]["x"] == [6]
    assert traces(drawn)["failed"]["y"] == [drawn["layout"]["yaxis"]["range"][0]]


def test_one_far_worse_trial_does_not_flatten_the_others() -> None:
    values = [0.90 + number / 1000 for number in range(20)]
    outlier = trial(20, -50.0)
    history = (*(trial(number, value) for number, value in enumerate(values)), outlier)

    page = render(report(replace(search(), history=history)))

    low, high = specs(page)["search-history"]["layout"]["yaxis"]["range"]
    assert high - low < 0.2
    assert "1 far worse value at the edge" in words(page)


def test_the_chosen_trial_and_the_finalists_are_marked_wherever_trials_are() -> None:
    made = specs(render(report(search())))

    assert traces(made["search-history"])["chosen"]["x"] == [2]
    assert traces(made["search-history"])["finalist"]["x"] == [1, 4]
    assert traces(made["search-slice-1"])["chosen"]["x"] == [0.003]
    assert set(traces(made["search-curves"])["chosen"]["customdata"]) == {2}
    assert set(traces(made["search-curves"])["pruned"]["customdata"]) == {5}
    assert traces(made["search-finals"])["chosen"]["y"] == [0.94, 0.92, 0.93]
    assert traces(made["search-finals"])["dropped"]["y"] == [0.9]


def test_a_slice_has_the_axis_of_its_range() -> None:
    made = specs(render(report(search())))
    rate, kind = (made[f"search-slice-{place}"]["layout"]["xaxis"] for place in (1, 2))

    assert rate["type"] == "log"
    assert rate["range"] == [-3.15, 0.15]
    assert kind["ticktext"] == ["a", "b"]
    assert kind["tickvals"] == [0, 1]


def test_parallel_coordinates_place_values_on_the_axis_of_their_range() -> None:
    chosen = specs(render(report(search())))["search-parallel"]["data"]
    line = next(trace for trace in chosen if trace["line"]["color"] == "--c2")

    assert line["y"][0] == pytest.approx(math.log10(3) / 3, abs=1e-4)
    assert line["y"][1] == 0


def test_the_finalists_table_ranks_them_with_error_own_score_and_hyperparameters() -> None:
    rows = re.findall(r"<tr>(.*?)</tr>", section(render(report(search()))), re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    told = [[words(cell) for cell in row] for row in cells]

    assert told[1][:7] == ["1", "2", "0.9300", "0.0061", "0.9300", "3", "chosen"]
    assert told[3][:7] == ["3", "1", "0.9000", "\N{EN DASH}", "0.9100", "1", "dropped"]
    assert "rate 0.003" in told[1][7]
    assert "kind a" in told[1][7]


def test_what_the_model_of_all_rows_will_score_is_told_with_its_parts() -> None:
    tuning = search()
    expected = Expected(mean=0.93, offset=0.002, gain=0.005, rows=0.9)
    told = words(section(render(report(replace(tuning, best_score=0.933, expected=expected)))))
    assert f"score ROC AUC 0.9300 {PLUS_MINUS} 0.0061" in told
    assert (
        "The model of all rows is expected to score 0.9330: +0.0050 for the 10% of the training rows "
        "that it was not fitted on there, \N{MINUS SIGN}0.0020 for how hard the rows that judged are."
    ) in told
    unknown = replace(expected, offset=0.0, gain=None)
    told = words(section(render(report(replace(tuning, expected=unknown)))))
    assert "is expected to score" not in told


def test_a_search_of_one_trial_and_one_split_is_told_without_a_standard_error() -> None:
    page = render(report(single()))
    told = words(section(page))

    assert "1 trial in 63 s: 1 complete, 0 pruned, 0 failed." in told
    assert "0.8800 on 1 common split, too few for a standard error" in told
    assert "nan" not in told.lower()
    assert "search-parallel" not in specs(page)
    low, high = specs(page)["search-finals"]["layout"]["yaxis"]["range"]
    assert low < 0.88 < high
    assert high - low < 0.1


def test_finalists_that_were_never_compared_are_listed_and_called_likely_flattered() -> None:
    unjudged = replace(
        search(),
        best_error=NAN,
        finalists=(finalist(4, 0.95, (), NAN), finalist(2, 0.93, (), NAN)),
    )
    page = render(report(unjudged))

    # Its own, whatever is expected of the model.
    assert "The chosen trial has ROC AUC 0.9500 on its own split" in words(page)
    assert "the finalists were not compared" in words(page)
    assert "search-finals" not in specs(page)
    assert 'class="finalists"' in page


def test_trials_that_were_not_watched_have_no_figure_of_intermediate_values() -> None:
    history = tuple(replace(record, curve=()) for record in search().history)

    assert "search-curves" not in specs(render(report(replace(search(), history=history))))


def test_values_that_are_no_plain_numbers_have_their_place() -> None:
    choices: list[Any] = [[100, 50], None, True, 1, "x" * 60]
    history = tuple(
        replace(trial(number, 0.9), params={"layers": choice})
        for number, choice in enumerate(choices)
    )
    space = {"layers": {"type": "categorical", "choices": choices}}
    made = specs(render(report(replace(search(), history=history, search_space=space))))

    labels = made["search-slice-1"]["layout"]["xaxis"]["ticktext"]
    assert labels[:4] == ["[100, 50]", "None", "True", "1"]
    assert len(labels[4]) < 20


def test_hostile_names_and_values_are_text_everywhere() -> None:
    def attack(value: dict[str, Any]) -> dict[str, Any]:
        return {HOSTILE: HOSTILE, **value}

    tuning = search()
    hostile = replace(
        tuning,
        finalists=tuple(
            replace(each, params=attack(dict(each.params))) for each in tuning.finalists
        ),
        history=tuple(replace(each, params=attack(dict(each.params))) for each in tuning.history),
        search_space={HOSTILE: {"type": "categorical", "choices": [HOSTILE]}, **SPACE},
        notes=(HOSTILE,),
    )
    page = render(report(hostile))

    assert "<img" not in page
    # Plotly reads tags in what it is given: there, too, names are escaped.
    for spec in specs(page).values():
        assert "<img" not in json.dumps(spec)
    assert page.count("<script") == render(report(tuning)).count("<script") + 1


def test_a_long_search_keeps_the_page_small() -> None:
    long = tuple(trial(number, 0.9 + number % 97 / 1000) for number in range(3000))
    made = report(replace(search(), history=long, asked=3000))

    assert len(render(made).encode()) < 2_500_000


def test_each_hyperparameter_is_shown_with_its_importance_where_that_is_known() -> None:
    told = words(section(render(report(replace(search(), importances={"rate": 0.834})))))
    assert "rate importance 83%, log scale" in told
    assert "PED-ANOVA" in told
    assert "kind importance" not in told
    untold = words(section(render(report(search()))))
    assert "rate log scale" in untold
    assert "mportance" not in untold

"""Which changes are alarms: planted ones of every kind, and none in rows like those of training."""

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from lodestar.core.drift import measures
from lodestar.core.drift.judge import judge
from lodestar.core.drift.sketches import Reference, Window
from lodestar.core.drift.verdict import ColumnDrift, DriftReport, Limits

COLOURS = ("red", "green", "blue", "grey")


def rows(seed: int, count: int) -> dict[str, pa.Array]:
    draw = np.random.default_rng(seed)
    return {
        "normal": pa.array(draw.normal(size=count)),
        "skewed": pa.array(draw.lognormal(sigma=1.5, size=count)),
        "small": pa.array(draw.poisson(2, count)),
        "holes": pa.array(draw.normal(size=count), mask=draw.random(count) < 0.1),
        "colour": pa.array(draw.choice(COLOURS, count, p=(0.5, 0.3, 0.15, 0.05))),
        "user": pa.array([f"user {number}" for number in draw.integers(0, 10**6, count)]),
        "secret": pa.array(draw.choice(["x", "y", "z"], count, p=(0.7, 0.2, 0.1))),
    }


TRAINED = pa.table(rows(0, 5_000))
REFERENCE = Reference.of(
    TRAINED,
    {"prediction": pa.array(np.random.default_rng(1).normal(size=1_000))},
    labels=False,
    importances={"normal": 3.0, "colour": 1.0, "small": -0.2},
    sensitive={"secret"},
    salt="salt",
)


def judged(changes: dict[str, pa.Array], *, count: int = 2_000, seed: int = 7) -> DriftReport:
    window = Window(REFERENCE)
    window.add({**rows(seed, count), **changes}, count)
    return judge(window)


def column(report: DriftReport, name: str) -> ColumnDrift:
    return next(each for each in report.columns if each.name == name)


@pytest.mark.parametrize(("count", "windows"), [(40, 40), (300, 40), (3_000, 20), (20_000, 4)])
def test_rows_like_those_of_training_raise_no_alarm(count: int, windows: int) -> None:
    alarms = [
        (seed, each.name, each.findings)
        for seed in range(windows)
        for each in judged({}, count=count, seed=100 + seed).drifted
    ]
    assert not alarms


DRAW = np.random.default_rng(11)
PLANTED = {
    "moved": ("normal", pa.array(DRAW.normal(0.5, size=2_000)), "shape"),
    "wider": ("normal", pa.array(DRAW.normal(scale=1.6, size=2_000)), "shape"),
    "tail": ("skewed", pa.array(DRAW.lognormal(sigma=2.2, size=2_000)), "shape"),
    "counts": ("small", pa.array(DRAW.poisson(3, 2_000)), "shape"),
    "nulls": ("holes", pa.array(DRAW.normal(size=2_000), mask=DRAW.random(2_000) < 0.2), "nulls"),
    "unit": (
        "normal",
        pa.array(DRAW.normal(size=2_000) * np.where(DRAW.random(2_000) < 0.01, 1_000, 1)),
        "range",
    ),
    "mix": ("colour", pa.array(DRAW.choice(COLOURS, 2_000, p=(0.2, 0.6, 0.15, 0.05))), "shape"),
    "new": (
        "colour",
        pa.array(DRAW.choice((*COLOURS, "teal"), 2_000, p=(0.49, 0.3, 0.15, 0.05, 0.01))),
        "new",
    ),
    "vanished": (
        "colour",
        pa.array(DRAW.choice(COLOURS[:3], 2_000, p=(0.52, 0.32, 0.16))),
        "vanished",
    ),
    "secret": ("secret", pa.array(DRAW.choice(["x", "y", "z"], 2_000, p=(0.2, 0.2, 0.6))), "shape"),
}


@pytest.mark.parametrize(("name", "values", "kind"), PLANTED.values(), ids=PLANTED)
def test_a_planted_drift_is_found_where_it_is(name: str, values: pa.Array, kind: str) -> None:
    report = judged({name: values})
    assert [each.name for each in report.drifted] == [name]
    assert report.verdict == "drift"
    assert kind in {finding.kind for finding in report.drifted[0].findings}
    assert all(finding.chance < 0.01 for finding in report.drifted[0].findings)


def test_new_and_vanished_values_are_named() -> None:
    new, gone = (judged({"colour": PLANTED[name][1]}) for name in ("new", "vanished"))
    assert [value for value, _ in column(new, "colour").new] == ["teal"]
    assert column(gone, "colour").vanished == ("grey",)


def test_of_a_sensitive_column_no_value_is_kept_nor_named() -> None:
    text = str(REFERENCE.to_json())
    assert "'x'" not in text
    (secret,) = judged({"secret": pa.array(["unheard"] * 2_000)}).drifted
    assert "unheard" not in str(secret)


def test_numbers_that_are_sensitive_leave_nothing_but_how_many_are_missing() -> None:
    table = pa.table({"salary": pa.array([51_234.5, None, 71_717.25])})
    made = Reference.of(
        table, {}, labels=False, importances={}, sensitive={"salary"}, salt="salt"
    ).to_json()
    assert made["columns"] == [
        {"name": "salary", "role": "feature", "kind": "nulls", "rows": 3, "nulls": 1}
    ]


def test_names_of_single_rows_do_not_go_into_a_sketch() -> None:
    assert "user " not in str(REFERENCE.to_json())


def test_what_matters_to_the_model_comes_first() -> None:
    report = judged(
        {
            "normal": PLANTED["moved"][1],
            "skewed": PLANTED["tail"][1],
            "colour": PLANTED["mix"][1],
            "small": PLANTED["counts"][1],
        }
    )
    assert [each.name for each in report.drifted][:2] == ["normal", "colour"]
    assert [each.importance for each in report.drifted] == [0.75, 0.25, None, 0.0] or [
        each.importance for each in report.drifted
    ] == [0.75, 0.25, 0.0, None]


def test_predictions_come_before_all_features() -> None:
    report = judged({"normal": PLANTED["moved"][1], "prediction": pa.array([9.0] * 2_000)})
    assert [each.name for each in report.drifted] == ["prediction", "normal"]


def test_a_change_that_is_sure_but_small_is_no_alarm() -> None:
    values = pa.array(np.random.default_rng(3).normal(0.1, size=100_000))
    window = Window(REFERENCE)
    window.add({"normal": values}, 100_000)
    found = column(judge(window), "normal")
    assert found.verdict == "steady"
    window.rows = 0
    strict = column(judge(window, Limits(psi=0.0)), "normal")
    assert strict.verdict == "drift"


def test_too_few_rows_are_not_judged() -> None:
    window = Window(REFERENCE)
    window.add({"normal": pa.array([99.0] * 29)}, 29)
    report = judge(window)
    assert report.verdict == "too few rows"
    assert {each.verdict for each in report.columns} == {"too few rows"}
    assert judge(Window(REFERENCE)).verdict == "too few rows"


def test_a_column_without_any_value_has_lost_them() -> None:
    (found,) = judged({"normal": pa.nulls(2_000, pa.float64())}).drifted
    assert [finding.kind for finding in found.findings] == ["nulls"]
    assert found.null_rate == 1.0


def test_a_constant_that_becomes_another_one_drifts() -> None:
    reference = Reference.of(
        pa.table({"one": pa.array([1.0] * 500)}), {}, labels=False, importances={}
    )
    for value, verdict in ((1.0, "steady"), (1.0000001, "drift"), (2.0, "drift")):
        window = Window(reference)
        window.add({"one": pa.array([value] * 300)}, 300)
        assert judge(window).verdict == verdict


def test_whole_numbers_and_flags_are_told_value_by_value() -> None:
    flags = np.random.default_rng(5).random(3_000)
    reference = Reference.of(
        pa.table({"flag": pa.array(flags < 0.02)}), {}, labels=False, importances={}
    )
    for share, verdict in ((0.02, "steady"), (0.15, "drift")):
        window = Window(reference)
        window.add({"flag": pa.array(np.random.default_rng(6).random(3_000) < share)}, 3_000)
        assert judge(window).verdict == verdict


@pytest.mark.parametrize(("first", "second"), [((3, 400), (9, 200)), ((0, 50), (4, 30))])
def test_equal_rates_are_judged_as_fisher_does(
    first: tuple[int, int], second: tuple[int, int]
) -> None:
    table = [[first[0], first[1] - first[0]], [second[0], second[1] - second[0]]]
    larger = stats.fisher_exact(table, alternative="less").pvalue
    assert measures.same_rate(first, second) == pytest.approx(min(1.0, 2 * larger))


def test_many_hits_are_judged_as_chi_square_does() -> None:
    table = np.array([[60_000, 40_000], [31_000, 19_000]])
    wanted = stats.chi2_contingency(table, correction=False).pvalue
    assert measures.same_rate((60_000, 100_000), (31_000, 50_000)) == pytest.approx(wanted)


def test_the_chance_of_a_distance_is_kolmogorovs() -> None:
    draw = np.random.default_rng(2)
    first, second = draw.normal(size=800), draw.normal(0.1, size=600)
    exact = stats.ks_2samp(first, second, method="exact")
    assert measures.kolmogorov(exact.statistic, 800, 600) == pytest.approx(exact.pvalue, rel=0.1)
    assert measures.kolmogorov(0.0, 10, 10) == 1.0


@pytest.mark.parametrize("shape", [0.5, 1.0, 7.5, 40.0, 5_000.0, 1e6])
def test_the_gamma_function_is_scipys(shape: float) -> None:
    from scipy.special import gammaincc

    for factor in (1e-9, 0.1, 0.9, 1.0, 1.02, 1.5, 20.0):
        found = measures.upper_gamma(shape, shape * factor)
        assert found == pytest.approx(gammaincc(shape, shape * factor), rel=1e-6, abs=1e-12)
    assert measures.upper_gamma(shape, 0.0) == 1.0


def test_rare_bins_are_taken_together_for_chi_square() -> None:
    was, now = np.array([500.0, 400.0, 1.0, 1.0]), np.array([260.0, 190.0, 0.0, 1.0])
    wanted = stats.chi2_contingency([[500, 400, 2], [260, 190, 1]], correction=False).pvalue
    assert measures.homogeneity(was, now) == pytest.approx(wanted)


def test_chances_are_corrected_as_benjamini_and_hochberg_do() -> None:
    chances = np.random.default_rng(4).random(50) ** 3
    wanted = stats.false_discovery_control(chances)
    assert measures.adjusted(chances) == pytest.approx(wanted)


def test_the_distance_of_jensen_and_shannon_is_scipys() -> None:
    from scipy.spatial.distance import jensenshannon

    was, now = np.array([5.0, 3.0, 0.0]), np.array([1.0, 2.0, 7.0])
    assert measures.jensen_shannon(was, now) == pytest.approx(jensenshannon(was, now, base=2))
    assert measures.jensen_shannon(was, was) == pytest.approx(0.0, abs=1e-8)


def test_the_chance_of_values_out_of_range_is_that_of_the_ranks() -> None:
    draw = np.random.default_rng(8)
    found = [draw.random(50).max() for _ in range(4_000)]
    above = np.mean([np.sum(draw.random(20) > high) >= 2 for high in found])
    assert measures.chance_of_outside(2, 20, 50) == pytest.approx(above, abs=0.01)
    assert measures.chance_of_outside(0, 20, 50) == 1.0

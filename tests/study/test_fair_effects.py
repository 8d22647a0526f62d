"""The statistics of the fair study against enumeration, scipy and thirty lines of pandas."""

from __future__ import annotations

import itertools

import numpy as np
import pandas
import pytest
from scipy import stats

from study.fair import effects
from study.fair.effects import FAMILIES, SETS, Answer, Effect
from study.fair.grid import TASKS


def test_holm_by_hand() -> None:
    assert effects.holm([0.04, 0.01, 0.03, 0.005]) == pytest.approx([0.06, 0.03, 0.06, 0.02])
    assert effects.holm([0.9, 0.8]) == pytest.approx([1, 1])
    assert len(effects.holm([])) == 0


def ledger_of(seed: int, rows: list[str], tasks: tuple[str, ...]) -> pandas.DataFrame:
    random = np.random.default_rng(seed)
    lines = [
        {"task": task, "row": row, "seed": s, "reported": True, "test/i/auroc": 0.8 + 0.03 * random.normal()}
        for task, row, s in itertools.product(tasks, rows, range(5))
    ]
    return pandas.DataFrame(lines)


def test_one_task_is_a_paired_t_interval_without_a_test() -> None:
    ledger = ledger_of(0, ["a", "b"], ("breast",))
    effect = effects.effect(effects.differences(effects.outcomes(ledger, "test/i/auroc"), "a", "b", ["breast"]))
    assert effect is not None
    a, b = (ledger[ledger["row"] == row]["test/i/auroc"].to_numpy() for row in "ab")
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (effect.mean, effect.low, effect.high) == pytest.approx(((a - b).mean(), low, high))
    assert np.isnan(effect.p)
    assert effect.positive == (a > b).sum()


def test_level_needs_the_whole_interval_within_the_margin() -> None:
    def level(values: list[float]) -> bool:
        index = pandas.MultiIndex.from_product([["breast"], range(5)], names=["task", "seed"])
        effect = effects.effect(pandas.Series(values, index))
        assert effect is not None
        return effect.level

    assert level([0.001, -0.001, 0.002, 0.0, 0.001])
    assert not level([0.011, 0.011, 0.012, 0.011, 0.01])
    assert not level([0.03, -0.03, 0.02, -0.02, 0.001])


def test_answers_are_those_of_a_plain_recomputation() -> None:
    rows = sorted({row for pairs in FAMILIES.values() for pair in pairs for row in pair})
    ledger = ledger_of(1, rows, SETS["rare"])
    ledger.loc[ledger["row"] == "supmin", "test/i/auroc"] += 0.02
    answers = table_of(effects.answers(ledger, "test/i/auroc", SETS["rare"]))
    wide = ledger.pivot(index=["task", "seed"], columns="row", values="test/i/auroc")
    for family, members in answers.groupby("family"):
        p_values = []
        for a, b in FAMILIES[family]:
            gap = (wide[a] - wide[b]).unstack("seed")
            units = [
                gap.loc[[task for task in gap.index if TASKS[task].dataset == name], seed].sum() / 30
                for name in ("fashion-mix5", "fashion-shirt", "pneumonia")
                for seed in range(5)
            ]
            variance = sum(5 * np.var(units[i : i + 5], ddof=1) for i in (0, 5, 10))
            freedom = variance**2 / sum((5 * np.var(units[i : i + 5], ddof=1)) ** 2 / 4 for i in (0, 5, 10))
            low, high = stats.t.interval(0.95, freedom, gap.to_numpy().mean(), np.sqrt(variance))
            line = members[(members["a"] == a) & (members["b"] == b)].iloc[0]
            assert (line["mean"], line["low"], line["high"]) == pytest.approx((gap.to_numpy().mean(), low, high))
            p_values.append(enumerated_by_bits(units))
            assert line["p"] == pytest.approx(p_values[-1], rel=1e-9)
        order, worst = np.argsort(p_values), 0.0
        for place, index in enumerate(order):
            worst = max(worst, min(1.0, (len(p_values) - place) * p_values[index]))
            line = members[(members["a"] == FAMILIES[family][index][0]) & (members["b"] == FAMILIES[family][index][1])]
            assert line["p_holm"].item() == pytest.approx(worst, rel=1e-9)


def table_of(answers: list[Answer]) -> pandas.DataFrame:
    return pandas.DataFrame([{**vars(each), **vars(each.effect), "p_holm": each.p} for each in answers])


def enumerated_by_bits(units: list[float]) -> float:
    patterns = np.arange(2 ** len(units))[:, None] >> np.arange(len(units)) & 1
    sums = np.abs((2 * patterns - 1) @ np.array(units))
    return float((sums >= abs(sum(units)) - 1e-9).mean())


def test_a_head_is_compared_with_the_other_head_of_the_same_row() -> None:
    ledger = ledger_of(2, ["weighted-ce", "ce-balanced", "supmin"], ("breast", "platelets"))
    random = np.random.default_rng(3)
    for head in effects.HEADS:
        ledger[f"test/{head}/balanced_accuracy"] = random.normal(0.8, 0.01, len(ledger))
    for answer, row in zip(
        effects.head_answers(ledger, ("breast", "platelets")), ("weighted-ce", "ce-balanced"), strict=True
    ):
        runs = ledger[ledger["row"] == row]
        gap = runs["test/logit-adjusted/balanced_accuracy"] - runs["test/balanced-all/balanced_accuracy"]
        assert (answer.a, answer.b, answer.planned) == (f"{row}, adjusted", f"{row}, balanced", 10)
        assert answer.effect is not None
        assert answer.effect.mean == pytest.approx(gap.mean())
        assert answer.effect.p == pytest.approx(enumerated_by_bits((gap / 10).tolist()))


def test_pretrained_starts_are_one_family_over_both_tasks_of_each_start() -> None:
    rows = ["supmin-balanced", "supproto-balanced", "ce-balanced", "simclr-balanced"]
    tasks = [f"{base}-from-{start}" for start in ("ce", "simclr") for base in ("breast", "pneumonia-99")]
    ledger = ledger_of(4, rows, tuple(tasks))
    answers = effects.start_answers(ledger, "test/i/auroc")
    values = ledger.pivot(index=["task", "seed"], columns="row", values="test/i/auroc")
    p_values = []
    for answer in answers:
        (a, start), (b, _) = (name.split(" from ") for name in (answer.a, answer.b))
        gap = (values[a] - values[b]).loc[[task for task in tasks if task.endswith(f"-{start}")]]
        assert answer.effect is not None
        assert (answer.planned, answer.effect.mean) == (10, pytest.approx(gap.mean()))
        p_values.append(enumerated_by_bits((gap / 10).tolist()))
    assert len(answers) == 8
    assert [answer.p for answer in answers] == pytest.approx(effects.holm(p_values).tolist())


@pytest.mark.parametrize(
    ("mean", "level", "p", "word"),
    [
        (0.02, False, 0.049, "better"),
        (-0.02, False, 0.01, "worse"),
        (0.004, True, 0.01, "better, by less than a point"),
        (0.004, True, 0.05, "level"),
        (0.02, False, 0.05, "unclear"),
        (0.004, True, float("nan"), "no test"),
    ],
)
def test_the_word_follows_from_the_corrected_p_and_the_margin(mean: float, level: bool, p: float, word: str) -> None:
    effect = Effect(mean, 0.0, 0.0, level, 1, 2, ("breast", "platelets"), 0.0)
    assert Answer("A", "a", "b", 2, effect, p).word == word

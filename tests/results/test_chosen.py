"""Validation chooses the model; a floor that is not cleared is told; the copy is what was chosen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
from sklearn.metrics import roc_auc_score

from ttc.results.experiment import chosen
from ttc.results.experiment.chosen import FLOOR, PROBE, TUNED, Candidate


def candidate(row: str, head: str, validation: tuple[float, ...], test: tuple[float, ...]) -> Candidate:
    runs = tuple(Path(f"{row}-{number}") for number in range(len(validation)))
    return Candidate(row, head, runs, validation, test)


def test_the_mean_on_validation_decides_and_test_has_no_say() -> None:
    better_on_test = candidate("a", PROBE, (0.80, 0.82), (0.99, 0.99))
    better = candidate("b", TUNED, (0.90, 0.76), (0.60, 0.60))
    assert chosen.choose([better_on_test, better], ()) is better
    assert better.best == 0


def test_an_untrained_probe_and_the_floor_are_not_chosen() -> None:
    trained = candidate("a", PROBE, (0.6,), (0.6,))
    others = [candidate("untrained", PROBE, (0.9,), (0.9,)), candidate("", FLOOR, (0.95,), (0.9,))]
    assert chosen.choose([*others, trained], ("untrained",)) is trained
    from_scratch = candidate("untrained", TUNED, (0.7,), (0.6,))  # trained after all, by finetune.py
    assert chosen.choose([*others, trained, from_scratch], ("untrained",)) is from_scratch
    with pytest.raises(ValueError, match="no run has a head"):
        chosen.choose(others, ("untrained",))


@pytest.mark.parametrize(
    ("floor", "says"),
    [
        ((0.7, 0.6), "above the floor on validation and on test in 2 of 2 runs"),
        ((0.8, 0.6), "above the floor on test in 2 of 2 runs, but NOT on validation. Why: "),
        ((0.7, 0.75), "NOT above the floor on test (it is in 1 of 2 runs): "),
        ((0.9, 0.9), "NOT above the floor on test (it is in 0 of 2 runs) and validation: "),
    ],
)
def test_a_floor_that_is_not_cleared_is_told_with_why_and_what_to_change(floor: tuple[float, float], says: str) -> None:
    ours = candidate("a", PROBE, (0.8, 0.8), (0.7, 0.78))
    lines = chosen.verdict(ours, [ours, candidate("", FLOOR, (floor[0],) * 2, (floor[1],) * 2)], "2 seeds", 7)
    assert says in lines[-1]
    assert ("--crop-scale" in lines[-1]) == ("NOT" in says)
    assert ("7 of them of the rarest class" in lines[-1]) == ("Why" in says)
    assert "no floor" in chosen.verdict(ours, [ours], "1 seed", 7)[-1]


def make_run(folder: Path, seed: int) -> dict[str, tuple[float, float]]:
    """Write the predictions of a run; return the AUROCs of its heads as scikit-learn says them."""
    generator, expected = np.random.default_rng(seed), {}
    steps = (("linear_eval", ("all", "minority")), ("linear_eval/floor", ("all", "minority")), ("finetune", ("own",)))
    for step, names in steps:
        tables = []
        for name in names:
            aurocs = []
            for split in ("val", "test"):
                labels, scores = np.arange(20) % 2, generator.random(20)
                aurocs.append(float(roc_auc_score(labels == 0, scores)))  # class 0 is the positive one
                tables.append(
                    pandas.DataFrame(
                        {"id": [f"{split}{n}" for n in range(20)], "label": labels, "score": scores, "split": split}
                    ).assign(probe=name)
                )
            expected[f"{step} {name}"] = (aurocs[0], aurocs[1])
        (folder / step).mkdir(parents=True)
        pandas.concat(tables).to_csv(folder / step / "predictions.csv", index=False)
        result = {"kind": step, "class_names": ["ill", "well"], "positive_class": 0}
        (folder / step / "result.json").write_text(json.dumps(result))
    for place, name in (("checkpoints", "last.pt"), ("finetune/checkpoints", "best.pt"), ("linear_eval", "heads.pt")):
        (folder / place).mkdir(exist_ok=True)
        (folder / place / name).write_text(f"{place} {seed}")
    (folder / "split.csv").write_text("id\n")
    return expected


def test_candidates_are_read_from_predictions_and_the_best_run_is_copied(tmp_path: Path) -> None:
    runs = [tmp_path / f"a-seed{seed}" for seed in range(2)]
    expected = [make_run(run, seed) for seed, run in enumerate(runs)]
    heads = {each.name: each for each in chosen.read_candidates({"a": runs})}
    keys = {"a, probe": "linear_eval all", "floor": "linear_eval/floor all", "a, fine-tuned": "finetune own"}
    for name, key in keys.items():
        assert heads[name].validation == pytest.approx([values[key][0] for values in expected])
        assert heads[name].test == pytest.approx([values[key][1] for values in expected])
    assert len(heads) == 3
    for name, weights, head, beside in (
        ("a, probe", "last.pt", "", "linear_eval/heads.pt"),
        ("a, fine-tuned", "best.pt", "own", "predictions.csv"),
    ):
        best = heads[name].best
        checkpoint, word = chosen.copy_model(heads[name], tmp_path / "model")
        assert (checkpoint, word) == (tmp_path / "model" / "checkpoints" / weights, head)
        place = "checkpoints" if not head else "finetune/checkpoints"
        assert checkpoint.read_text() == f"{place} {best}"
        assert (tmp_path / "model" / beside).is_file()
        assert (tmp_path / "model" / "split.csv").is_file()
    assert not (tmp_path / "model" / "linear_eval").exists()  # nothing is left of the first choice

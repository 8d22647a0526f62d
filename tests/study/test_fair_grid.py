"""The fair study: equal encoder passes, choices on validation alone, a ledger that goes on and hides test values."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import pandas
import pytest

from study.fair import grid, ledger
from study.fair.grid import ROWS, TASKS, Run
from tests.processes import ROOT, run
from ttc.flags.recipes import expand
from ttc.losses import METHODS
from ttc.run import manifest


def scores(runs: dict[Run, float]) -> pandas.DataFrame:
    """Return a ledger of these runs, with a score each."""
    lines = [{"run": run.name, **dict.fromkeys(ledger.SCORE, score)} for run, score in runs.items()]
    return pandas.DataFrame(lines)


def test_every_row_embeds_as_many_images() -> None:
    for name, row in ROWS.items():
        passes = 2 if "--sam-rho" in row.words else 1
        assert row.views == passes * METHODS[row.words[1]].objective.views, name
    for task, row in product(TASKS, ROWS):
        assert abs(grid.short_epochs(task, row) * ROWS[row].views - 2 * TASKS[task].epochs) <= ROWS[row].views / 2


def test_the_name_of_a_run_says_what_it_is() -> None:
    runs = [*grid.rate_runs(list(TASKS)), *grid.untrained_runs(list(TASKS))]
    assert [ledger.run_of(run.name) for run in runs] == runs
    assert len({run.name for run in runs}) == len(runs)
    with pytest.raises(ValueError, match="breast/supmin is no run"):
        ledger.run_of("breast/supmin")


def test_the_recipe_of_each_task_exists_and_each_fold_tests_once() -> None:
    for name, task in TASKS.items():
        assert expand([f"@scripts/recipes/fair-{task.recipe or name}.args"], ROOT)
    folds = [run.line().steps["pretrain"][-1] for run in grid.untrained_runs(["hannover"])]
    assert folds == [f"{fold}/5" for fold in range(1, 6)]


def test_rate_then_length_are_chosen_by_validation_and_every_fold_for_itself() -> None:
    tried = {run: 0.5 for run in grid.rate_runs(["hannover"]) if run.row == "supmin"}
    assert not list(ledger.rates(scores(dict(list(tried.items())[:-1])), ["hannover"]))[4:]
    best = {1: 0.03, 2: 0.25, 3: 0.1, 4: 0.1}
    tried |= {run: 0.9 for run in tried if best.get(run.fold or 0) == run.rate}
    pairs = list(ledger.rates(scores(tried), ["hannover"]))
    # Of equals, as in fold 5, the smallest rate.
    assert [(short.fold, short.rate, long.epochs) for short, long in pairs] == [
        (1, 0.03, 100), (2, 0.25, 100), (3, 0.1, 100), (4, 0.1, 100), (5, 0.01, 100),
    ]  # fmt: skip
    lengths = {long: (0.95 if long.fold == 2 else 0.9 if long.fold == 3 else 0.1) for _, long in pairs}
    chosen = [run for run in ledger.reported(scores(tried | lengths), ["hannover"]) if run.row == "supmin"]
    assert [(run.fold, run.seed, run.rate, run.epochs) for run in chosen] == [
        (1, 0, 0.03, 25), (2, 1, 0.25, 100), (3, 2, 0.1, 25), (4, 3, 0.1, 25), (5, 4, 0.01, 25),
    ]  # fmt: skip


def test_a_run_that_only_one_probe_measured_is_not_chosen() -> None:
    known = pandas.DataFrame({"run": ["whole", "half"], ledger.SCORE[0]: [0.8, 0.95], ledger.SCORE[1]: [0.9, None]})
    assert ledger.scores(known) == {"whole": pytest.approx(0.85), "half": -math.inf}


@pytest.mark.parametrize("task", TASKS)
def test_the_runs_of_every_task_are_lines_that_a_manifest_takes(task: str, tmp_path: Path) -> None:
    lines = [run.line() for run in grid.rate_runs([task])]
    (tmp_path / "left.csv").write_text(manifest.write_manifest(lines, "python study/fair/plan.py lines"))
    assert manifest.read_manifest(tmp_path / "left.csv") == lines


@pytest.mark.long
def test_runs_become_lines_without_test_values_of_those_that_choose(tmp_path: Path) -> None:
    """A tiny run of each kind, with the words of its line but on digits, in the place of its own data."""
    results, file = tmp_path / "fair", tmp_path / "fair.csv"
    for planned in (Run("breast", "supmin", 0.1, 1, grid.TUNING_SEED), Run("breast", "supmin", 0.1, 1, 0)):
        folder = results / planned.name
        for step, words in planned.line().steps.items():
            place = ("--checkpoint", folder / "checkpoints" / "last.pt")
            if step == "pretrain":
                words, place = ("--dataset", "digits", "--encoder", "convnet-w8", *words[1:]), ("--output", folder)
            assert run(step, *words, *place, folder=tmp_path).code == 0
    plan = ("study.fair.plan", "collect", "--ledger", file, "--results")
    assert run(*plan, results, folder=tmp_path).code == 0
    choosing, reported = (line for _, line in ledger.read(file).sort_values("seed", ascending=False).iterrows())
    assert not choosing["reported"]
    assert reported["reported"]
    assert 0 <= choosing["val/ii/auroc"] <= 1
    hidden = [name for name in choosing.index if name.startswith(("test/", "floor/", "projection/", "positives"))]
    assert len(hidden) == 27
    assert choosing[hidden].isna().all()
    assert reported[[name for name in hidden if not name.startswith("floor/")]].notna().all()
    # Collected again, and from a folder that is empty: nothing changes.
    before = file.read_bytes()
    assert run(*plan, results, folder=tmp_path).code == run(*plan, tmp_path / "none", folder=tmp_path).code == 0
    assert file.read_bytes() == before
    left = run("study.fair.plan", "lines", "--tasks", "breast", "--ledger", file, folder=tmp_path)
    assert left.stdout.count("breast-untrained") == 5


def test_candidates_and_baselines_get_further_seeds_where_candidates_run() -> None:
    tried = dict.fromkeys(grid.rate_runs(["breast", "pneumonia-99"]), 0.5)
    tried |= {long: 0.9 for _, long in ledger.rates(scores(tried), ["breast", "pneumonia-99"])}
    runs = list(ledger.further(scores(tried), ["breast", "pneumonia-99"]))
    assert {run.task for run in runs} == {"breast"}
    assert {run.seed for run in runs} == set(grid.FURTHER_SEEDS)
    assert {run.row for run in runs} == {
        *ledger.BASELINES,
        "joint-average",
        "cutmix-average",
        "supcon-ce",
        "joint-sharp",
    }
    assert all(not run.reported and run.epochs == 4 * grid.short_epochs("breast", run.row) for run in runs)


def test_a_pretrained_start_has_one_length_and_a_frozen_encoder_is_probed_behind_its_projector() -> None:
    tried = dict.fromkeys(grid.rate_runs(["breast-from-ce", "breast-frozen-random"]), 0.5)
    runs = list(ledger.reported(scores(tried), ["breast-from-ce", "breast-frozen-random"]))
    assert {(run.task, run.row) for run in runs if run.row in ("untrained", "ce-balanced")} == {
        ("breast-from-ce", "untrained"), ("breast-from-ce", "ce-balanced"),
    }  # fmt: skip
    frozen = next(run for run in runs if run.task == "breast-frozen-random").line().steps
    assert "--freeze-encoder" in frozen["pretrain"]
    assert "--weights" not in frozen["pretrain"]
    assert frozen["linear_eval"][:2] == ("--layers", "projection")


def test_a_rate_at_which_the_loss_was_not_finite_is_neither_chosen_nor_tried_again(tmp_path: Path) -> None:
    bad, *others = [run for run in grid.rate_runs(["breast"]) if run.row == "supmin"]
    (tmp_path / bad.name).mkdir(parents=True)
    (tmp_path / bad.name / ledger.BAD_STEP).write_text("{}\n")
    known = ledger.collect(tmp_path, pandas.DataFrame({"run": []}))
    known = pandas.concat([known, scores(dict.fromkeys(others, 0.4))])
    assert bad.name in set(known["run"])
    assert next(chosen for chosen, _ in ledger.rates(known, ["breast"]) if chosen.row == "supmin") == others[0]

"""Tables of the fair study that answer: effects with their tests, differences by task, what replicates, the recipe."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from study.fair import effects, winner
from study.fair.effects import FAMILIES, SETS, Answer, Effect
from study.fair.grid import BEGUN, SEEDS
from study.fair.ledger import PROBES
from study.fair.page_tables import collapsed
from study.fair.state import MAIN, State
from study.tables import markdown

QUESTIONS = {
    "A": "Does the finding replicate?",
    "B": "Do the fixes beat what needs no fix?",
    "C": "What do balanced batches change?",
    "D": "With balanced batches, do the fixes beat the baselines?",
    "E": "Do they beat other methods for long tails?",
    "F": "Is the joint recipe better than its parts?",
    "G": "Does adjusting a head afterwards replace balancing it?",
    "H": "With a pretrained start, do the fixes beat the baselines?",
}
PAPER = 0.1
"""An effect of the paper's size, ten points."""
NOT_RUN = "Not run yet.\n"
OUTCOMES = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy"}
FIXES = (("supmin", "supcon"), ("supproto", "supcon"))


def points(each: Effect | None) -> str:
    """Return an effect in points with its 95 % interval, which a single pair does not have."""
    if each is None:
        return "not run yet"
    # Adding zero turns what rounds to -0.0 into +0.0.
    mean, low, high = (f"{round(100 * value, 1) + 0.0:+.1f}" for value in (each.mean, each.low, each.high))
    return mean if np.isnan(each.low) else f"{mean} [{low}, {high}]"


def _probability(p: float) -> str:
    return "-" if np.isnan(p) else f"{p:.3f}" if p >= 0.001 else "<0.001"


def _table(heading: str, answers: Sequence[tuple[str, Answer]]) -> str:
    """Return a table with a line per answer and probe below its heading."""
    lines = []
    for probe, answer in answers:
        cells, each = [f"{answer.a} - {answer.b}", probe, points(answer.effect)], answer.effect
        if each:
            missing = f" ({answer.planned} planned)" if each.pairs < answer.planned else ""
            cells += [f"{each.positive} of {each.pairs}{missing}", str(len(each.tasks))]
            cells += [_probability(each.p), _probability(answer.p), answer.word]
        lines.append(cells + ["-"] * (8 - len(cells)))
    headings = ("difference", "probe", "points, 95 % interval", "above zero", "tasks", "p exact", "p Holm", "answer")
    return f"### {heading}\n\n{markdown(headings, lines)}"


@lru_cache(maxsize=len(OUTCOMES) * len(SETS))
def _of_probes(state: State, outcome: str, tasks: str) -> list[tuple[str, Answer]]:
    """Return probe and answer of the families A to F, the probes of a pair beside each other."""
    found = [effects.answers(state.runs, f"test/{probe}/{outcome}", SETS[tasks]) for probe in PROBES]
    return [(probe, answer) for pair in zip(*found, strict=True) for probe, answer in zip(PROBES, pair, strict=True)]


def answers(state: State) -> str:
    """Return the answers of the families A to F: by outcome, set of tasks and family, for both probes."""
    parts = []
    for outcome, title in OUTCOMES.items():
        for tasks in SETS:
            found = _of_probes(state, outcome, tasks)
            for family in FAMILIES:
                lines = [(probe, answer) for probe, answer in found if answer.family == family]
                parts.append(_table(f"{family}. {QUESTIONS[family]} ({tasks} tasks, {title})", lines))
    return "\n".join(parts)


def heads(state: State) -> str:
    """Return the answers of family G: heads of all training images, balanced accuracy."""
    parts = []
    for name, tasks in SETS.items():
        found = effects.head_answers(state.runs, tasks)
        parts.append(
            _table(f"G. {QUESTIONS['G']} ({name} tasks, balanced accuracy)", [("all", each) for each in found])
        )
    lines = [[task, *(_seeds(each.effect) for each in effects.head_answers(state.runs, [task]))] for task in MAIN]
    headings = [f"{each.a} - {each.b}" for each in effects.head_answers(state.runs, [])]
    return "\n".join([*parts, markdown(("task", *headings), lines)])


def pretrained(state: State) -> str:
    """Return the answers of family H: everything trained from an encoder of another data set."""
    parts = []
    for outcome, title in OUTCOMES.items():
        found = [effects.start_answers(state.runs, f"test/{probe}/{outcome}") for probe in PROBES]
        lines = [each for pair in zip(*found, strict=True) for each in zip(PROBES, pair, strict=True)]
        parts.append(_table(f"H. {QUESTIONS['H']} ({' and '.join(BEGUN)}, {title})", lines))
    return "\n".join(parts)


def summary(state: State) -> str:
    """Return the answers of the families A to F in AUROC, a line per pair; bold is what the test is sure of."""
    table: dict[tuple[str, str, str], list[str]] = {}
    for place, tasks in enumerate(SETS):
        for _, answer in _of_probes(state, "auroc", tasks):
            cells = table.setdefault((answer.family, answer.a, answer.b), [])
            cells += ["-"] * (2 * place - len(cells))
            text = points(answer.effect) + (f" {answer.word}" if answer.effect else "")
            cells.append(f"**{text}**" if answer.p < effects.SURE else text)
    lines = [[family, f"{a} - {b}", *cells, *["-"] * (4 - len(cells))] for (family, a, b), cells in table.items()]
    lines.sort(key=lambda line: line[0])
    return markdown(("", "difference", *(f"{tasks}, {probe}" for tasks in SETS for probe in PROBES)), lines)


def _seeds(each: Effect | None) -> str:
    """Return an effect on one task, and in how many of its seeds it is above zero."""
    return f"{points(each)} {each.positive}/{each.pairs}" if each else "not run yet"


def by_task(state: State) -> str:
    """Return each pair's difference on each task with its t interval, and how many seeds have it above zero."""
    asked = [(pair, MAIN) for pair in dict.fromkeys(pair for pairs in FAMILIES.values() for pair in pairs)]
    asked += [(pair, tuple(tasks)) for tasks in effects.START_TASKS.values() for pair in effects.START_PAIRS]
    columns = {f"{title}, {probe}": f"test/{probe}/{name}" for name, title in OUTCOMES.items() for probe in PROBES}
    found: dict[str, dict[str, dict[str, str]]] = {task: {} for _, tasks in asked for task in tasks}
    for heading, column in columns.items():
        values = effects.outcomes(state.runs, column)
        for pair, tasks in asked:
            for task, gaps in effects.differences(values, *pair, tasks).groupby(level="task"):
                cells = found[str(task)].setdefault(" - ".join(pair), dict.fromkeys(columns, "-"))
                cells[heading] = _seeds(effects.effect(gaps))
    parts = []
    for task, pairs in found.items():
        lines = [[name, *cells.values()] for name, cells in pairs.items()]
        parts.append(f"### {task}\n\n{markdown(('difference', *columns), lines) if lines else NOT_RUN}")
    return "\n".join(parts)


def replicated(state: State) -> str:
    """Return what the protocol counts as replication: by task, and over the rare tasks once all is there."""
    pairs = (("supcon", "untrained"), *FIXES)
    outcomes = [effects.outcomes(state.runs, f"test/{probe}/auroc") for probe in PROBES]
    lines = []
    for task in MAIN:
        bad, measured = collapsed(state.runs[(state.runs["task"] == task) & (state.runs["row"] == "supcon")])
        found = [[effects.effect(effects.differences(values, *pair, [task])) for values in outcomes] for pair in pairs]
        against = "open"
        if measured and all(map(all, found)):
            not_behind = all(each and (each.mean <= 0 or each.level) for of_pair in found[1:] for each in of_pair)
            against = "yes" if bad <= measured / 2 and not_behind else "no"
        lines.append([task, f"{bad} of {measured}", *(" / ".join(map(points, each)) for each in found), against])
    headings = (
        "task",
        "supcon collapsed",
        *(f"{a} - {b}, i / ii" for a, b in pairs),
        "against the finding",
    )
    return f"{_verdict(state)}\n{markdown(headings, lines)}"


def _verdict(state: State) -> str:
    if not state.complete:
        return "Whether the finding replicates on the rare tasks is open: the ledger is not complete.\n"
    found = {(each.a, each.b, probe): each for probe, each in _of_probes(state, "auroc", "rare") if each.family == "A"}
    runs = state.runs[state.runs["task"].isin(SETS["rare"]) & (state.runs["row"] == "supcon")]
    bad, measured = collapsed(runs)
    useless = not any("better" in found["supcon", "untrained", probe].word for probe in PROBES)
    keys = [(*pair, probe) for pair in FIXES for probe in PROBES]
    fixes = [found[key] for key in keys]
    helped = all("better" in each.word for each in fixes)
    largest = max(each.effect.mean for each in fixes if each.effect)
    word = "replicates" if (bad > measured / 2 or useless) and helped else "does not replicate"
    return (
        f"By the protocol's rule the finding **{word}** on the rare tasks: supcon collapses in {bad} of {measured} "
        f"runs and is {'not ' * useless}better than the untrained encoder; the fixes are {'not ' * (not helped)}both "
        f"better than supcon on both probes. The largest of their effects is {100 * largest:+.1f} points, "
        f"{'of' if largest >= PAPER else 'below'} the paper's size.\n"
    )


def candidates(state: State) -> str:
    """Return validation scores less that of the best balanced baseline, in points, of baselines and candidates."""
    gaps = winner.advantages(state)
    lines = [[row, *("open" if np.isnan(gap) else f"{100 * gap:+.1f}" for gap in gaps.loc[row])] for row in gaps.index]
    name = winner.winner(state)
    chosen = "No candidate is chosen yet: runs are missing." if name is None else f"Chosen: {name}."
    return f"{chosen}\n\n{markdown(('row', *gaps.columns), lines)}"


def recipe(state: State) -> str:
    """Return whether the chosen candidate wins, and its differences from the baseline that validation picks."""
    name = winner.winner(state)
    if name is None:
        return "Whether a recipe wins is open: no candidate is chosen yet.\n"
    trials = list(winner.trials(state, name))
    by_task = {trial.task: trial for trial in trials}
    rare = [by_task.get(task) for task in SETS["rare"]]
    if not all(trial and all(each and each.pairs == len(SEEDS) for each in trial.effects) for trial in rare):
        verdict = f"Whether {name} wins is open: it is not run on all rare tasks."
    else:
        ahead = sum(trial.ahead for trial in rare if trial)
        result = f"**{name} wins**" if ahead == len(rare) else "**No recipe that wins was found**"
        verdict = f"{result}: {name} is at least a point ahead on both probes on {ahead} of {len(rare)} rare tasks."
    lines = [
        [
            trial.task,
            trial.baseline,
            *map(points, trial.effects),
            "yes" if trial.ahead else "no" if all(trial.effects) else "open",
        ]
        for trial in trials
    ]
    headings = ("task", "best balanced baseline", *(f"{name} - baseline, {probe}" for probe in PROBES), "a point ahead")
    return f"{verdict}\n\n{markdown(headings, lines)}"

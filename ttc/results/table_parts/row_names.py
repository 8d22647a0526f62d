"""What the rows of a table are called, and which flags tell them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ttc.run import ledger, roles
from ttc.run.escape import plain
from ttc.run.roles import Role

if TYPE_CHECKING:
    from ttc.results.collect import Run


def compared_with(flags: Sequence[str] = ()) -> frozenset[str]:
    """Return the training flags in which the rows of one group may differ: by role, and further ones as users write."""
    further = {flag.removeprefix("--").replace("-", "_") for flag in flags}
    return roles.names(Role.COMPARED, Role.ADDED) | further


def recipe_of(entries: Mapping[str, Mapping[str, object]]) -> str | None:
    """Return the name of the recipe, NAME.args, that chose the method of a run; None where the command line did.

    Flags that the command line changed, in which rows may differ, follow the name.

    Args:
        entries: of the run's `args.json`.
    """
    file, mark, _ = str(entries["method"]["source"]).rpartition(":")
    if not mark or not file.endswith(".args"):
        return None
    flags = sorted(roles.names(Role.COMPARED, Role.ADDED) & entries.keys())
    return Path(file).stem + _flags_and_values(
        {flag: entries[flag]["value"] for flag in flags if entries[flag]["source"] == "command line"}
    )


def places_of(runs: Sequence[Run], compared: frozenset[str] | None = None) -> list[tuple[str, str]]:
    """Return the group and the row of the table that each run belongs to."""
    groups = _distinguish([_group_name(run.training) for run in runs], runs, roles.names(Role.GROUPED))
    # The same training by hand and by a recipe is one row, and called by the recipe.
    recipes = {ledger.short_digest(run.training): run.recipe for run in reversed(runs) if run.recipe is not None}
    rows = [
        f"{group}\n{_row_name(run.training, recipes.get(ledger.short_digest(run.training)))}"
        for group, run in zip(groups, runs, strict=True)
    ]
    names = [
        name.partition("\n")[2] for name in _distinguish(rows, runs, compared_with() if compared is None else compared)
    ]
    return list(zip(groups, names, strict=True))


def _group_name(training: Mapping[str, object]) -> str:
    """Name the data of a run: the set, and the ratio and the number of images where they were asked for."""
    name = str(training["dataset"])
    if name == "imagefolder":
        name = Path(str(training["data_root"])).name
    elif name in ("csv", "arrays"):  # many a table is called table.csv; its folder says whose
        name = "/".join(Path(str(training["data_root"])).parts[-2:])
    if isinstance(ratios := training["class_ratios"], list):
        name += f" {':'.join(f'{100 * ratio:g}' for ratio in ratios)}"
    if training["train_samples"] is not None:
        name += f", {training['train_samples']} images"
    if training.get("fold") is not None:
        name += f", {str(training['fold']).partition('/')[2]} folds"
    return plain(name)


def _row_name(training: Mapping[str, object], recipe: str | None) -> str:
    """Name the row of a run: its recipe, or its method with what was added to it, and how its batches were drawn."""
    if training["epochs"] == 0:  # None where --steps says how long
        return "untrained"
    if recipe is not None:
        return plain(recipe)
    name = str(training["method"])
    if training["batch_sampler"] != "shuffle":
        name += f" {training['batch_sampler']}"
    if training["min_minority_per_batch"]:
        name += f" >={training['min_minority_per_batch']}"
    values = {flag: roles.value_of(flag, training) for flag in sorted(roles.names(Role.ADDED))}
    del values["min_minority_per_batch"]
    return plain(name) + _flags_and_values({flag: value for flag, value in values.items() if value})


def _flags_and_values(values: Mapping[str, object]) -> str:
    return "".join(f" {flag.replace('_', '-')}={_text(value)}" for flag, value in values.items())


def _distinguish(names: Sequence[str], runs: Sequence[Run], flags: frozenset[str]) -> list[str]:
    """Append to the names that several runs share the flags in which these runs differ."""
    out, added = [], roles.names(Role.ADDED)
    for name, run in zip(names, runs, strict=True):
        same = [other.training for other, its_name in zip(runs, names, strict=True) if its_name == name]
        varying = [
            flag
            for flag in sorted(flags)
            if any(not roles.same(flag, other, run.training) for other in same)
            and not (flag in added and not roles.value_of(flag, run.training))
        ]
        out.append(name + _flags_and_values({flag: roles.value_of(flag, run.training) for flag in varying}))
    return out


def _text(value: object) -> str:
    text = "/".join(map(str, value)) if isinstance(value, list) else "default" if value is None else str(value)
    return plain(text)

"""The flags in groups; a flag has the same name and meaning in every script that has it.

To add a flag, declare it in the group where it belongs, once, with its role:

    add("--framing", role=Role.RESULT, choices=("crop", "pad"), default="crop", before="crop", help="...")

* `role` (`ttc.run.roles.Role`) says what another value makes of a run: WHERE (the same run), RUN (another run, but a
  repetition or a part of the same), RESULT (another result, which all rows of a table share), COMPARED (another result,
  in which the rows of a table may differ), ADDED (the same, and 0 adds nothing), GROUPED (another group of rows). A
  parser that writes a run (`Parser(..., writes_run=True)`) refuses a flag without one.
* `before` is the value that runs of earlier versions have, which do not know the flag; it changes neither which run
  this is nor the digest of its result. Without it that is the value of an unused flag, None or False. So a flag with
  another default names it, mostly its default; where that would not be as before, the value that is.

Then TTC_UPDATE_SNAPSHOTS=1 python -m pytest tests/flags/test_parser.py. A new group goes into `_GROUPS` below too.
What compares runs asks `ttc.run.roles`, so that nothing else has to know the flag.
"""

from collections.abc import Callable
from functools import partial

from ttc.flags.data import add_augmentation, add_data, add_intensity, add_other_data
from ttc.flags.encoder import add_layers
from ttc.flags.evaluation import (
    add_checkpoint,
    add_clinical,
    add_compare,
    add_embeddings,
    add_evaluation_output,
    add_evaluation_set,
    add_heads,
    add_metrics,
    add_probe,
)
from ttc.flags.finetuning import add_finetuning, check_classes, complete_finetuning, fit_batch
from ttc.flags.heads import add_groups, add_tested
from ttc.flags.parser import Parser
from ttc.flags.running import add_figures, add_json, add_monitoring, add_output, add_runtime
from ttc.flags.training import add_method, add_model, add_optimisation
from ttc.run.roles import Declared, declare

__all__ = [
    "add_augmentation",
    "add_checkpoint",
    "add_clinical",
    "add_compare",
    "add_data",
    "add_embeddings",
    "add_evaluation_output",
    "add_evaluation_set",
    "add_figures",
    "add_finetuning",
    "add_groups",
    "add_heads",
    "add_intensity",
    "add_json",
    "add_layers",
    "add_method",
    "add_metrics",
    "add_model",
    "add_monitoring",
    "add_optimisation",
    "add_other_data",
    "add_output",
    "add_probe",
    "add_runtime",
    "add_tested",
    "check_classes",
    "complete_finetuning",
    "fit_batch",
    "roles",
]

_GROUPS: tuple[Callable[[Parser], None], ...] = (
    add_augmentation,
    partial(add_checkpoint, required=False),
    add_clinical,
    add_data,
    add_embeddings,
    add_evaluation_output,
    add_evaluation_set,
    add_finetuning,
    add_figures,
    add_groups,
    add_heads,
    add_json,
    add_layers,
    add_method,
    add_metrics,
    add_model,
    add_monitoring,
    add_optimisation,
    add_other_data,
    add_output,
    add_probe,
    add_runtime,
    add_tested,
)
"""The groups of flags that the scripts which write a run choose from."""


def roles() -> dict[str, Declared]:
    """Return what is declared with every flag of a script that writes a run, by its name in `args.json`."""
    declared: dict[str, Declared] = {}
    for add in _GROUPS:
        parser = Parser("", "", writes_run=True)
        add(parser)
        for name, flag in parser.declared.items():
            if declared.setdefault(name, flag) != flag:
                raise TypeError(f"{name} is declared twice, as {declared[name]} and {flag}; a flag has one meaning")
    return declared


declare(roles())

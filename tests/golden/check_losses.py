"""Compare the project's losses with recorded figures: `python tests/golden/check_losses.py FILE.npz ...`.

Each file holds one case, or several under the prefix `<case>/`. Prints `case method max_abs_difference` per case and
exits with 1 if a difference of loss or gradient exceeds the tolerance, with 2 on wrong usage.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ttc.losses import Batch, Objective, build_objective

Arrays = dict[str, NDArray[np.generic]]
# Value and gradients that the project computes, and what the file says about each.
Comparison = list[tuple[Tensor, NDArray[np.generic]]]

# From objective, z, labels, features= and sample_ids= to the loss.
Evaluate = Callable[..., Tensor]

TOLERANCE = 1e-10
# The published code of PaCo adds 1e-9 and 1e-12 inside its logarithms.
TOLERANCE_PACO = 1e-7


class Case:
    """The arrays of one case, as float64 and int64 tensors."""

    def __init__(self, arrays: Arrays, evaluate: Evaluate = Objective.__call__) -> None:
        self.arrays, self.evaluate = arrays, evaluate
        self.settings = json.loads(str(arrays["settings"]))
        self.labels = torch.from_numpy(np.asarray(arrays["labels"], dtype=np.int64))
        self.num_classes = self._num_classes()

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.arrays[name], dtype=np.float64))

    def integers(self, name: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.arrays[name], dtype=np.int64))

    def expected(self, name: str) -> NDArray[np.generic]:
        return self.arrays[f"{name}_float64_masks"] if f"{name}_float64_masks" in self.arrays else self.arrays[name]

    def build(self, name: str, **settings: object) -> Objective:
        shared = {"minority_class": int(self.integers("minority_class")), "num_classes": self.num_classes}
        if "tau" in self.settings and "temperature" not in settings:
            settings["temperature"] = self.settings["tau"]
        if "base" in self.settings:
            settings["base_temperature"] = self.settings["base"]
        return build_objective(name, **shared, **settings).double()

    def _num_classes(self) -> int:
        """Return the number of classes, which a per-class array tells even if the batch lacks a class."""
        for name in ("prototypes", "centers", "class_counts", "class_weights", "class_tau"):
            if name in self.arrays:
                return len(self.arrays[name])
        return max(2, int(self.labels.max()) + 1)


def compare(case: Case, objective: Objective, inputs: dict[str, Tensor], **call: Tensor) -> Comparison:
    """Evaluate the objective and pair the loss and the gradients of `inputs` with the recorded ones."""
    loss = case.evaluate(objective, labels=case.labels, **call)
    gradients = torch.autograd.grad(loss, list(inputs.values()), allow_unused=True)
    pairs: Comparison = [(loss.detach(), case.expected("loss"))]
    for (name, tensor), gradient in zip(inputs.items(), gradients, strict=True):
        pairs.append((torch.zeros_like(tensor) if gradient is None else gradient, case.expected(f"grad_{name}")))
    return pairs


def rows_only(case: Case, objective: Objective, **call: Tensor) -> Comparison:
    features = case["features"].requires_grad_()
    return compare(case, objective, {"features": features}, z=features, **call)


def supproto(case: Case) -> Comparison:
    margin = [case.settings["eps0"], case.settings["eps1"]]
    objective = case.build("supproto", margin=margin, projection_dim=case["features"].shape[2])
    objective.load_state_dict({**objective.state_dict(), "prototypes_KD": case["prototypes"]})
    pairs = rows_only(case, objective)
    labels = case.labels.repeat_interleave(case["features"].shape[1])
    for c in range(case.num_classes):
        if bool((labels == c).any()):
            recorded = np.asarray(case.arrays["pulled"])[case.labels.numpy() == c].mean()
            pairs.append((objective.terms[f"pulled_fraction/{c}"], recorded))
    return pairs


def recorded_draw(case: Case) -> Callable[[Batch], tuple[Tensor, Tensor]]:
    """Return the recorded positives in place of drawn ones; the file's rows are view-major."""
    chosen = case.integers("chosen").bool()
    views, samples = case["features"].shape[1], len(case.labels)
    order = torch.arange(views * samples).view(views, samples).T.flatten()
    chosen = chosen[order][:, order]
    slots = max(1, int(chosen.sum(1).max()))
    valid, index = chosen.to(torch.int8).topk(slots, dim=1)
    return lambda batch: (index, valid.bool())


def kcl(case: Case) -> Comparison:
    objective = case.build("kcl", k=int(case.integers("k")))
    objective.draw = recorded_draw(case)
    return rows_only(case, objective)


def tsc(case: Case) -> Comparison:
    objective = case.build("tsc", k=int(case.integers("k")), projection_dim=case["features"].shape[2])
    objective.load_state_dict({**objective.state_dict(), "prototypes_KD": case["prototypes"]})
    objective.draw = recorded_draw(case)
    return rows_only(case, objective)


def bcl(case: Case) -> Comparison:
    objective = case.build("bcl", alpha=0.0, beta=1.0, projection_dim=case["features"].shape[2])
    objective.load_state_dict({**objective.state_dict(), "free_centres_KD": case["centers"]})
    features = case["features"].requires_grad_()
    # View 0 feeds the classifier only, which alpha = 0 leaves out.
    views = torch.cat((features[:, :1].detach(), features), 1)
    loss = case.evaluate(objective, views, case.labels)
    features_grad, centres_grad = torch.autograd.grad(loss, [features, objective.free_centres_KD])
    # The objective normalises its centres; the recorded gradient is that of the given ones, without this projection.
    expected = case["grad_centers"]
    along = (expected * case["centers"]).sum(1, keepdim=True) * case["centers"]
    return [
        (loss.detach(), case.expected("loss")),
        (features_grad, case.expected("grad_features")),
        (centres_grad, (expected - along).numpy()),
    ]


def class_logits(case: Case, objective: Objective) -> Comparison:
    logits = case["logits"].requires_grad_()
    return compare(case, objective, {"logits": logits}, z=logits[:, None])


def logit_adjusted(case: Case) -> Comparison:
    counts = case.integers("class_counts").tolist()
    return class_logits(
        case, build_objective_ce(case, "logit-adjusted-ce", class_counts=counts, tau_la=float(case["tau"]))
    )


def build_objective_ce(case: Case, name: str, **settings: object) -> Objective:
    return build_objective(name, num_classes=case.num_classes, **settings).double()


def weighted_ce(case: Case) -> Comparison:
    objective = build_objective_ce(case, "weighted-ce", class_counts=[1] * case.num_classes)
    objective.load_state_dict({"class_weights_K": case["class_weights"]})
    return class_logits(case, objective)


def focal(case: Case) -> Comparison:
    objective = build_objective_ce(case, "focal", class_counts=[1] * case.num_classes, gamma=float(case["gamma"]))
    objective.load_state_dict({"class_weights_K": case["class_weights"]})
    return class_logits(case, objective)


def paco(case: Case) -> Comparison:
    settings = {name: float(case[name]) for name in ("alpha", "beta", "gamma")}
    objective = case.build(
        "paco",
        class_counts=case.integers("class_counts").tolist(),
        projection_dim=case["features"].shape[2],
        queue_size=len(case.integers("queue_labels")),
        classifier_temperature=float(case["supt"]),
        **settings,
    )
    objective.push(case["queue"], case.integers("queue_labels"))
    query = case["features"][:, 0].requires_grad_()
    logits = case["logits"].requires_grad_()
    z = torch.stack((query, case["features"][:, 1]), 1)
    return compare(case, objective, {"query": query, "logits": logits}, z=z, features=logits[:, None])


def sbcl(case: Case, second_term: str) -> Comparison:
    objective = case.build("sbc", weight=float(case["weight"]), second_term=second_term)
    ids = torch.arange(len(case.labels))
    objective.assign(ids, case.integers("clusters"), case["class_tau"])
    return rows_only(case, objective, sample_ids=ids)


METHODS: dict[str, Callable[[Case], Comparison]] = {
    "ntxent": lambda case: rows_only(case, case.build("simclr")),
    "supcon": lambda case: rows_only(case, case.build("supcon")),
    "supmin": lambda case: rows_only(case, case.build("supmin")),
    "supproto": supproto,
    "kcl": kcl,
    "tsc": tsc,
    "bcl-logitadjust": logit_adjusted,
    "bcl": bcl,
    "paco": paco,
    "weightedce": weighted_ce,
    "focal": focal,
    "sbcl-rank": lambda case: sbcl(case, "rank"),
    "sbcl-ccl": lambda case: sbcl(case, "ccl"),
}


def load_cases(path: Path) -> dict[str, Arrays]:
    """Return the cases of a file by name; a single-case file is named after itself."""
    cases: dict[str, Arrays] = {}
    with np.load(path, allow_pickle=False) as file:
        for key in file.files:
            case, _, array = key.rpartition("/")
            cases.setdefault(case or path.stem, {})[array] = file[key]
    return cases


def difference(name: str, arrays: Arrays, evaluate: Evaluate = Objective.__call__) -> tuple[float, float]:
    """Return the largest absolute difference of a case and its tolerance."""
    golden_method = name.rpartition("/")[2].split("_B")[0]
    entry = next((m for m in METHODS if golden_method == m or golden_method.startswith(f"{m}-")), None)
    if entry is None:
        raise ValueError(f"case {name}: method {golden_method} is not known")
    pairs = METHODS[entry](Case(arrays, evaluate))
    worst = max(float(np.abs(ours.numpy() - np.asarray(recorded, np.float64)).max()) for ours, recorded in pairs)
    return worst, TOLERANCE_PACO if entry == "paco" else TOLERANCE


def main(paths: list[str]) -> int:
    """Check all files and return the exit code."""
    if not paths:
        print(__doc__.splitlines()[0], file=sys.stderr)
        return 2
    failed = False
    for path in map(Path, paths):
        for name, arrays in load_cases(path).items():
            worst, tolerance = difference(name, arrays)
            within = worst <= tolerance  # False for NaN too
            failed = failed or not within
            print(f"{name} {name.split('_B')[0]} {worst:.3e}{'' if within else f' exceeds {tolerance:.0e}'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

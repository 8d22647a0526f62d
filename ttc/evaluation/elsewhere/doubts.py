"""What external numbers themselves make doubtful: classes that are the wrong way round."""

from __future__ import annotations

from collections.abc import Mapping

from ttc.evaluation.elsewhere.measure import at_path


def swapped_classes(name: str, external: Mapping[str, object], remedy: str) -> str | None:
    """Return a line about external metrics that speak for swapped classes; None where they do not.

    Args:
        name: of the head.
        external: its metrics on the other data, of two classes.
        remedy: where to look.
    """
    auroc, slope = at_path(external, "auroc"), at_path(external, "calibration/after/slope")
    reasons = []
    if auroc is not None and auroc["high"] is not None and auroc["high"] < 0.5:
        reasons.append(f"AUROC {auroc['value']:.3f} is below 0.5 with its whole interval")
    if slope is not None and slope["value"] is not None and slope["value"] < 0:
        reasons.append(f"the calibration slope {slope['value']:.3f} is below 0")
    return f"{name}: {' and '.join(reasons)}: are the classes swapped? see {remedy}" if reasons else None

"""Whether the runs of a row have collapsed, in one word: what every table and page prints."""

from __future__ import annotations

import math

import pandas

from ttc.metrics.representation import COLLAPSED_COSINE, USABLE_AUROC, collapse_word

_COSINE = "projection/mean_cosine/all"
_AUROCS = tuple(f"encoder/{probe}/auroc" for probe in ("all", "minority", "fraction", "pooled"))

MEANING = (
    f"whether all embeddings are on one point (mean cosine of all pairs at least {COLLAPSED_COSINE}); "
    f"head: only those of the projection head, a probe on the encoder reaches AUROC {100 * USABLE_AUROC:.0f} %"
)


def collapse_words(lines: pandas.DataFrame) -> pandas.Series:
    """Return the word of each row, "k of n" where only k of n seeds have collapsed, "-" where nothing was measured.

    Args:
        lines: a ledger.

    Returns:
        Indexed by group and run.
    """
    defined = lines[lines["metric"].isin((_COSINE, *_AUROCS))].dropna(subset="value")
    wide = defined.pivot_table("value", ["group", "run", "seed"], "metric").reindex(columns=[_COSINE, *_AUROCS])
    words: dict[tuple[str, str], list[str]] = {}
    for group, run in lines[["group", "run"]].drop_duplicates().itertuples(index=False):
        words[group, run] = []
    for (group, run, _), (cosine, *aurocs) in zip(wide.index, wide.to_numpy().tolist(), strict=True):
        auroc = max((value for value in aurocs if not math.isnan(value)), default=None)
        word = collapse_word(None if math.isnan(cosine) else cosine, auroc)
        words[group, run] += [] if word is None else [word]
    return pandas.Series({place: _joined(its_words) for place, its_words in words.items()}, dtype="str")


def _joined(words: list[str]) -> str:
    if not words:
        return "-"
    return words[0] if len(set(words)) == 1 else f"{sum(word == 'yes' for word in words)} of {len(words)}"

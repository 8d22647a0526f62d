"""What another value of a flag makes of a run: said once, where the flag is declared, and read by all that compare."""

from __future__ import annotations

import importlib

import pytest

from ttc import flags
from ttc.flags.parser import Parser
from ttc.results.table_parts.row_names import compared_with
from ttc.run import ledger, roles
from ttc.run.folder import differing
from ttc.run.roles import Declared, Role

SCRIPTS = ("pretrain", "finetune", "linear_eval", "compute_metrics", "scripts.evaluate")


def test_all_flags_of_the_scripts_are_known_to_what_compares_runs() -> None:
    together: dict[str, Declared] = {}
    for script in SCRIPTS:
        made: Parser = importlib.import_module(script).build_parser()
        assert made.declared.keys() == {action.dest for action in made._actions} - {"help"}
        together |= made.declared
    assert together == flags.roles()


def test_a_flag_without_a_role_is_refused() -> None:
    made = Parser("Test.", "python test.py", writes_run=True)
    made.add_argument("--named", role=Role.WHERE)
    for takes_flags in (made, made.add_argument_group("group")):
        with pytest.raises(TypeError, match="--new-flag has no role; say with role=Role"):
            takes_flags.add_argument("--new-flag", type=int)


def test_a_flag_has_one_role_in_all_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    def add_seed(made: Parser) -> None:
        made.add_argument("--seed", role=Role.WHERE)

    monkeypatch.setattr(flags, "_GROUPS", (*flags._GROUPS, add_seed))
    with pytest.raises(TypeError, match="seed is declared twice"):
        flags.roles()


def declared_as(role: Role, **keywords: object) -> Declared:
    made = Parser("Test.", "python test.py", writes_run=True)
    made.add_argument("--new-flag", role=role, **keywords)  # type: ignore[arg-type]
    return made.declared["new_flag"]


OLD: dict[str, object] = {"lr": 0.1, "batch_sampler": "shuffle", "stop_on_collapse": 0, "projection_batchnorm": False}


@pytest.mark.parametrize(
    ("keywords", "unused", "used"),
    [
        ({}, None, 1),
        ({"action": "store_true"}, False, True),
        ({"default": "crop", "before": "crop"}, "crop", "pad"),
        ({"default": 0, "before": 0}, 0, 1),
        ({"default": [1, 2], "before": [1, 2], "nargs": 2}, [1, 2], [1, 3]),
        ({"default": "new", "before": "old"}, "old", "new"),
    ],
    ids=["none", "switch", "word", "zero", "list", "other default"],
)
def test_a_new_flag_changes_no_run_that_does_not_use_it(
    keywords: dict[str, object], unused: object, used: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = ledger.arguments_digest(OLD)
    monkeypatch.setitem(roles._FLAGS, "new_flag", declared_as(Role.RESULT, **keywords))
    for first, second in ((OLD, {**OLD, "new_flag": unused}), ({**OLD, "new_flag": unused}, OLD)):
        assert differing(first, second) == []
        assert ledger.arguments_digest(first) == ledger.arguments_digest(second) == digest
    assert len(differing(OLD, {**OLD, "new_flag": used})) == 1
    assert ledger.arguments_digest({**OLD, "new_flag": used}) != digest


def test_runs_that_know_neither_batchnorm_nor_stopping_are_continued() -> None:
    """They were written before these two flags; digests have held the second one, also where it is off, ever since."""
    older: dict[str, object] = {"lr": 0.1, "batch_sampler": "shuffle"}
    assert differing(older, OLD) == differing(OLD, older) == []
    assert differing(older, {**OLD, "stop_on_collapse": 3}) == ["--stop-on-collapse (0 there, 3 now)"]
    assert ledger.arguments_digest(older) != ledger.arguments_digest(OLD)


@pytest.mark.parametrize("role", Role)
def test_what_a_role_means(role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(roles._FLAGS, "new_flag", declared_as(role))
    one, other = {**OLD, "new_flag": "1/5"}, {**OLD, "new_flag": "2/5"}
    same_result = role in (Role.WHERE, Role.RUN, Role.PART)
    assert bool(differing(one, other)) == (role is not Role.WHERE)
    assert (ledger.arguments_digest(one) == ledger.arguments_digest(other)) == same_result
    assert roles.same_result("new_flag", one, other) == same_result
    assert ("new_flag" in compared_with()) == (role in (Role.COMPARED, Role.ADDED))
    assert "new_flag" in compared_with(["--new-flag"])


def test_another_number_of_parts_is_another_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(roles._FLAGS, "new_flag", declared_as(Role.PART))
    runs: list[dict[str, object]] = [OLD, *({**OLD, "new_flag": value} for value in (None, "1/5", "1/10", "2/10"))]
    digests = [ledger.arguments_digest(run) for run in runs]
    assert [digests.index(digest) for digest in digests] == [0, 0, 2, 3, 3]
    assert not roles.same_result("new_flag", runs[2], runs[3])
    assert not roles.same_result("new_flag", OLD, runs[2])
    assert roles.same_result("new_flag", OLD, runs[1])


def test_a_checkpoint_is_known_by_what_it_holds() -> None:
    """Not by how its path is spelled, nor by where the run lies."""
    assert not differing({"checkpoint": "runs/a/last.pt"}, {"checkpoint": "./runs/a/last.pt"})
    assert differing({"checkpoint": "a.pt", "checkpoint_sha256": "1"}, {"checkpoint": "a.pt", "checkpoint_sha256": "2"})

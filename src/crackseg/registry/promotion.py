"""Promote a registered version: choose it, run the gate, put it into production; list all versions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion

from crackseg.data.catalog import list_samples, spread_evenly
from crackseg.data.guard import read_pointer
from crackseg.errors import CracksegError
from crackseg.evaluation.bootstrap import parse_metric
from crackseg.params import Params, load_params
from crackseg.project import Layout, is_made, read_output
from crackseg.registry.checks import GateData, shorten
from crackseg.registry.gate import run_gate
from crackseg.registry.production import Production, RegistryState
from crackseg.registry.promotion_log import Check, Record, check_reason
from crackseg.registry.register import CANDIDATE_ALIAS, WEIGHTS_TAG
from crackseg.registry.version_process import Contender
from crackseg.registry.version_tags import read_score, read_tags

_FIGURES = ("ods", "ois", "ap")


@dataclass(frozen=True, slots=True)
class Decision:
    """Result of a promotion.

    Attributes:
        version: that was to be promoted.
        champion: the version in production before; None if there was none.
        against: the model that it was compared with: ``version 1``, or ``scenes (shipped with crackseg)``.
        checks: of the gate.
        record: of the promotion; None if nothing was changed.
    """

    version: str
    champion: str | None
    against: str
    checks: tuple[Check, ...]
    record: Record | None

    @property
    def passed(self) -> bool:
        """Return whether no check has failed."""
        return all(check.status != "failed" for check in self.checks)


def promote(
    production: Production,
    *,
    version: str | None = None,
    best: bool = False,
    metric: str = "mean/ods",
    max_images: int | None = None,
    force: bool = False,
    reason: str = "",
    dry_run: bool = False,
) -> Decision:
    """Run the gate for a version, and put it into production if it passes.

    It is compared with the version in production, or with the shipped model while nothing is in production.

    Args:
        production: repaired by the caller.
        version: its number; None takes ``best``, or else the alias ``candidate``.
        best: take the version with the best validation score on the current data.
        metric: on which it must be better, as MLflow names it.
        max_images: score at most so many images of each dataset.
        force: promote although the gate fails; needs ``reason``.
        dry_run: run the gate and change nothing.
    Raises:
        CracksegError: there is no such version, it is in production already, it has no scores or is not ours, the
            data is not there, or another user was faster. Nothing is changed then.
    """
    if force or reason:
        reason = check_reason(reason)
    root = production.store.root
    params = load_params(root / "params.yaml")
    parsed = parse_metric(metric, params.data.test_datasets)
    state = production.read()
    present = read_pointer(root)
    challenger = choose_version(state, production.name, version, best=best, data_md5=present)
    champion = state.versions.get(state.in_production) if state.in_production else None
    if champion is not None and champion.version == challenger.version:
        raise CracksegError(f"version {challenger.version} is in production already; nothing to promote")
    data = read_gate_data(root, params, present, max_images)
    rival = Contender.of_version(champion) if champion else Contender.of_shipped()
    checks = run_gate(Contender.of_version(challenger), rival, data, parsed, params.registry)
    in_production = str(champion.version) if champion else None
    decision = Decision(str(challenger.version), in_production, rival.label, tuple(checks), None)
    if dry_run or not (decision.passed or force):
        return decision
    record = production.promote(
        decision.version,
        state,
        reason=reason or f"passed the gate on {parsed} against {rival.label}",
        checks=checks,
        data_md5=data.md5,
        forced=not decision.passed,
    )
    return replace(decision, record=record)


def choose_version(
    state: RegistryState, name: str, wanted: str | None, *, best: bool, data_md5: str
) -> ModelVersion:
    """Choose the version to promote.

    Validation scores are compared only between versions of the current data: other splits are not comparable.

    Raises:
        CracksegError: there is none, or it was not registered by crackseg.
    """
    if wanted is not None and best:
        raise CracksegError("give either VERSION or --best")
    if best:
        scored = {
            v: read_score(read_tags(found), "val/ods")
            for v, found in state.versions.items()
            if WEIGHTS_TAG in read_tags(found)
        }
        ranked = sorted(
            (score, int(v))
            for v, score in scored.items()
            if score is not None and read_tags(state.versions[v]).get("data.md5") == data_md5
        )
        if not ranked:
            raise CracksegError(
                f"no version of {name!r} has a validation score on the present data ({shorten(data_md5) or 'none'}); "
                f"`crackseg models` shows what there is, `crackseg promote VERSION` takes one"
            )
        return state.versions[str(ranked[-1][1])]
    if wanted is None:
        wanted = state.aliases.get(CANDIDATE_ALIAS)
        if wanted is None:
            raise CracksegError(
                f"no version of {name!r} has the alias {CANDIDATE_ALIAS}; name a VERSION or --best"
            )
    version = state.get_version(wanted, name)
    if WEIGHTS_TAG not in read_tags(version):
        raise CracksegError(
            f"version {version.version} of {name!r} is not a model of crackseg (no tag {WEIGHTS_TAG}): another "
            "project's under the same name? registry.model_name in params.yaml names ours"
        )
    missing = [tag for tag in ("val/ods", "mean/ods") if read_score(read_tags(version), tag) is None]
    if missing:
        raise CracksegError(
            f"version {version.version} of {name!r} has no scores ({', '.join(missing)}); register it with `dvc repro`"
        )
    return version


def read_gate_data(root: Path, params: Params, data_md5: str, max_images: int | None) -> GateData:
    """Read the prepared images on which champion and challenger are scored.

    Raises:
        CracksegError: they are not there, or of another data version than data.dvc.
    """
    layout = Layout(root)
    if not is_made(layout.data_versions):
        raise CracksegError(
            f"champion and challenger are scored on {layout.prepared}, which is not there; make it with "
            "`dvc repro prepare`"
        )
    md5 = read_output(layout.data_versions)["md5"]
    if md5 != data_md5:
        raise CracksegError(
            f"{layout.prepared} was made of data {shorten(md5)} and data.dvc says {shorten(data_md5) or 'nothing'}; "
            "run `dvc repro prepare`"
        )
    every = {d: list_samples(layout.prepared, d, params.data.evaluate_split) for d in params.data.test_datasets}
    if empty := [d for d, samples in every.items() if not samples]:
        raise CracksegError(f"no {params.data.evaluate_split} images of {', '.join(empty)} in {layout.prepared}")
    chosen = {d: spread_evenly(samples, max_images) for d, samples in every.items()}
    left_out = sum(len(every[d]) - len(chosen[d]) for d in every)
    return GateData(chosen, md5, params.evaluate, left_out)

"""Checks of the gate: each takes values of champion and challenger, and says in a sentence what they mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crackseg.data.catalog import warn_of_source
from crackseg.errors import count_of
from crackseg.evaluation.bootstrap import Difference, Metric
from crackseg.evaluation.false_alarms import FalseAlarms
from crackseg.evaluation.metrics import ScoreAccumulator
from crackseg.evaluation.stored_maps import read_scored_map
from crackseg.params import EvaluateParams
from crackseg.registry.package import PROBE_FILE, compare_answers
from crackseg.registry.promotion_log import Check
from crackseg.registry.version_process import Contender, VersionFailure, VersionProcess
from crackseg.registry.version_tags import read_score
from crackseg.types import CrackSample

_RECORDED_TOLERANCE = 0.02  # bfloat16 instead of float32 moved the ODS of a small model by 0.006


@dataclass(frozen=True, slots=True)
class GateData:
    """Data on which champion and challenger are scored.

    Attributes:
        samples: prepared images by dataset.
        md5: version of the data.
        evaluate: settings of the scoring.
        left_out: images of the test datasets that are not scored, to save time.
    """

    samples: Mapping[str, Sequence[CrackSample]]
    md5: str
    evaluate: EvaluateParams
    left_out: int = 0

    @property
    def num_images(self) -> int:
        """Count the images of all datasets."""
        return sum(len(samples) for samples in self.samples.values())


def check_source(source: str) -> Check:
    """Warn of a model that was not trained on real photographs."""
    if said := warn_of_source(source):
        return Check("training data", "warning", said, {"source": source})
    return Check("training data", "passed", f"trained on {source or 'unknown'} data", {"source": source})


def check_probe(process: VersionProcess) -> Check:
    """Compare a version's answers for its stored probe with those recorded when it was made."""
    found = sorted(process.model_dir.rglob(PROBE_FILE))
    if not found:
        return Check(
            "probe", "failed", "the version carries no probe; register it again with `dvc repro register`"
        )
    folder = found[0].parent
    probe = json.loads(found[0].read_text(encoding="utf-8"))
    stems = list(probe["images"])
    images = [folder / "images" / f"{stem}.png" for stem in stems]
    maps = [process.scratch / f"probe-{stem}.png" for stem in stems]
    try:
        answers = dict(zip(stems, process.predict(images, maps), strict=True))
        _, postprocessing = process.operation
    except VersionFailure as error:
        return Check("probe", "failed", f"the version does not answer for its probe: {error}")
    scores = ScoreAccumulator()
    for stem, path in zip(stems, maps, strict=True):
        sample = CrackSample("probe", stem, "val", path, folder / "masks" / f"{stem}.png")
        scores.add(read_scored_map(sample, path, use_roi=False).count(postprocessing), stem)
    ods = scores.result().paper.ods
    differences = compare_answers(probe, answers, ods)
    figures = {"images": len(stems), "ods_recorded": round(probe["ods"], 4), "ods": round(ods, 4)}
    if differences:
        return Check("probe", "failed", f"{len(differences)} values differ: {'; '.join(differences[:3])}", figures)
    said = f"{len(stems)} stored images answered as recorded: ODS {probe['ods']:.4f}, now {ods:.4f}"
    return Check("probe", "passed", said, figures)


def check_recorded(found: Sequence[tuple[Contender, float]], data: GateData, metric: Metric) -> Check:
    """Compare the versions' recorded scores with those computed now; the shipped model has none."""
    notes, odd = [], False
    for model, score in found:
        if model.shipped:
            continue
        recorded, md5 = model.tags.get(str(metric)), model.tags.get("data.md5", "")
        known = read_score(model.tags, str(metric))
        if md5 != data.md5:
            notes.append(
                f"{model.label} was recorded on data {shorten(md5) or 'unknown'} with {metric} "
                f"{recorded or 'none'}: computed again, {score:.4f}"
            )
        elif known is not None and not data.left_out and abs(known - score) > _RECORDED_TOLERANCE:
            odd = True
            notes.append(
                f"{model.label} was recorded with {metric} {recorded} on this data and has {score:.4f} "
                "now: scored with other settings or other code"
            )
    figures = {"data_md5": data.md5, "images": data.num_images}
    who = " and ".join(model.label for model, _ in found)
    said = f"{who} scored on data {shorten(data.md5)}, {data.num_images} images of {', '.join(data.samples)}"
    return Check("same data", "warning" if odd else "passed", "; ".join([said, *notes]), figures)


def check_better(difference: Difference, metric: Metric, num_images: int) -> Check:
    """Check that the whole interval of the difference is above zero."""
    figures = _figures_of(difference) | {"metric": str(metric), "images": num_images}
    said = f"{metric} {difference}"
    if difference.low > 0:
        return Check("better", "passed", said, figures)
    worse = difference.high < 0
    why = "the interval is below 0: it is worse" if worse else "the interval reaches 0: not shown to be better"
    return Check("better", "failed", f"{said}; {why}", figures)


def check_drops(by_dataset: Mapping[str, Difference], metric: Metric, max_drop: float) -> Check:
    """Check that the challenger loses at most ``max_drop`` on every dataset."""
    figures = {name: round(d.value, 4) for name, d in by_dataset.items()} | {"max_drop": max_drop}
    changes = ", ".join(f"{name} {d.value:+.4f}" for name, d in by_dataset.items())
    dropped = sorted((d.value, name) for name, d in by_dataset.items() if d.value < -max_drop)
    said = f"{metric.score} by dataset: {changes} (allowed: {-max_drop:+.4f})"
    if dropped:
        return Check("no dataset worse", "failed", f"worse on {', '.join(n for _, n in dropped)}; {said}", figures)
    return Check("no dataset worse", "passed", said, figures)


def check_false_alarms(
    champion: Mapping[str, FalseAlarms], challenger: Mapping[str, FalseAlarms], max_false_alarms: float | None
) -> Check:
    """Compare the false alarms on the crack-free photographs of all datasets.

    Fails above ``max_false_alarms``; with None it only warns of more than the champion has
    (docs/adr/0016-false-alarms.md).
    """
    former, new = (FalseAlarms.pool(of_model.values()) for of_model in (champion, challenger))
    figures: dict[str, Any] = {"images": new.num_crack_free, "max_false_alarms": max_false_alarms}
    if former.rate is None or new.rate is None:
        said = "no photograph without cracks among those scored, so false alarms are unknown"
        if max_false_alarms is None:
            return Check("false alarms", "skipped", said, figures)
        limit = f"registry.max_false_alarms {max_false_alarms:g}"
        return Check("false alarms", "warning", f"{said}; {limit} cannot be checked", figures)
    figures |= {"champion": round(former.rate, 4), "challenger": round(new.rate, 4)}
    allowed = "no limit" if max_false_alarms is None else f"allowed: {max_false_alarms:g}"
    said = (
        f"cracks marked on {former.num_alarmed} -> {new.num_alarmed} of "
        f"{count_of(new.num_crack_free, 'crack-free photograph')}, {former.px_per_megapixel:.1f} -> "
        f"{new.px_per_megapixel:.1f} px per megapixel ({allowed})"
    )
    if max_false_alarms is not None and new.rate > max_false_alarms:
        return Check("false alarms", "failed", said, figures)
    return Check("false alarms", "warning" if new.rate > former.rate else "passed", said, figures)


def check_speed(champion_s: float, challenger_s: float, max_slowdown: float, *, binding: bool = True) -> Check:
    """Check that the challenger takes at most ``max_slowdown`` times the champion's seconds.

    Args:
        champion_s, challenger_s: for an image.
        max_slowdown: the limit.
        binding: False: more is a warning. No one has chosen the shipped model for its speed, and no network that is
            larger than its 487,000 weights would reach production (docs/adr/0017-the-shipped-model-as-champion.md).
    """
    ratio = challenger_s / champion_s
    said = f"{champion_s:.4f} s -> {challenger_s:.4f} s for an image, x {ratio:.2f} (allowed: x {max_slowdown:g})"
    figures = {
        "champion_s": round(champion_s, 5),
        "challenger_s": round(challenger_s, 5),
        "ratio": round(ratio, 3),
    }
    if ratio <= max_slowdown:
        return Check("speed", "passed", said, figures)
    if binding:
        return Check("speed", "failed", said, figures)
    return Check(
        "speed", "warning", f"{said}; no failure, the shipped model was not chosen for its speed", figures
    )


def check_signature(champion: Mapping[str, str], challenger: Mapping[str, str]) -> Check:
    """Check that the challenger has the champion's inputs and outputs."""
    if champion and champion == challenger:
        return Check("signature", "passed", "the same columns in and out")
    changed = [key for key in ("inputs", "outputs") if champion.get(key) != challenger.get(key)]
    said = (
        "; ".join(f"{key}: {champion.get(key)} -> {challenger.get(key)}" for key in changed) or "neither has one"
    )
    return Check("signature", "failed", said)


def shorten(md5: str) -> str:
    """Shorten a data version to its first characters."""
    return md5.removesuffix(".dir")[:8]


def _figures_of(difference: Difference) -> dict[str, float]:
    names = ("champion", "challenger", "low", "high")
    return {name: round(getattr(difference, name), 4) for name in names}

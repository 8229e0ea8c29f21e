"""Gate before production: checks of a version, and its comparison with what is in use.

In use is the version in production, or else the model that crackseg ships. Each model runs in a process of its own
(crackseg.registry.version_process) and only predicts; all values are computed here, by the same code on the same images
for both.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from crackseg.evaluation.bootstrap import Metric, compare_paired
from crackseg.evaluation.false_alarms import FalseAlarms
from crackseg.evaluation.metrics import ImageCounts
from crackseg.evaluation.stored_maps import read_scored_map
from crackseg.params import EvaluateParams, RegistryParams
from crackseg.progress import name_step, progress
from crackseg.registry.checks import (
    GateData,
    check_better,
    check_drops,
    check_false_alarms,
    check_probe,
    check_recorded,
    check_signature,
    check_source,
    check_speed,
)
from crackseg.registry.promotion_log import Check
from crackseg.registry.version_process import Contender, VersionFailure, VersionProcess, loaded
from crackseg.types import CrackSample

_IMAGES_AT_A_TIME = 4
_TIMED_IMAGES = 4
_TIMED_ROUNDS = 5
_COMPARISONS = ("same data", "better", "no dataset worse", "false alarms", "speed", "signature")


def run_gate(
    challenger: Contender, champion: Contender, data: GateData, metric: Metric, limits: RegistryParams
) -> list[Check]:
    """Run every check.

    Args:
        challenger: the version to be promoted.
        champion: the version in production, or else the shipped model.
        data: on which both are scored.
        metric: on which the challenger must be better.
        limits: the largest drop on a dataset, the largest slowdown, the most false alarms.
    Returns:
        The checks in order; the gate is passed if none has failed.
    """
    checks = [check_source(challenger.tags.get("data.source", ""))]
    with tempfile.TemporaryDirectory(prefix="crackseg-gate-") as folder, ExitStack() as stack:
        scratch = Path(folder)
        name_step(f"load {challenger.label} in a process of its own")
        try:
            new = stack.enter_context(loaded(challenger, scratch / "challenger"))
        except VersionFailure as error:
            said = f"{challenger.label} does not load without the repository: {error}"
            checks.append(Check("loads alone", "failed", said))
            return checks + [Check(c, "skipped", "the version does not load") for c in ("probe", *_COMPARISONS)]
        said = f"loaded in {new.load_seconds:.1f} s in a process without the repository, pickles forbidden"
        name_step(f"repeat the stored answers of {challenger.label}")
        checks += [Check("loads alone", "passed", said, {"seconds": round(new.load_seconds, 2)}), check_probe(new)]
        if data.left_out:
            said = f"{data.left_out} of {data.num_images + data.left_out} images were left out (--max-images)"
            checks.append(Check("all images", "warning", said, {"left_out": data.left_out}))
        name_step(f"load {champion.label} in a process of its own")
        try:
            former = stack.enter_context(loaded(champion, scratch / "champion"))
            return checks + _compare(former, new, champion, challenger, data, metric, limits)
        except VersionFailure as error:
            said = f"champion ({champion.label}) and challenger cannot be compared: {error}"
            return [*checks, Check("better", "failed", said)]


def _compare(
    former: VersionProcess,
    new: VersionProcess,
    champion: Contender,
    challenger: Contender,
    data: GateData,
    metric: Metric,
    limits: RegistryParams,
) -> list[Check]:
    counts_of: dict[VersionProcess, dict[str, list[ImageCounts]]] = {former: {}, new: {}}
    alarms_of: dict[VersionProcess, dict[str, FalseAlarms]] = {former: {}, new: {}}
    for process, contender in ((former, champion), (new, challenger)):
        name_step(f"score {contender.label} on {data.num_images} images")
        for name, samples in data.samples.items():
            counts_of[process][name], alarms_of[process][name] = count_split(process, samples, data.evaluate)
    name_step("compare the two, with a bootstrap")
    overall, by_dataset = compare_paired(counts_of[former], counts_of[new], metric)
    images = [sample.image_path for samples in data.samples.values() for sample in samples][:_TIMED_IMAGES]
    name_step("measure the seconds for an image")
    # In turn, so that other load affects both.
    rounds = [(former.time(images), new.time(images)) for _ in range(_TIMED_ROUNDS)]
    champion_s, challenger_s = (min(seconds) for seconds in zip(*rounds, strict=True))
    return [
        check_recorded([(champion, overall.champion), (challenger, overall.challenger)], data, metric),
        check_better(overall, metric, data.num_images),
        check_drops(by_dataset, metric, limits.max_drop),
        check_false_alarms(alarms_of[former], alarms_of[new], limits.max_false_alarms),
        check_speed(champion_s, challenger_s, limits.max_slowdown, binding=not champion.shipped),
        check_signature(former.signature, new.signature),
    ]


def count_split(
    process: VersionProcess, samples: Sequence[CrackSample], params: EvaluateParams
) -> tuple[list[ImageCounts], FalseAlarms]:
    """Predict images with a model; count each, and the false alarms, with the model's own post-processing."""
    threshold, postprocessing = process.operation
    counts, alarms = [], []
    label = f"{process.scratch.parent.name}: {samples[0].dataset}"
    with progress(None, label, "image", total=len(samples)) as bar:
        for start in range(0, len(samples), _IMAGES_AT_A_TIME):
            group = samples[start : start + _IMAGES_AT_A_TIME]
            maps = [process.scratch / f"map-{number}.png" for number in range(len(group))]
            process.predict([sample.image_path for sample in group], maps)
            for sample, path in zip(group, maps, strict=True):
                scored = read_scored_map(sample, path, use_roi=params.use_roi)
                of_image = scored.count(
                    postprocessing, tolerance_px=params.tolerance_px, num_thresholds=params.num_thresholds
                )
                counts.append(of_image)
                if not of_image.truth:
                    alarms.append(scored.count_false_alarms(scored.mark(threshold, postprocessing)))
            bar.update(len(group))
    return counts, FalseAlarms.pool(alarms)

"""Gate before production: checks of a version, and its comparison with the version in production.

Each version runs in a process of its own (crackseg.registry.isolated_worker) and only predicts; all values
are computed here, by the same code on the same images for both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion
from pydantic import ValidationError

from crackseg.child_processes import find_reason
from crackseg.data.catalog import warn_of_source
from crackseg.errors import first_line
from crackseg.evaluation.bootstrap import Difference, Metric, compare_paired
from crackseg.evaluation.metrics import ImageCounts, ScoreAccumulator
from crackseg.evaluation.stored_maps import read_scored_map
from crackseg.params import EvaluateParams, PostprocessParams, RegistryParams
from crackseg.progress import progress
from crackseg.registry.package import PROBE_FILE, compare_answers
from crackseg.registry.promotion_log import Check
from crackseg.types import CrackSample

_SCRIPT = Path(__file__).with_name("isolated_worker.py")
_IMAGES_AT_A_TIME = 4
_TIMED_IMAGES = 4
_TIMED_ROUNDS = 5
_COMPARISONS = ("same data", "better", "no dataset worse", "speed", "signature")
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


class VersionFailure(Exception):
    """A version does not load or does not answer; the message gives the reason."""


class VersionProcess:
    """A version of the model, loaded in a process without the repository and with pickles forbidden.

    Args:
        model_dir: the version's files.
        scratch: an empty folder, in which it runs.
    Raises:
        VersionFailure: it does not load.
    """

    def __init__(self, model_dir: Path, scratch: Path) -> None:
        self.model_dir = model_dir
        self.scratch = scratch
        scratch.mkdir()
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "MLFLOW_"))}
        self._log = (scratch / "log").open("w+", encoding="utf-8")
        self._process = subprocess.Popen(
            [sys.executable, "-I", str(_SCRIPT), str(model_dir.resolve())],
            cwd=scratch,
            env=environment | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
        )
        try:
            hello = self._read()
        except BaseException:
            self.close()
            raise
        self.load_seconds = float(hello["load_seconds"])
        self.signature: dict[str, str] = hello["signature"]

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send one command and wait for its answer; VersionFailure if there is none."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the process has ended; reading gives the reason
        return self._read()

    def predict(self, images: Sequence[Path], maps: Sequence[Path]) -> list[dict[str, float]]:
        """Predict image files; write a probability map for each and return its values."""
        answer = self.ask(do="predict", images=[str(p.resolve()) for p in images], maps=[str(p) for p in maps])
        return answer["rows"]

    def time(self, images: Sequence[Path]) -> float:
        """Measure the seconds for an image, one at a time."""
        return float(self.ask(do="time", images=[str(p.resolve()) for p in images])["seconds_per_image"])

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            last = self._log.read().strip().splitlines()[-1:]
            reason = f" ({found})" if (found := find_reason(code)) else ""
            raise VersionFailure(
                f"its process ended with code {code}{reason}: {''.join(last)[:300] or 'it printed nothing'}"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise VersionFailure(answer["error"])
        return answer


def run_gate(
    name: str,
    challenger: ModelVersion,
    champion: ModelVersion | None,
    data: GateData | None,
    metric: Metric,
    limits: RegistryParams,
) -> list[Check]:
    """Run every check.

    Args:
        name: of the registered model.
        challenger: the version to be promoted.
        champion: the version in production; None if there is none.
        data: on which both are scored; only None without a champion.
        metric: on which the challenger must be better.
        limits: the largest drop on a dataset and the largest slowdown.
    Returns:
        The checks in order; the gate is passed if none has failed.
    """
    checks = [check_source(challenger.tags.get("data.source", ""))]
    with tempfile.TemporaryDirectory(prefix="crackseg-gate-") as folder, ExitStack() as stack:
        scratch = Path(folder)
        try:
            new = stack.enter_context(_loaded(name, challenger, scratch / "challenger"))
        except VersionFailure as error:
            said = f"version {challenger.version} does not load without the repository: {error}"
            checks.append(Check("loads alone", "failed", said))
            skipped = ("probe", *(_COMPARISONS if champion else ()))
            return checks + [Check(c, "skipped", "the version does not load") for c in skipped]
        said = f"loaded in {new.load_seconds:.1f} s in a process without the repository, pickles forbidden"
        checks += [Check("loads alone", "passed", said, {"seconds": round(new.load_seconds, 2)}), check_probe(new)]
        if champion is None or data is None:
            return checks + [Check(c, "skipped", "nothing is in production to compare with") for c in _COMPARISONS]
        if data.left_out:
            said = f"{data.left_out} of {data.num_images + data.left_out} images were left out (--max-images)"
            checks.append(Check("all images", "warning", said, {"left_out": data.left_out}))
        try:
            former = stack.enter_context(_loaded(name, champion, scratch / "champion"))
            return checks + _compare(former, new, champion, challenger, data, metric, limits)
        except VersionFailure as error:
            said = f"champion (version {champion.version}) and challenger cannot be compared: {error}"
            return [*checks, Check("better", "failed", said)]


def _compare(
    former: VersionProcess,
    new: VersionProcess,
    champion: ModelVersion,
    challenger: ModelVersion,
    data: GateData,
    metric: Metric,
    limits: RegistryParams,
) -> list[Check]:
    counts_of = {
        process: {name: count_split(process, samples, data.evaluate) for name, samples in data.samples.items()}
        for process in (former, new)
    }
    overall, by_dataset = compare_paired(counts_of[former], counts_of[new], metric)
    images = [sample.image_path for samples in data.samples.values() for sample in samples][:_TIMED_IMAGES]
    # In turn, so that other load affects both.
    rounds = [(former.time(images), new.time(images)) for _ in range(_TIMED_ROUNDS)]
    return [
        check_recorded([(champion, overall.champion), (challenger, overall.challenger)], data, metric),
        check_better(overall, metric, data.num_images),
        check_drops(by_dataset, metric, limits.max_drop),
        check_speed(min(r[0] for r in rounds), min(r[1] for r in rounds), limits.max_slowdown),
        check_signature(former.signature, new.signature),
    ]


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
        postprocessing = _read_postprocessing(process)
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


def check_recorded(found: Sequence[tuple[ModelVersion, float]], data: GateData, metric: Metric) -> Check:
    """Compare the versions' recorded scores with those computed now."""
    notes, odd = [], False
    for version, score in found:
        recorded, md5 = version.tags.get(str(metric)), version.tags.get("data.md5", "")
        if md5 != data.md5:
            notes.append(
                f"version {version.version} was recorded on data {shorten(md5) or 'unknown'} with {metric} "
                f"{recorded or 'none'}: computed again, {score:.4f}"
            )
        elif recorded is not None and not data.left_out and abs(float(recorded) - score) > _RECORDED_TOLERANCE:
            odd = True
            notes.append(
                f"version {version.version} was recorded with {metric} {recorded} on this data and has {score:.4f} "
                "now: scored with other settings or other code"
            )
    figures = {"data_md5": data.md5, "images": data.num_images}
    said = f"both scored on data {shorten(data.md5)}, {data.num_images} images of {', '.join(data.samples)}"
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


def check_speed(champion_s: float, challenger_s: float, max_slowdown: float) -> Check:
    """Check that the challenger takes at most ``max_slowdown`` times the champion's seconds."""
    ratio = challenger_s / champion_s
    said = f"{champion_s:.4f} s -> {challenger_s:.4f} s for an image, x {ratio:.2f} (allowed: x {max_slowdown:g})"
    figures = {
        "champion_s": round(champion_s, 5),
        "challenger_s": round(challenger_s, 5),
        "ratio": round(ratio, 3),
    }
    return Check("speed", "passed" if ratio <= max_slowdown else "failed", said, figures)


def check_signature(champion: Mapping[str, str], challenger: Mapping[str, str]) -> Check:
    """Check that the challenger has the champion's inputs and outputs."""
    if champion and champion == challenger:
        return Check("signature", "passed", "the same columns in and out")
    changed = [key for key in ("inputs", "outputs") if champion.get(key) != challenger.get(key)]
    said = (
        "; ".join(f"{key}: {champion.get(key)} -> {challenger.get(key)}" for key in changed) or "neither has one"
    )
    return Check("signature", "failed", said)


def count_split(
    process: VersionProcess, samples: Sequence[CrackSample], params: EvaluateParams
) -> list[ImageCounts]:
    """Predict images with a version, and count each after the version's own post-processing."""
    postprocessing = _read_postprocessing(process)
    counts = []
    label = f"{process.scratch.parent.name}: {samples[0].dataset}"
    with progress(None, label, "image", total=len(samples)) as bar:
        for start in range(0, len(samples), _IMAGES_AT_A_TIME):
            group = samples[start : start + _IMAGES_AT_A_TIME]
            maps = [process.scratch / f"map-{number}.png" for number in range(len(group))]
            process.predict([sample.image_path for sample in group], maps)
            counts += [
                read_scored_map(sample, path, use_roi=params.use_roi).count(
                    postprocessing, tolerance_px=params.tolerance_px, num_thresholds=params.num_thresholds
                )
                for sample, path in zip(group, maps, strict=True)
            ]
            bar.update(len(group))
    return counts


def shorten(md5: str) -> str:
    """Shorten a data version to its first characters."""
    return md5.removesuffix(".dir")[:8]


def _figures_of(difference: Difference) -> dict[str, float]:
    names = ("champion", "challenger", "low", "high")
    return {name: round(getattr(difference, name), 4) for name in names}


def _read_postprocessing(process: VersionProcess) -> PostprocessParams:
    try:
        settings = json.loads(next(process.model_dir.rglob("settings.json")).read_text(encoding="utf-8"))
        return PostprocessParams.model_validate_json(json.dumps(settings["postprocess"]))
    except (StopIteration, KeyError, ValueError, ValidationError) as error:
        raise VersionFailure(f"its settings.json cannot be read by this version of crackseg ({error})") from error


@contextmanager
def _loaded(name: str, version: ModelVersion, folder: Path) -> Iterator[VersionProcess]:
    (folder / "model").mkdir(parents=True)
    try:
        uri = f"models:/{name}/{version.version}"
        model_dir = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder / "model")))
    except Exception as error:  # MLflow, requests and the file system raise different classes
        raise VersionFailure(f"its files cannot be fetched: {first_line(error)}") from error
    process = VersionProcess(model_dir, folder / "scratch")
    try:
        yield process
    finally:
        process.close()

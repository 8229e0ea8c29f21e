"""Create, resume or join a study; the paper's configurations are its first trials."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import DuplicatedStudyError
from optuna.study import StudyDirection
from optuna.trial import TrialState, create_trial
from pydantic import ValidationError

from crackseg.errors import CracksegError
from crackseg.experiments.paper.configurations import GRID, GRID_ARCHITECTURE, INITS, RECIPE, TABLE3, Configuration
from crackseg.experiments.search.space import Settings, Space, describe_space, iter_differences
from crackseg.experiments.search.storage import Storage
from crackseg.files import hash_file
from crackseg.lineage import keys_changing, settings_behind
from crackseg.params import Params, change_params, flatten_params
from crackseg.params.effects import SCORES, SEARCH
from crackseg.tracking.connection import StoreAwayError
from crackseg.tracking.store import Store

CONFIGURATION = "cell"  # user attribute of a trial: the paper's configuration that it is
_CONFIG, _READY = "crackseg", "ready"  # user attributes of a study
_READY_WAIT_S = 30


@dataclass(frozen=True)
class Search:
    """An open study, and the settings that its trials share."""

    study: optuna.Study
    storage: Storage
    params: Params
    overrides: Mapping[str, Any]
    run_id: str
    """Id of the study's run in MLflow."""
    folder: Path
    """Folder of this machine's checkpoints, weights and locks for the study."""

    @property
    def name(self) -> str:
        """The study's name."""
        return self.study.study_name

    @property
    def ods_key(self) -> str:
        """Name of the maximised score in a trial's values."""
        return {"paper": "ods", "symmetric": "symmetric_ods", "strict": "strict_ods"}[self.params.search.protocol]

    @property
    def is_multi_objective(self) -> bool:
        """Return whether a second objective is minimised next to the ODS."""
        return self.params.search.second_objective != "none"


def create_or_join(
    store: Store,
    storage: Storage,
    name: str,
    params: Params,
    overrides: Mapping[str, Any],
    prepared_dir: Path,
    *,
    num_trials: int | None,
) -> Search:
    """Create a study with all its trials waiting, or join the one of this name.

    All trials exist from the beginning and a worker only takes a waiting one, so their number is right with any
    number of workers.

    Args:
        params: params.yaml as it is.
        overrides: from ``-S``, for all trials, see :func:`settle_overrides`.
        prepared_dir: the images.
        num_trials: of the study in the end; None takes ``search.trials``, or what the study has.
    Raises:
        CracksegError: the space is invalid, or the study has other settings, another space or other images.
    """
    merged = change_params(params, overrides, source="-S") if overrides else params
    digest = hash_file(prepared_dir / merged.data.train_dataset / "manifest.csv")
    space = Space(merged)
    home = store.home / "search"
    home.mkdir(parents=True, exist_ok=True)
    # Of a study that is being created: a process that is killed in between leaves no run behind.
    record_path = home / f"{name}-{hashlib.sha256(storage.url.encode()).hexdigest()[:8]}.json"
    with FileLock(home / "setup.lock"):
        study, is_new = _create_or_load(storage, name, merged)
        config = _wait_until_ready(study, is_new)
        if config is None:
            if study.get_trials(deepcopy=False):  # a study of crackseg gets its settings before its first trial
                raise CracksegError(
                    f"study {name!r} of the storage was not made by `crackseg search`; choose another name"
                )
            config = {
                "params": params.model_dump(mode="json"),
                "overrides": dict(overrides),
                "data": digest,
                "trials": num_trials or merged.search.trials,
                "run_id": store.continue_run(record_path, name=f"search-{name}")[0],
            }
            storage.patiently(lambda: study.set_user_attr(_CONFIG, config))  # else it would get another run
        else:
            _refuse_differences(name, config, merged, digest)
        record_path.unlink(missing_ok=True)
        target = max(num_trials or 0, config["trials"])
        search = Search(study, storage, merged, dict(overrides), config["run_id"], folder_of(store, name, config))
        _check_run(store, search)
        if not study.user_attrs.get(_READY) or target > config["trials"]:
            study.set_user_attr(_READY, False)
            study.set_user_attr(_CONFIG, config | {"trials": target})
            _add_trials(study, space, merged, target)
            study.set_user_attr(_READY, True)
    return search


def settle_overrides(storage: Storage, name: str, overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the ``-S`` settings; if there are none and the study exists, those it was created with."""
    config = None if overrides else _read_config(storage, name)
    return config["overrides"] if config else overrides


def keep_space(storage: Storage, name: str, params: Params) -> Params:
    """Return the settings with the ``search.space`` that an existing study was created with; name a difference.

    The space of params.yaml may grow, for example by a new loss. It counts for new studies.

    Raises:
        CracksegError: see :func:`read_params`.
    """
    config = _read_config(storage, name)
    if config is None:
        return params
    search = params.search.model_copy(update={"space": read_params(config).search.space})
    kept = params.model_copy(update={"search": search})
    differences = list(iter_differences(describe_space(params), describe_space(kept)))
    if differences:
        print(
            f"note: study {name} keeps the search.space that it was created with; params.yaml has another, for new "
            "studies:\n  " + "\n  ".join(differences)
        )
    return kept


def _read_config(storage: Storage, name: str) -> dict[str, Any] | None:
    """Read the settings that a study was created with; None if there is no such study, or it has none."""
    if name not in [study.study_name for study in storage.get_all_studies()]:
        return None
    return optuna.load_study(study_name=name, storage=storage).user_attrs.get(_CONFIG)


def load_search(store: Store, storage: Storage, name: str | None) -> Search:
    """Open an existing study with the settings that it was created with; None takes the only one.

    Raises:
        CracksegError: there is no such study, or several and none is named.
    """
    names = sorted(study.study_name for study in storage.get_all_studies())
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        if not names:
            asked = f"no study {name!r} in the storage" if name else "no study in the storage"
            raise CracksegError(f"{asked}, which is empty; `crackseg search` makes one")
        asked = f"no study {name!r} in the storage" if name else f"{len(names)} studies in the storage"
        raise CracksegError(f"{asked}; name one with --study: {', '.join(names)}")
    study = optuna.load_study(study_name=name, storage=storage)
    config = study.user_attrs.get(_CONFIG)
    if config is None:
        raise CracksegError(f"study {name!r} was not made by `crackseg search`, or only half; choose another name")
    params = change_params(read_params(config), config["overrides"], source="-S")
    return Search(study, storage, params, config["overrides"], config["run_id"], folder_of(store, name, config))


def read_params(config: Mapping[str, Any]) -> Params:
    """Return the params.yaml that a study was created with.

    Raises:
        CracksegError: this version of crackseg has other keys.
    """
    try:
        return Params.model_validate_json(json.dumps(config["params"]))
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, problem["loc"])) for problem in error.errors())
        raise CracksegError(
            f"the study was made by another version of crackseg, with other keys ({keys}): go back to that version, "
            "or begin a new study with --study NAME"
        ) from error


def folder_of(store: Store, name: str, config: Mapping[str, Any]) -> Path:
    """Return this machine's folder of a study; it depends on the storage, which may have a study of the same name."""
    return store.home / "search" / f"{name}-{config['run_id'][:8]}"


def check_name(name: str) -> None:
    """Refuse a name that cannot be a folder or a git reference."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name, re.ASCII):
        raise CracksegError(f"--study {name!r}: expected letters, digits and . _ - and no blanks")


def build_sampler(name: str, seed: int, number: int) -> optuna.samplers.BaseSampler:
    """Build the sampler for one trial: seeded by the trial's number, so that a restart repeats and skips nothing.

    Optuna's defaults differ between its releases (5.0 turned ``constant_liar`` on), so they are set here.
    """
    seed = (seed * 1_000_003 + number) % 2**32
    if name == "gp":
        return optuna.samplers.GPSampler(
            seed=seed, n_startup_trials=10, deterministic_objective=False, warn_independent_sampling=False
        )
    if name == "tpe":
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=10, n_ei_candidates=24, multivariate=True, group=True, constant_liar=True
        )
    return optuna.samplers.RandomSampler(seed=seed)  # of the grid, all points are enqueued


def build_pruner(params: Params) -> optuna.pruners.BasePruner:
    """Build the pruner of a study; its steps are epochs."""
    if params.search.second_objective != "none" or params.search.pruner == "none":
        return optuna.pruners.NopPruner()
    if params.search.pruner == "hyperband":
        epochs = params.search.space.get("train", {}).get("epochs")
        most = max([epochs.high or 0, *(epochs.choices or ())]) if epochs else params.train.epochs  # type: ignore[type-var]
        return optuna.pruners.HyperbandPruner(max_resource=int(most or params.train.epochs))
    return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=max(1, params.train.epochs // 8))


def list_paper_points(space: Space, which: str) -> dict[str, Settings]:
    """List the paper's configurations that are in a space, by name: those of Table 3 first.

    A configuration is its loss, learning rate, initialisation and the other choices of section 3.1; on another
    architecture it is the same configuration, unless the architecture itself is searched. If all trials begin with
    weights that the paper does not have, such as ``scenes``, it is the same configuration without its initialisation.
    """
    configurations: tuple[Configuration, ...] = {"grid": (*TABLE3, *GRID), "table3": TABLE3, "none": ()}[which]
    searched = {dimension.key for dimension in space.dimensions}
    points: dict[str, Settings] = {}
    has_own_init = "model.init" not in searched and space.base["model.init"] not in INITS
    for configuration in configurations:
        if configuration.system != GRID_ARCHITECTURE and "model.architecture" not in searched:
            continue  # another system of Table 3, with its own recipe
        settings = {key: value for key, value in RECIPE.items() if key in searched} | dict(configuration.settings)
        if "model.architecture" not in searched:
            del settings["model.architecture"]
        name = configuration.name
        if has_own_init:
            name = name.replace(f"-{settings.pop('model.init')}-", "-")
        point = space.locate(settings)
        if point is not None and point not in points.values():
            points[name] = point
    return points


def _create_or_load(storage: Storage, name: str, params: Params) -> tuple[optuna.Study, bool]:
    directions = [StudyDirection.MAXIMIZE]
    if params.search.second_objective != "none":
        directions.append(StudyDirection.MINIMIZE)
    pruner = build_pruner(params)
    try:
        return optuna.create_study(study_name=name, storage=storage, directions=directions, pruner=pruner), True
    except DuplicatedStudyError:
        return optuna.load_study(study_name=name, storage=storage, pruner=pruner), False


def _wait_until_ready(study: optuna.Study, is_new: bool) -> dict[str, Any] | None:
    """Return the study's settings, waiting for another machine that may be creating it; None if there are none."""
    deadline = time.monotonic() + (0 if is_new else _READY_WAIT_S)
    while not study.user_attrs.get(_READY) and time.monotonic() < deadline:
        time.sleep(0.5)
    return study.user_attrs.get(_CONFIG)


def _refuse_differences(name: str, config: Mapping[str, Any], params: Params, digest: str) -> None:
    made = change_params(read_params(config), config["overrides"], source="-S")
    differences = [f"search.space {d}" for d in iter_differences(describe_space(params), describe_space(made))]
    searched = describe_space(params).keys() | describe_space(made).keys()
    # A condition on a searched key may hold in some trial.
    fixed = [{k: v for k, v in flatten_params(p).items() if k not in searched} for p in (params, made)]
    keys = frozenset().union(*(settings_behind(SCORES, flat) for flat in fixed))
    ours, theirs = (
        {k: v for k, v in flat.items() if k in keys}
        | {k: getattr(p.search, k.removeprefix("search.")) for k in keys_changing(SEARCH) - {"search.space"}}
        for flat, p in zip(fixed, (params, made), strict=True)
    )
    differences += iter_differences(ours, theirs)
    if digest != config["data"]:
        differences.append(f"the images of {params.data.train_dataset} are others")
    if differences:
        raise CracksegError(
            f"study {name!r} was made with other settings, and its trials could not be compared:\n  "
            + "\n  ".join(differences)
            + f"\nGo back to those, or begin a new study: --study {name}-2"
        )


def _check_run(store: Store, search: Search) -> None:
    try:
        store.get_run(search.run_id)
    except StoreAwayError:
        raise
    except CracksegError as error:
        raise CracksegError(
            f"the MLflow run of study {search.name!r} is not in {store.uri}; workers on several machines need one "
            "tracking server: set MLFLOW_TRACKING_URI to the one that the study was created with"
        ) from error


def _add_trials(study: optuna.Study, space: Space, params: Params, target: int) -> None:
    configurations = list_paper_points(space, params.search.paper)
    points: list[tuple[Settings | None, dict[str, Any]]] = [
        (point, {CONFIGURATION: c}) for c, point in configurations.items()
    ]
    if params.search.sampler == "grid":
        points += [(p, {}) for p in space.list_points(params.search.seed) if p not in configurations.values()]
        target = min(target, len(points))
    points += [(None, {})] * (target - len(points))
    for point, attributes in points[len(study.get_trials(deepcopy=False)) : target]:
        if point is None:
            study.add_trial(create_trial(state=TrialState.WAITING, user_attrs=attributes))
        else:
            study.enqueue_trial(point, user_attrs=attributes)

"""List the registered versions with their scores. Needs no torch: `crackseg models` answers sooner without it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from crackseg.registry.production import Production
from crackseg.registry.version_tags import read_score, read_tags

_FIGURES = ("ods", "ois", "ap")


def list_versions(production: Production) -> list[dict[str, Any]]:
    """List all versions with their scores and aliases, oldest first, for tables and JSON."""
    state = production.read()
    run_ids = dict.fromkeys(version.run_id for version in state.versions.values() if version.run_id)
    runs = production.store.find_runs([*run_ids])
    listed = []
    for number, version in state.versions.items():
        tags = read_tags(version)
        run = runs.get(version.run_id or "")
        promotions = [r for r in state.records if r.to_version == number]
        last = promotions[-1] if promotions else None
        datasets: dict[str, dict[str, float]] = {}
        for key in tags:
            dataset, _, figure = key.rpartition("/")
            score = read_score(tags, key)
            if dataset not in ("", "mean", "val") and figure in _FIGURES and score is not None:
                datasets.setdefault(dataset, {})[figure] = score
        listed.append(
            {
                "version": number,
                "aliases": sorted(alias for alias, target in state.aliases.items() if target == number),
                "stage": state.stage_of(number),
                "val_ods": read_score(tags, "val/ods"),
                "mean_ods": read_score(tags, "mean/ods"),
                "datasets": datasets,
                "data_md5": tags.get("data.md5", ""),
                "data_source": tags.get("data.source", ""),
                "architecture": tags.get("architecture", ""),
                "git_commit": tags.get("git.commit", ""),
                "run_id": version.run_id or "",
                "run_name": (run.info.run_name or "") if run else "",
                "registered": _format_time(version.creation_timestamp),
                "registered_by": (run.data.tags.get("mlflow.user", "") if run else ""),
                "in_production_since": last.time if last and state.in_production == number else None,
                "promoted": last.time if last else None,
                "promoted_by": last.user if last else None,
            }
        )
    return listed


def _format_time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

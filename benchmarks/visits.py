"""How exactly growth between two visits is measured, on drawn pairs: ``python -m benchmarks.visits [--model URI]``.

No row of ``python -m benchmarks``, since it measures errors and not speed. 30 pairs with growth and 100 without take
about 7 minutes of one core's time.
"""

from __future__ import annotations

import argparse

import numpy as np
from tests.unit.inspection.grown_scenes import compare_visits, visit_twice

from crackseg.inspection.registration import NotRegistered
from crackseg.registry.loading import load_model


def main() -> None:
    """Print the error of each pair with growth, for perfect maps and for the model, and all growth without one."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.visits", description=__doc__)
    parser.add_argument("--model", default="scenes", help="address of the model; the shipped one if not given")
    parser.add_argument("--grown", type=int, default=30, help="number of pairs with growth")
    parser.add_argument("--unchanged", type=int, default=100, help="number of pairs without")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--side-px", type=int, default=800)
    arguments = parser.parse_args()
    analyzer = load_model(arguments.model, None).analyzer
    network = (analyzer.predictor.predict_prob, analyzer.settings.operating_threshold)
    errors: dict[str, list[float]] = {"perfect maps": [], "model": []}
    refused = 0
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.grown):
        visits = visit_twice(seed, grows=True, side_px=arguments.side_px)
        for name, maps in (("perfect maps", None), ("model", network)):
            try:
                grown_px = sum(change.grown_px for change in compare_visits(visits, maps))
            except NotRegistered as error:
                print(f"{seed}: refused: {error}")
                refused += 1
                break
            errors[name].append(100 * (grown_px / visits.grown_px - 1))
            print(
                f"{seed}, {name}: {grown_px:.1f} of {visits.grown_px:.1f} px, {errors[name][-1]:+.1f} %",
                flush=True,
            )
    invented = measured = 0
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.unchanged):
        try:
            changes = compare_visits(visit_twice(seed, grows=False, side_px=arguments.side_px), network)
        except NotRegistered as error:
            print(f"{seed}, unchanged: refused: {error}")
            refused += 1
            continue
        measured += 1
        if grown_px := sum(change.grown_px for change in changes):
            print(f"{seed}, unchanged: {grown_px:.1f} px of growth", flush=True)
            invented += 1
    for name, values in errors.items():
        if values:
            within = sum(abs(value) <= 5 for value in values)
            print(f"{name}: {within} of {len(values)} within 5 %, median error {np.median(np.abs(values)):.1f} %")
    print(f"growth invented: {invented} of {measured} unchanged pairs; refused: {refused} pairs of both kinds")


if __name__ == "__main__":
    main()

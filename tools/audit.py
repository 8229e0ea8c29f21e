"""Look for known vulnerabilities of the locked packages, with pip-audit: `make lint-deps`.

Exits 1 if one is known, and 2 if packages could not be checked, e.g. without a connection to pypi.org.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LISTS = ("demo", "dev")
OFFLINE = "pip-audit asks pypi.org; a mirror without its JSON API, or no connection, has no answer"


def main() -> None:
    """Audit the lists that users and developers install."""
    arguments = [word for purpose in LISTS for word in ("-r", str(ROOT / "requirements" / f"{purpose}.txt"))]
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--format", "json", *arguments]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(answer.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"no package was checked: {last}\n{OFFLINE}", file=sys.stderr)
        sys.exit(2)
    code, lines = judge(packages)
    print("\n".join(lines), file=sys.stderr if code else sys.stdout)
    sys.exit(code)


def judge(packages: list[dict]) -> tuple[int, list[str]]:
    """Describe pip-audit's findings.

    Args:
        packages: its "dependencies": name, version, and vulns or skip_reason.
    Returns:
        The exit code, and lines for the user.
    """
    found = [
        f"{each['name']} {each['version']}: {vulnerability['id']}, "
        + (
            f"fixed in {', '.join(vulnerability['fix_versions'])}"
            if vulnerability["fix_versions"]
            else "no fix yet"
        )
        for each in packages
        for vulnerability in each.get("vulns", [])
    ]
    skipped = [each for each in packages if "skip_reason" in each]
    lines = [*found, f"{len(packages) - len(skipped)} of {len(packages)} packages checked, {len(found)} findings"]
    if skipped:
        names = ", ".join(each["name"] for each in skipped[:5]) + (", …" if len(skipped) > 5 else "")
        lines.append(f"{len(skipped)} not checked ({names}): {skipped[0]['skip_reason']}\n{OFFLINE}")
    return (1 if found else 2 if skipped else 0), lines


if __name__ == "__main__":
    main()

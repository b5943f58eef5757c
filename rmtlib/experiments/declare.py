"""When and where the rules of primary claims were declared: `python -m rmtlib.experiments.declare COMMIT` appends.

declared.json has for each claim, "<artifact>/<claim>", the list of its rules as data, oldest first. A rule that is
changed gets a second entry, and then both verdicts are shown.
"""

import json
import math
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rmtlib.evaluation.decisions import Contrast, Gate, Rule
from rmtlib.report.claims import Claim, Declaration

DECLARED = Path(__file__).with_name("declared.json")


def to_data(rule: Rule) -> dict[str, Any]:
    """What decides of a rule, as JSON has it; not the worlds that it is simulated in. An absent bound is left out."""
    decisive = {"contrasts": rule.contrasts, "gates": rule.gates, "seeds": rule.seeds}
    data: dict[str, Any] = json.loads(json.dumps(decisive, default=asdict))
    for gate in data["gates"]:
        for key in [key for key, value in gate.items() if value in (None, math.inf, -math.inf)]:
            del gate[key]
    return data


def from_data(data: dict[str, Any]) -> Rule:
    """The rule that `to_data` wrote."""
    contrasts = tuple(Contrast(**contrast) for contrast in data["contrasts"])
    return Rule(contrasts, tuple(Gate(**gate) for gate in data["gates"]), data["seeds"])


def primary(artifact: str, name: str, text: str, source: str, rule: str, test: Rule, **more: Any) -> Claim:
    """A claim that its rule decides, with the rule's declarations."""
    entries = json.loads(DECLARED.read_text(encoding="utf-8")).get(f"{artifact}/{name}", [])
    declared = tuple(Declaration(entry["declared"], entry["commit"], from_data(entry["rule"])) for entry in entries)
    return Claim(name, text, source, rule, test, primary=True, declared=declared, **more)


def main(argv: list[str] | None = None) -> int:
    from rmtlib.experiments.registry import all_artifacts

    (commit,) = sys.argv[1:] if argv is None else argv
    shown = subprocess.run(["git", "show", "-s", "--format=%h %cI", commit], capture_output=True, text=True, check=True)
    short, at = shown.stdout.split()
    at = datetime.fromisoformat(at).astimezone(UTC).isoformat()
    entries = json.loads(DECLARED.read_text(encoding="utf-8"))
    for artifact in all_artifacts().values():
        for claim in artifact.report().claims:
            kept = entries.setdefault(f"{artifact.name}/{claim.name}", []) if claim.primary else None
            if kept is not None and (not kept or kept[-1]["rule"] != to_data(claim.test)):
                kept.append({"declared": at, "commit": short, "rule": to_data(claim.test)})
                print(f"declared {artifact.name}/{claim.name} at {short}")
    DECLARED.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

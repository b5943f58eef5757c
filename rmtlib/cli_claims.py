"""The commands that say what published records show: `rmtlib claims` and `rmtlib export`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmtlib.errors import RmtlibError
from rmtlib.terminal import print_json

if TYPE_CHECKING:
    from rmtlib.report.view import View


def _views(names: Sequence[str]) -> list[View]:
    """Views of the published records of these artifacts, of all without any."""
    from rmtlib.experiments.registry import ARTIFACTS, get_artifact
    from rmtlib.experiments.view import view_of
    from rmtlib.runs.records import find_records

    known = [get_artifact(name).name for name in dict.fromkeys(names)] or list(ARTIFACTS)
    return [view_of(name, published=find_records(name, where=("results",))) for name in known]


def claims(options: argparse.Namespace) -> int:
    """What the published records say of each claim."""
    from rmtlib.evaluation.decisions import ENOUGH_POWER
    from rmtlib.report.claims import FORMER, OLDER, Effect
    from rmtlib.report.verdicts import NOT_DECLARED, as_data

    found = [claim for view in _views([options.artifact] if options.artifact else []) for claim in as_data(view)]
    if options.json:
        print_json(found)
        return 0
    for claim in found:
        kind = "primary" if claim["primary"] else "secondary"
        print(f"{claim['artifact']} {claim['claim']} ({kind}), {claim['scale']} scale: {claim['verdict'].upper()}")
        about: dict[str, Any] = {"claim": f"{claim['text']} ({claim['source']})"}
        about["rule"] = f"{FORMER}, of these contrasts" if claim["former"] else claim["rule"]
        if (can := claim["power"]) and not claim["former"]:
            about["power"] = f"holds in {can['paper']:.2f} if the paper is true, {can['boundary']:.2f} at the margin"
            about["power"] += f" (n = {can['n']})" + f"; {can['needed']} needed" * (can["paper"] < ENOUGH_POWER)
        if seen := claim["seen"]:
            about["power by these seeds"] = f"{seen['paper']:.2f} with their spread" + (
                f"; {seen['needed'] or 'more than 30'} needed" * (seen["paper"] < ENOUGH_POWER)
            )
        if claim["primary"]:
            about["commit"] = (claim["commit"] or NOT_DECLARED) + f"; {OLDER}" * claim["older"]
        about["effects"] = "; ".join(f"{e['contrast']} = {Effect(**e).numbers}" for e in claim["effects"])
        about |= {"p": claim["p"] and f"{claim['p']:.2g}", "why": claim["why"], "note": claim["note"]}
        for name, text in (about | {"would take": claim["cost"]}).items():
            if text:
                print(f"  {name}: {text}")
    return 0


def export(options: argparse.Namespace) -> int:
    """Write all published numbers and claims into a folder."""
    from rmtlib.report.export import export

    if not Path("results").is_dir():
        raise RmtlibError("no folder results: call this in the project's folder, which has the published records")
    paths = [str(path) for path in export(_views(options.artifacts), Path(options.to))]
    if options.json:
        print_json(paths)
    else:
        print("\n".join(paths))
    return 0

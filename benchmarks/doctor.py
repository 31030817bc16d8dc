"""How well the doctor judges: faults named and located, false alarms, and what it costs.

    python benchmarks/doctor.py [--only WORD ...] [--drawn N] [--cost] [--blind] [--verbose]

Every case of `doctor_cases` is a training as somebody would have written it. `lw.doctor` looks at
it before the first step and `lw.watch` while its own loop runs. FOUND: an expected rule is named.
LOCATED: at a place a careful reader would accept. SPURIOUS: an alarm of a rule that has nothing to
do with the fault. FALSE ALARM: an error or warning about a healthy case. `--blind` gives the watch
nothing but model, loss and optimizer, and the doctor a loader in the place of rows; `--cost` times
the healthy loops with and without it; `--drawn N` judges N sane trainings drawn at random and N
with one thing broken instead.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import multiprocessing
import os
import pkgutil
import sys
import time
import traceback
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import doctor_cases
import torch
from doctor_cases.drawn import drawn_cases
from doctor_cases.frame import CASES, Case, Setup

for home in pkgutil.iter_modules(doctor_cases.__path__):
    importlib.import_module(f"doctor_cases.{home.name}")

ORDER = [case.rules[0] for case in CASES if case.sick]
RULES = sorted(set(ORDER), key=ORDER.index)


def build(case: Case) -> Setup:
    """The case anew, always with the same first weights."""
    torch.manual_seed(0)
    return case.make()


def state(s: Setup) -> list[Any]:
    """Everything the doctor must leave as it was."""
    tensors = [*s.model.parameters(), *s.model.buffers()]
    grads = [p.grad for p in s.model.parameters()]
    modes = [m.training for m in s.model.modules()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in s.model.modules()]
    return [[t.detach().clone() for t in tensors], grads, modes, hooks, torch.get_rng_state()]


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, nan included."""
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and a.dtype == b.dtype
            and a.equal(b) | (a.shape == b.shape and bool(torch.isnan(a).any()))
        )
    return a is b if a is None else a == b


def table(s: Setup, blind: bool) -> dict[str, Any]:
    """What the doctor is told besides model, loss and optimizer."""
    told: dict[str, Any] = {"epochs": s.epochs, "X_val": s.X_val, "y_val": s.y_val}
    if s.loader is not None or blind:
        return {"X": s.batches(), **told}
    told |= {"batch_size": s.batch_size, "shuffle": s.shuffle, "drop_last": s.drop_last}
    return {"X": s.X, "y": s.y, "names": s.names, **told}


def judge(case: Case, blind: bool = False, show: bool = False) -> dict[str, Any]:
    """What the doctor says of one case, and what of it is right."""
    import layerwise as lw

    findings: list[Any] = []
    broken: list[str] = []
    skipped: list[str] = []
    s = build(case)
    before = state(s)
    start = time.process_time()
    try:
        told = table(s, blind)
        X, y = told.pop("X"), told.pop("y", None)
        if s.before:
            first = lw.doctor(s.model, s.loss, s.optimizer, X, y, **told)
            findings += first
            skipped += [str(one) for one in getattr(first, "skipped", ())]
    except Exception:
        broken.append("doctor: " + traceback.format_exc())
    seconds = time.process_time() - start
    start = time.process_time()
    if not same(before, state(s)):
        broken.append("doctor: the model, its gradients, modes, hooks or the random state changed")
    if s.loop is not None:
        given = {} if blind else {"X": s.X, "y": s.y, "X_val": s.X_val, "y_val": s.y_val}
        try:
            watch = lw.watch(s.model, s.loss, s.optimizer, **given)
        except Exception:
            broken.append("watch: " + traceback.format_exc())
        else:
            raised = None
            try:
                with watch as w:
                    s.loop(s)
            except Exception as error:
                raised = error
            if raised is not None and not case.sick:
                lines = traceback.format_exception(raised)
                broken.append("watch: the loop of a healthy case raised: " + "".join(lines))
            try:
                after = w.findings
                findings += after
                skipped += [str(one) for one in getattr(after, "skipped", ())]
            except Exception:
                broken.append("watch: " + traceback.format_exc())
            if state(s)[3] != before[3]:
                broken.append("watch: hooks were left behind")
    if skipped:
        broken.append("skipped: " + " | ".join(dict.fromkeys(skipped)))
    named = [f for f in findings if f.rule in case.rules]
    alarms = [f for f in findings if f.severity in ("error", "warning")]
    odd = [f for f in alarms if f.rule not in (*case.rules, *case.also)]
    if show:
        for f in findings:
            print(f"--- [{f.stage}]\n{f}")
        print("\n".join(broken))
    return {
        "case": case.name,
        "rule": case.rules[0] if case.sick else "",
        "expected": [*case.rules],
        "at": [*case.where],
        "found": bool(named),
        "first": bool(alarms) and alarms[0].rule in case.rules,
        "located": any(not case.where or f.where in case.where for f in named),
        "places": sorted({f.where for f in named}),
        "spurious": sorted({f"{f.rule} ({f.where}, {f.stage})" for f in odd}),
        "said": sorted({f"{f.rule} ({f.severity}, {f.where}, {f.stage})" for f in findings}),
        "broken": broken,
        "seconds": seconds,
        "loop_seconds": time.process_time() - start,
    }


def cost(case: Case, repeat: int = 3) -> tuple[float, float]:
    """CPU seconds of the case's own loop alone and watched: the least of ``repeat``."""
    import layerwise as lw

    alone, watched = [], []
    for _ in range(repeat):
        for times, watching in ((alone, False), (watched, True)):
            s = build(case)
            guard = lw.watch(s.model, s.loss, s.optimizer) if watching else contextlib.nullcontext()
            start = time.process_time()
            with guard:
                s.loop(s)  # type: ignore[misc]
            times.append(time.process_time() - start)
    return min(alone), min(watched)


def work(job: tuple[str, bool, bool]) -> dict[str, Any]:
    """One case, in a process of its own kind."""
    name, blind, measure = job
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    case = next(case for case in CASES if case.name == name)
    result = judge(case, blind)
    if measure and not case.sick:
        result["alone"], result["watched"] = cost(case)
    return result


def report(results: list[dict[str, Any]], verbose: bool) -> None:
    """The table by rule and the sums."""
    sick = [r for r in results if r["rule"]]
    well = [r for r in results if not r["rule"]]
    false_alarms: dict[str, int] = defaultdict(int)
    for r in well:
        for one in {one.split(" ")[0] for one in r["spurious"]}:
            false_alarms[one] += 1
    groups = defaultdict(list)
    for r in sick:
        groups[r["rule"]].append(r)
    print(f"{'rule':28}{'cases':>6}{'found':>7}{'located':>9}{'spurious':>10}{'false alarms':>14}")
    strays: dict[str, int] = defaultdict(int)
    for r in sick:
        for one in {one.split(" ")[0] for one in r["spurious"]}:
            strays[one] += 1
    for rule in RULES:
        rows = groups[rule]
        if rows or strays[rule] or false_alarms[rule]:
            found, located = (sum(r[key] for r in rows) for key in ("found", "located"))
            print(
                f"{rule:28}{len(rows):6}{found:7}{located:9}{strays[rule]:10}{false_alarms[rule]:14}"
            )
    if sick:
        found, located, first = (sum(r[k] for r in sick) for k in ("found", "located", "first"))
        odd = sum(bool(r["spurious"]) for r in sick)
        share = 100 / len(sick)
        print(
            f"\n{len(sick)} faulty cases: {found} found ({found * share:.0f} %), {located} located "
            f"({located * share:.0f} %), {first} named first, {odd} with a spurious alarm"
        )
    if well:
        loud = sum(bool(r["spurious"]) for r in well)
        print(f"{len(well)} healthy cases: {loud} with a false alarm")
    took = sorted(r["seconds"] for r in results)
    print(
        f"doctor before the first step: median {took[len(took) // 2]:.2f} s, "
        f"slowest {took[-1]:.2f} s of CPU time"
    )
    timed = [r for r in results if "alone" in r]
    if timed:
        ratios = sorted(r["watched"] / r["alone"] - 1 for r in timed)
        total = sum(r["watched"] for r in timed) / sum(r["alone"] for r in timed) - 1
        print(
            f"watching costs: median {ratios[len(ratios) // 2]:.1%}, most {ratios[-1]:.1%}, "
            f"all loops together {total:.1%}"
        )
    broken = [r for r in results if r["broken"]]
    if broken:
        print(f"broken: {len(broken)} cases")
    if verbose:
        print()
        for r in results:
            bad = r["spurious"] or r["broken"] or (r["rule"] and not r["located"])
            if bad:
                wanted = f"{' or '.join(r['expected'])} at {' or '.join(r['at']) or 'any place'}"
                print(f"{r['case']}: expected {wanted if r['rule'] else 'silence'}")
                print(f"    said {', '.join(r['said']) or 'nothing'}")
                for one in r["broken"]:
                    print("    " + one.strip().replace("\n", "\n    "))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="*", default=[], help="rules, files, parts of names of cases"
    )
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--cost", action="store_true", help="time the loops with and without")
    parser.add_argument("--blind", action="store_true", help="give the watch no table")
    parser.add_argument("--verbose", action="store_true", help="print each case that went wrong")
    parser.add_argument("--show", action="store_true", help="print all findings, one job")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    parser.add_argument("--log", type=Path, help="a file to which each result is added as it comes")
    parser.add_argument("--drawn", type=int, default=0, help="so many random pairs instead")
    arguments = parser.parse_args()
    if arguments.drawn:
        CASES[:] = drawn_cases(arguments.drawn)
    chosen = [
        case
        for case in CASES
        if not arguments.only
        or any(
            word in (*case.rules, case.make.__module__.rpartition(".")[2])
            or word in case.name
            or (word == "healthy" and not case.sick)
            for word in arguments.only
        )
    ]
    if arguments.show:
        warnings.simplefilter("ignore")
        for case in chosen:
            print(f"=== {case.name}: {', '.join(case.rules) or 'healthy'} {' '.join(case.where)}")
            judge(case, arguments.blind, show=True)
        return
    jobs = [(case.name, arguments.blind, arguments.cost) for case in chosen]
    with multiprocessing.get_context("fork").Pool(arguments.jobs) as pool:
        results = []
        for result in pool.imap(work, jobs):
            results.append(result)
            if arguments.log:
                with arguments.log.open("a") as file:
                    file.write(json.dumps(result) + "\n")
    if arguments.json:
        print(json.dumps(results, indent=1))
    else:
        report(results, arguments.verbose)


if __name__ == "__main__":
    main()

"""Asks two brokers the same and tells where their answers differ.

    compare.py --jar kafka-clients.jar --one 127.0.0.1:9092 --other 127.0.0.1:9093 [--only NAME] [--show]

A line for each step of each scenario: `same SCENARIO: STEP` or `differs SCENARIO: STEP | WHERE: one, other`. A step that is taken
in several versions of a request is one. Ends with 0 when it could ask both everything.
"""

import argparse
import concurrent.futures
import importlib
import itertools
import os
import pathlib
import re
import sys
import time
import traceback

import peer
import wire

WHY_CHARS_MAX = 600


def scenarios():
    folder = pathlib.Path(__file__).parent / "scenarios"
    for file in sorted(folder.glob("*.py")):
        module = importlib.import_module(f"scenarios.{file.stem}")
        for name, function in vars(module).items():
            if callable(function) and getattr(function, "__module__", "") == module.__name__ and name[0] != "_":
                yield f"{file.stem}.{name}", function


def differences(one, other, path=""):
    """Where two answers differ, one line each."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in list(one) + [key for key in other if key not in one]:
            yield from differences(one.get(key, "absent"), other.get(key, "absent"), f"{path}.{key}".strip("."))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for at, pair in enumerate(zip(one, other)):
            yield from differences(*pair, f"{path}[{at}]")
    elif one != other:
        yield f"{path}: {short(one)}, {short(other)}"


def short(value):
    text = repr(value)
    return text if len(text) < 120 else text[:120] + "…"


def compared(one, other):
    """What each step came to, by its name without its version: in which versions the answers differ, and where."""
    steps = {}
    for (said, left), (said_too, right) in itertools.zip_longest(one, other, fillvalue=("nothing more", None)):
        if said != said_too:
            steps.setdefault("the steps", []).append((None, [f"{said} on one side, {said_too} on the other"]))
            break
        found = re.match(r"(\w+) (\d+)( .*|)$", said)
        name, version = (found[1] + found[3], int(found[2])) if found else (said, None)
        steps.setdefault(name, []).append((version, list(differences(left, right))))
    return steps


def told(name, steps):
    """A line for each step."""
    for step, answers in steps.items():
        differing = [(version, lines) for version, lines in answers if lines]
        if not differing:
            print(f"same {name}: {step}", flush=True)
            continue
        versions = [version for version, _ in differing if version is not None]
        where = f"versions {versions[0]} to {versions[-1]} of {len(answers)}: " if len(versions) > 1 else ""
        why = where + "; ".join(differing[0][1])
        print(f"differs {name}: {step} | {why[:WHY_CHARS_MAX]}", flush=True)


def play(asked, name, function):
    """One scenario with one broker; an error of the scenario itself is part of what came of it."""
    asked.begin(name.replace("_", "-").replace(".", "-"))
    try:
        function(asked)
    except Exception as error:  # what one broker makes the scenario stumble over is a difference too
        asked.transcript.append(("the scenario stumbled", f"{type(error).__name__}: {error}"))
        if os.environ.get("TRACE"):
            traceback.print_exc()
    asked.close()
    return asked.transcript


def main():
    known = argparse.ArgumentParser()
    known.add_argument("--jar", required=True)
    known.add_argument("--one", required=True)
    known.add_argument("--other", required=True)
    known.add_argument("--only", default="")
    known.add_argument("--show", action="store_true", help="print what both said")
    options = known.parse_args()
    definitions = wire.Definitions(options.jar)
    run = f"{time.time_ns() // 1000 & 0xFFFFFFFF:x}"
    peers = [peer.Peer(definitions, address, run) for address in (options.one, options.other)]
    for asked in peers:
        offered = asked.quietly("ApiVersions", 3, clientSoftwareName="differential", clientSoftwareVersion="1")
        asked.offered = {entry["apiKey"]: (entry["minVersion"], entry["maxVersion"]) for entry in offered["apiKeys"]}
    both = {}
    for key, name in definitions.names.items():
        if all(key in asked.offered for asked in peers):
            (low, high), (low_too, high_too) = (asked.offered[key] for asked in peers)
            both[name] = (max(low, low_too), min(high, high_too))
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for asked in peers:
            asked.both = both
            asked.ready()
            asked.epoch = asked.epoch_of(asked.topic())
        for name, function in scenarios():
            if options.only not in name:
                continue
            one, other = pool.map(lambda asked: play(asked, name, function), peers)
            if options.show:
                for (said, left), (_, right) in zip(one, other):
                    print(f"    {said}\n      {left}\n      {right}")
            told(name, compared(one, other))
    return 0


if __name__ == "__main__":
    sys.exit(main())

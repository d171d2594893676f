"""Runs the pilot over a folder of its own, breaks it, and checks what each consumer says against what agents and server know.

    python3 check.py [--cairn PATH]

Ports are free ones, and every process that it starts it ends. Nothing but Python's own library.
"""

import argparse
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from agents import Agent, story

HERE = Path(__file__).parent
LIMIT = 60


class Pilot:
    """A copy of this folder, and the `cairn up` over it."""

    def __init__(self, cairn, folder):
        self.cairn, self.folder, self.data = cairn, Path(folder), Path(folder, "data")
        for name in ("cairn.toml", "orders.py"):
            shutil.copy(HERE / name, self.folder)
        shutil.copytree(HERE / "policies", self.folder / "policies")
        self.token = secrets.token_hex(24)
        self.environment = dict(os.environ, CAIRN_OPERATOR_TOKEN=self.token, CAIRN_DATA=str(self.data))
        self.process = None

    def start(self):
        ports = ["--kafka", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        with open(self.folder / "up.log", "ab") as log:
            self.process = subprocess.Popen([self.cairn, "up", "--config", "cairn.toml", *ports], cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=log, text=True)
        for line in self.process.stdout:
            found = re.match(r"ready kafka (\S+) gateway (http://[^/]+)/\S+ admin (\S+)", line)
            if found:
                _, self.gateway, self.admin = found.groups()
                threading.Thread(target=self.process.stdout.read, daemon=True).start()
                return
        raise SystemExit((self.folder / "up.log").read_text())

    def end(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait(LIMIT)

    def run(self, *arguments, code=0):
        done = subprocess.run([self.cairn, *arguments], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=LIMIT * 3, check=False)
        if done.returncode != code:
            raise AssertionError(f"cairn {' '.join(arguments)} ended with {done.returncode}: {done.stderr or done.stdout}")
        return done.stdout

    def rows(self, sql):
        return [json.loads(line) for line in self.run("query", sql, "--json", "--rows-max", "100000").splitlines()]

    def ask(self, path):
        request = urllib.request.Request(self.admin + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=LIMIT) as response:
            return json.load(response)

    def events(self):
        return [json.loads(line) for line in self.run("tail", "--from-start", "--no-follow", "--json").splitlines()]

    def journal(self):
        path = self.folder / "journal.txt"
        return path.read_text().splitlines() if path.exists() else []


def until(what, look):
    """What is written without anybody waiting for it comes a moment later."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {LIMIT} s in vain for {what}")


def expect(is_so, words):
    if not is_so:
        raise AssertionError(words)


def the_story(pilot, keys):
    """A stale write is stopped, succeeds after a fresh read, a refund waits for a person, and a deletion reaches nobody."""
    desk, warehouse = (Agent(pilot.gateway, keys[name], "order-4711", name) for name in ("desk", "warehouse"))

    def approve():
        waiting = until("the refund", lambda: pilot.ask("/approvals")["waiting"])
        pilot.run("approve", waiting[0]["id"])

    person = threading.Thread(target=approve, daemon=True)
    person.start()
    told = story(desk, warehouse, "4711", said=lambda _: None)
    person.join(LIMIT)
    came = [answer.get("refused") or answer["version"] for _, _, answer in told]
    expect(came[:3] == ["1", "1", "2"], f"read, read, packed: {told}")
    expect(came[3] == "denied" and "order://4711" in told[3][2]["says"], f"the stale write: {told[3]}")
    expect(came[4:6] == ["2", "3"], f"after a fresh read: {told[4:6]}")
    expect(came[6] == "denied" and came[7] == "4", f"deleted, refunded: {told[6:]}")
    did = [line.split()[0] for line in pilot.journal()]
    expect(did == ["set_order", "set_order", "refund_order"], f"what the server did: {did}")


def freshness(pilot, _):
    """The consumer for freshness: the freshest version of the order, who saw which, and why a call was refused."""
    uri = "order://4711"
    fresh = until("the newest version", lambda: [one for one in pilot.ask(f"/context/resources?server=orders&uri={uri}")["resources"] if one["version"] == "3"])
    expect(len(fresh) == 1, f"{fresh}")
    seen = pilot.ask(f"/context/seen?server=orders&uri={uri}")["seen"]
    expect({one["principal"] for one in seen} == {"key/desk", "key/warehouse"}, f"who has seen it: {seen}")
    refusals = pilot.ask("/context/refusals?workflow_id=order-4711")["refusals"]
    expect({policy for one in refusals for policy in one["determining_policies"]} == {"nobody-acts-on-the-past", "nobody-deletes-orders"}, f"{refusals}")


def audit(pilot, _):
    """The consumer for audit: every event of the trail once, every call with its decision and its end."""
    trail = {event["id"] for event in pilot.events()}
    until("the whole trail", lambda: trail <= {row["id"] for row in pilot.rows("SELECT id FROM events")})
    twice = pilot.rows("SELECT count(*) - count(DISTINCT id) AS n FROM events")[0]["n"]
    expect(twice == 0, f"{twice} events are there twice")
    calls = pilot.rows("SELECT tool, decision, outcome FROM calls WHERE workflow_id = 'order-4711' AND method = 'tools/call'")
    ends = sorted((call["tool"], call["decision"], call["outcome"]) for call in calls)
    expect(len(ends) == 8 and all(end[2] for end in ends), f"{ends}")
    expect(("delete_order", "deny", "denied") in ends and ("refund_order", "permit", "completed") in ends, f"{ends}")


def analytics(pilot, _):
    """The consumer for analytics: a data set with one row a call, made again to the byte."""
    out = Path(tempfile.mkdtemp(dir=pilot.folder), "set")
    pilot.run("dataset", "make", "--out", str(out), "--since", "1h", "--server", "orders")
    rows = [json.loads(line) for line in (out / "calls.jsonl").read_text().splitlines()]
    expect(sum(row["workflow_id"] == "order-4711" for row in rows) == 8, f"{len(rows)} rows")
    pilot.run("dataset", "rebuild", str(out / "manifest.json"))
    pilot.sets.append(out)


def a_kill(pilot, keys):
    """Cairn is killed while an agent works: what reached the server has an intent, every call has one end, and consumers miss and repeat nothing."""
    stop = threading.Event()

    def work():
        try:
            agent = Agent(pilot.gateway, keys["desk"], "order-4712", "desk")
            while not stop.is_set():
                agent.call("get_order", id="4712")
                agent.call("set_order", id="4712", state="busy")
        except (OSError, ValueError):
            pass  # it was in the middle of a call

    before = len(pilot.journal())
    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    until("some work", lambda: len(pilot.journal()) >= before + 5)
    pilot.end(signal.SIGKILL)
    stop.set()
    worker.join(LIMIT)
    reached = len([line for line in pilot.journal() if '"4712"' in line])
    pilot.start()
    mine = [event for event in pilot.events() if event["data"].get("workflow_id") == "order-4712"]
    writes = {event["data"]["call_id"] for event in mine if event["type"] == "call.intent" and event["data"].get("gen_ai_tool_name") == "set_order"}
    expect(len(writes) >= reached, f"{reached} writes reached the server, and the trail intends {len(writes)}")
    decided = {event["data"]["call_id"] for event in mine if event["type"] == "call.decision"}
    ends = [event["data"]["call_id"] for event in mine if event["type"] == "call.outcome"]
    expect(sorted(ends) == sorted(decided), f"{len(decided)} calls were decided on, and {len(ends)} ended")
    audit(pilot, keys)


def a_replay(pilot, _):
    """Each consumer reads the past again and comes to the same: audit and freshness by a replay, data sets by making them anew."""
    for name in ("audit", "context"):
        said = pilot.run("replay", "--from", "1h", "--group", name, "--reason", "the pilot's check", "--json")
        last = json.loads(said.splitlines()[-1])
        expect(last.get("changed") == 0, f"{name}: {said}")
    for made in pilot.sets:
        pilot.run("dataset", "rebuild", str(made / "manifest.json"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cairn", default=os.environ.get("CAIRN_BIN", "cairn"))
    cairn = shutil.which(parser.parse_args().cairn)
    if cairn is None:
        raise SystemExit("there is no `cairn` on the PATH: cargo install --locked --path crates/cairn, or name it with --cairn")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="cairn-pilot-") as folder:
        pilot = Pilot(os.path.abspath(cairn), folder)
        pilot.sets = []
        keys = {}
        for name in ("desk", "warehouse"):
            keys[name] = pilot.run("key", "new", "--principal", name).strip().splitlines()[-1]
        pilot.start()
        try:
            for part in (the_story, freshness, audit, analytics, a_kill, a_replay):
                try:
                    part(pilot, keys)
                    print(f"ok    {part.__doc__}")
                except (AssertionError, OSError, KeyError, subprocess.TimeoutExpired) as error:
                    failed += 1
                    print(f"FAIL  {part.__doc__}\n      {error!r}")
        finally:
            pilot.end()
    sys.exit(5 if failed else 0)


if __name__ == "__main__":
    main()

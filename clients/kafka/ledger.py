"""What was written and what came back, compared byte by byte.

The Python clients share this: the records, the book of acknowledged offsets, and the book of deliveries.
See README.md beside this file for what a client must do.
"""

import argparse
import threading


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--records", type=int, required=True)
    parser.add_argument("--protocol", choices=["classic", "consumer"], default="classic")
    return parser.parse_args()


def key(i):
    return b"key-%d" % i


def value(i):
    return bytes((31 * i + 7 * j) & 255 for j in range(50 + i % 200))


def header(i):
    return [("n", b"%d" % i)]


def need(holds, text):
    if not holds:
        raise SystemExit(f"FAILED {text}")


class Ledger:
    """One run. Calls may come from any thread."""

    def __init__(self, records, partitions):
        self.records = records
        self.partitions = partitions
        self.acknowledged = {}
        self.delivered = set()
        self.again = 0
        self.killed = set()
        self.lock = threading.Lock()

    def partition(self, i):
        return i % self.partitions

    def acknowledge(self, i, partition, offset):
        """Record i was acknowledged at this place."""
        with self.lock:
            need(partition == self.partition(i), f"record {i} went to partition {partition}")
            self.acknowledged[i] = offset
            done = len(self.acknowledged)
        if done * 2 >= self.records:
            self.kill_once("written")

    def kill_once(self, when):
        """Asks the driver, once for each occasion, to kill the broker."""
        with self.lock:
            if when in self.killed:
                return
            self.killed.add(when)
        print("kill", flush=True)

    def check_acknowledged(self, known=True):
        """Each record has the offset that its place in the order says (offset < 0: the library does not tell)."""
        need(len(self.acknowledged) == self.records, f"{len(self.acknowledged)} of {self.records} acknowledged")
        for i, offset in self.acknowledged.items():
            if offset is not None and offset >= 0 and known:
                need(offset == i // self.partitions, f"record {i} was acknowledged at offset {offset}, not {i // self.partitions}")

    def deliver(self, partition, offset, got_key, got_value, got_headers):
        """A record came back from this place: it must be the one that was written there, to the last byte."""
        i = offset * self.partitions + partition
        need(0 <= i < self.records, f"partition {partition} offset {offset} was never written")
        where = f"record {i} (partition {partition}, offset {offset})"
        need(got_key == key(i), f"{where}: key {got_key!r}")
        need(got_value == value(i), f"{where}: value of {len(got_value or b'')} bytes differs")
        need(got_headers is None or list(got_headers) == header(i), f"{where}: headers {got_headers!r}")
        with self.lock:
            if i in self.delivered:
                self.again += 1
            self.delivered.add(i)
            return len(self.delivered)

    def waits(self):
        """Half has come back and the kill that belongs there has not been asked for: members wait, however quick they are."""
        return len(self.delivered) * 2 >= self.records and "read" not in self.killed

    def complete(self):
        return len(self.delivered) == self.records

    def length(self, partition):
        """How many records partition holds at the end."""
        return (self.records - partition + self.partitions - 1) // self.partitions

    def check_ends(self, ends, committed):
        """End offsets and the group's committed offsets, by partition."""
        need(self.complete(), f"{len(self.delivered)} of {self.records} records came back")
        for partition in range(self.partitions):
            need(ends[partition] == self.length(partition), f"partition {partition} ends at {ends[partition]}")
            need(committed[partition] == self.length(partition), f"partition {partition} is committed at {committed[partition]}")

    def say_ok(self, members):
        print(f"ok {self.records} records, {self.partitions} partitions, {members} members, {self.again} delivered again", flush=True)

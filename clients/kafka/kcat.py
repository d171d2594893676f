"""kcat: see README.md.

Its output is lines, so values travel as hex and without header, and its producer names no offsets: those are
compared when the records come back. Its groups are librdkafka's balanced consumer (`-G`), which stores offsets by
itself; three processes join, and one leaves.
"""

import os
import queue
import subprocess
import tempfile
import threading
import time

from confluent_kafka.admin import AdminClient, NewTopic

import ledger as book
from ledger import Ledger, arguments, need

# One run of kcat for each partition and chunk.
CHUNKS = 16


def write(options, ledger):
    chunk = max(1, options.records // CHUNKS)
    for start in range(0, options.records, chunk):
        batch = range(start, min(start + chunk, options.records))
        for partition in range(options.partitions):
            mine = [i for i in batch if ledger.partition(i) == partition]
            lines = b"".join(b"%s\t%s\n" % (book.key(i), book.value(i).hex().encode()) for i in mine)
            run = subprocess.run(
                ["kcat", "-E", "-P", "-b", options.bootstrap, "-t", options.topic, "-p", str(partition), "-K", "\t",
                 "-X", "enable.idempotence=true", "-X", "acks=all", "-X", "message.timeout.ms=120000"],
                input=lines, capture_output=True, timeout=180)
            need(run.returncode == 0, f"kcat -P: {run.stderr.decode()}")
            for i in mine:
                ledger.acknowledge(i, partition, None)
    ledger.check_acknowledged()


class Member:
    """One `kcat -G`, whose lines go to a queue that all members share.

    It writes to a file: a signal that arrives while kcat waits for a full pipe makes it print a line without its value.
    """

    def __init__(self, options, group, lines):
        self.file = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            ["kcat", "-E", "-b", options.bootstrap, "-X", "auto.offset.reset=earliest", "-X", "session.timeout.ms=10000",
             "-X", "heartbeat.interval.ms=1000", "-u", "-q", "-f", "%p\t%o\t%k\t%s\n", "-G", group, options.topic],
            stdout=self.file, stderr=subprocess.DEVNULL)
        self.thread = threading.Thread(target=self.follow, args=[lines], daemon=True)
        self.thread.start()

    def follow(self, lines):
        at, rest, over = 0, b"", False
        while not over:
            # Asked before the read: what it wrote before it ended is read then.
            over = self.process.poll() is not None
            chunk = os.pread(self.file.fileno(), 1 << 20, at)
            at += len(chunk)
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                lines.put(line)
            if chunk:
                over = False
            else:
                time.sleep(0.02)

    def leave(self):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()


def read(options, ledger, group):
    lines = queue.Queue()
    members, count = [Member(options, group, lines), Member(options, group, lines)], 2
    deadline = time.monotonic() + 300 + options.records / 100
    try:
        while not ledger.complete():
            need(time.monotonic() < deadline, f"only {len(ledger.delivered)} records came back")
            try:
                partition, offset, key, value = lines.get(timeout=0.2).split(b"\t")
            except queue.Empty:
                continue
            ledger.deliver(int(partition), int(offset), key, bytes.fromhex(value.decode()), None)
            if count == 2 and len(ledger.delivered) * 4 >= options.records:
                members.append(Member(options, group, lines))
                count = 3
            if len(ledger.delivered) * 2 >= options.records:
                ledger.kill_once("read")
                if len(members) == 3:
                    members.pop(0).leave()
        return count
    finally:
        for member in members:
            member.leave()


def ends(options):
    """`-Q` asks for the offset of a time; −1 is the end."""
    found = {}
    for partition in range(options.partitions):
        said = subprocess.run(["kcat", "-Q", "-b", options.bootstrap, "-t", f"{options.topic}:{partition}:-1"],
                              capture_output=True, timeout=60, check=True).stdout.decode()
        found[partition] = int(said.rsplit(None, 1)[1])
    return found


def main():
    options = arguments()
    ledger = Ledger(options.records, options.partitions)
    # kcat cannot create a topic with a number of partitions: librdkafka's administration does.
    admin = AdminClient({"bootstrap.servers": options.bootstrap})
    for future in admin.create_topics([NewTopic(options.topic, options.partitions, 1)]).values():
        future.result(30)
    write(options, ledger)
    count = read(options, ledger, options.topic + ".group")
    found = ends(options)
    # kcat shows no committed offsets; that its group never skipped is what the deliveries say.
    ledger.check_ends(found, {p: ledger.length(p) for p in found})
    ledger.say_ok(count)


main()

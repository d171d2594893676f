"""Record batches, written by hand, so that any field of them can be wrong."""

import struct


def table():
    rows = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        rows.append(byte)
    return rows


TABLE = table()


def crc32c(data):
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ TABLE[(value ^ byte) & 255]
    return value ^ 0xFFFFFFFF


def varint(value):
    value = value << 1 ^ value >> 63
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def record(at, value, key=None, headers=(), delta=0):
    body = b"\0" + varint(delta) + varint(at)
    for part in (key, value):
        body += varint(-1) if part is None else varint(len(part)) + part
    body += varint(len(headers))
    for name, text in headers:
        body += varint(len(name)) + name + (varint(-1) if text is None else varint(len(text)) + text)
    return varint(len(body)) + body


def batch(values=(b"value",), *, key=None, base=0, epoch=-1, magic=2, attributes=0, last_delta=None, first_time=None,
          max_time=None, producer=-1, producer_epoch=-1, sequence=-1, count=None, crc=None, length=None, payload=None,
          records=None):
    """One batch of the current format; what is not named is as it should be."""
    time = 1_700_000_000_000 if first_time is None else first_time
    made = records if records is not None else [record(at, value, key) for at, value in enumerate(values)]
    body = struct.pack(
        ">hiqqqhii",
        attributes,
        len(made) - 1 if last_delta is None else last_delta,
        time,
        time if max_time is None else max_time,
        producer,
        producer_epoch,
        sequence,
        len(made) if count is None else count,
    )
    body += b"".join(made) if payload is None else payload
    checked = struct.pack(">ibI", epoch, magic, crc32c(body) if crc is None else crc) + body
    return struct.pack(">qi", base, len(checked) if length is None else length) + checked


def heads(data):
    """What a Fetch brought, without its times: of each whole batch its offsets, attributes, producer and number of records."""
    found, at = [], 0
    while data is not None and at + 61 <= len(data):
        base, length = struct.unpack_from(">qi", data, at)
        if at + 12 + length > len(data):
            break
        epoch, magic = struct.unpack_from(">ib", data, at + 12)
        attributes, delta = struct.unpack_from(">hi", data, at + 21)
        producer, producer_epoch, sequence, count = struct.unpack_from(">qhii", data, at + 43)
        found.append({
            "base": base, "last": base + delta, "magic": magic, "attributes": attributes, "producerId": producer,
            "epoch": producer_epoch, "sequence": sequence, "count": count, "leaderEpoch": epoch,
        })
        at += 12 + length
    return found

"""Requests that are not what they should be."""

import struct


def _head(key, version, client=b"x", correlation=7, flexible=False):
    return struct.pack(">hhih", key, version, correlation, len(client)) + client + (b"\0" if flexible else b"")


def versions(peer):
    for version in range(0, 5):
        answer = peer.quietly("ApiVersions", version, clientSoftwareName="differential", clientSoftwareVersion="1")
        if isinstance(answer, dict):
            answer = {key: value for key, value in answer.items() if key in ("errorCode", "throttleTimeMs")}
        peer.note(f"version {version}", answer)
    for note, name, version in (("no name", "", "1"), ("no version", "x", ""), ("blank", "a b", "1"), ("slash", "a/b", "1"), ("dash", "a-b.c", "1.0-x"), ("dash first", "-a", "1")):
        answer = peer.quietly("ApiVersions", 3, clientSoftwareName=name, clientSoftwareVersion=version)
        peer.note(note, answer if isinstance(answer, str) else answer["errorCode"])


def version_to_come(peer):
    head = _head(18, 99, b"abcd", flexible=True)
    data = peer.exchange(struct.pack(">i", len(head)) + head)
    if isinstance(data, bytes):
        correlation, code, count = struct.unpack_from(">ihi", data)
        peer.note("answer", {"correlation": correlation, "errorCode": code, "any": count > 0})
    else:
        peer.note("answer", data)


def not_offered(peer):
    for note, data in (
        ("unknown key", _head(999, 0)),
        ("key -1", _head(-1, 0)),
        ("version -1", _head(3, -1)),
        ("version to come", _head(3, 99)),
        ("Produce to come", _head(0, 99)),
        ("nothing", b""),
        ("one byte", b"\0"),
        ("half a head", b"\0\3\0\1"),
        ("head only", _head(3, 1)),
        ("client that is cut", struct.pack(">hhih", 3, 1, 7, 100) + b"abc"),
        ("client of nobody", struct.pack(">hhih", 3, 1, 7, -1) + struct.pack(">i", 0)),
        ("bytes behind it", _head(3, 1) + struct.pack(">i", 0) + b"more"),
        ("count that is too great", _head(3, 1) + struct.pack(">i", 1 << 30)),
        ("count of -2", _head(3, 1) + struct.pack(">i", -2)),
        ("null where none may be", _head(12, 0) + struct.pack(">h", -1) + struct.pack(">ih", 1, 0)),
        ("text that is none", _head(12, 0) + struct.pack(">h", 2) + b"\xff\xfe" + struct.pack(">ih", 1, 0)),
        ("tags of the header", struct.pack(">hhih", 18, 3, 7, 1) + b"x" + b"\1\5\1a" + b"\2a\2b\0"),
    ):
        peer.raw(note, data)


def bytes_behind(peer):
    """Every request that only asks, with a byte more than it has."""
    for name in sorted(peer.both):
        if not name.startswith(("Describe", "List", "Find", "Metadata", "OffsetFetch", "OffsetForLeaderEpoch")):
            continue
        low, high = peer.both[name]
        for version in range(low, high + 1):
            data = peer.definitions.request(name, version, 1, "differential", {})
            peer.raw(f"{name} {version}", data[4:] + b"\0")


def pipelined(peer):
    """Many requests at once are answered in their order."""
    frames = b"".join(
        struct.pack(">i", len(_head(18, 0, b"x", number))) + _head(18, 0, b"x", number) for number in range(20))
    peer.send(frames)
    peer.note("order", [struct.unpack(">i", peer.receive()[:4])[0] for _ in range(20)])


def login_where_none_is(peer):
    peer.ask("SaslHandshake", 1, "", mechanism="PLAIN")
    peer.ask("SaslAuthenticate", 1, "", authBytes=b"\0a\0b")

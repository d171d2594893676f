"""Kafka's protocol, read from the message definitions that Apache Kafka publishes in its client's jar.

A message is a dict with the names of the definitions. What a request does not name gets its default. An answer has every field
of its version. Nothing here knows of a broker.
"""

import json
import re
import struct
import uuid
import zipfile

FOLDER = "common/message/"
NUMBERS = {
    "int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q", "float64": ">d",
}


class Definitions:
    """All requests and answers of one jar."""

    def __init__(self, jar):
        self.requests, self.responses, self.names = {}, {}, {}
        with zipfile.ZipFile(jar) as archive:
            for entry in archive.namelist():
                if entry.startswith(FOLDER) and entry.endswith(".json"):
                    text = re.sub(r"^\s*//.*$", "", archive.read(entry).decode(), flags=re.M)
                    self._add(json.loads(text))

    def _add(self, message):
        if message["type"] not in ("request", "response") or "fields" not in message:
            return
        message["structs"] = {common["name"]: common for common in message.get("commonStructs", [])}
        for fields in (message["fields"], *(common["fields"] for common in message["structs"].values())):
            rename(fields)
        if message["type"] == "request":
            self.requests[message["name"].removesuffix("Request")] = message
            self.names[message["apiKey"]] = message["name"].removesuffix("Request")
        elif message["type"] == "response":
            self.responses[message["name"].removesuffix("Response")] = message

    def request(self, name, version, correlation, client, body):
        """The bytes of a request, its length in front."""
        message = self.requests[name]
        flexible = within(version, message["flexibleVersions"])
        out = bytearray(struct.pack(">hhi", message["apiKey"], version, correlation))
        write_text(out, client.encode(), False)
        if flexible:
            out.append(0)
        Codec(message, version).write(out, message["fields"], body)
        return struct.pack(">i", len(out)) + bytes(out)

    def response(self, name, version, data):
        """The correlation and the body of an answer; it must end where its fields do."""
        message = self.responses[name]
        reader = Reader(data)
        correlation = reader.number(">i")
        # An answer to ApiVersions never has tags in its header: who asks may not know yet what the broker speaks.
        if name != "ApiVersions" and within(version, message["flexibleVersions"]):
            reader.tags()
        body = Codec(message, version).read(reader, message["fields"])
        if reader.at != len(data):
            raise ValueError(f"{len(data) - reader.at} bytes are left over behind {name} {version}")
        return correlation, body


def rename(fields):
    """Names begin with a small letter, as in Kafka's own prints."""
    for field in fields:
        field["name"] = field["name"][0].lower() + field["name"][1:]
        rename(field.get("fields") or [])


def within(version, text):
    """Whether a version is in a range of a definition: `none`, `3`, `2+` or `0-4`."""
    if not text or text == "none":
        return False
    low, _, high = text.replace("+", "-32767").partition("-")
    return int(low) <= version <= int(high or low)


class Codec:
    """Writes and reads the fields of one version of one message."""

    def __init__(self, message, version):
        self.structs, self.version = message["structs"], version
        self.flexible = within(version, message.get("flexibleVersions"))

    def fields_of(self, field):
        name = field["type"].removeprefix("[]")
        return field.get("fields") or self.structs.get(name, {}).get("fields")

    def write(self, out, fields, body):
        unknown = set(body) - {field["name"] for field in fields}
        if unknown:
            raise ValueError(f"there is no field {sorted(unknown)}")
        tagged = []
        for field in fields:
            if not within(self.version, field["versions"]):
                continue
            value = body.get(field["name"], default(field))
            if within(self.version, field.get("taggedVersions")):
                if field["name"] in body:
                    tagged.append((field["tag"], field, value))
            else:
                self.write_value(out, field, field["type"], value)
        if self.flexible:
            write_size(out, len(tagged))
            for tag, field, value in sorted(tagged, key=lambda entry: entry[0]):
                inner = bytearray()
                self.write_value(inner, field, field["type"], value)
                write_size(out, tag)
                write_size(out, len(inner))
                out += inner

    def write_value(self, out, field, kind, value):
        flexible = self.flexible and field.get("flexibleVersions") != "none"
        if kind in NUMBERS:
            out += struct.pack(NUMBERS[kind], value)
        elif kind == "bool":
            out.append(1 if value else 0)
        elif kind == "uuid":
            out += value.bytes if isinstance(value, uuid.UUID) else uuid.UUID(value).bytes
        elif kind == "string":
            write_text(out, None if value is None else value.encode() if isinstance(value, str) else value, flexible)
        elif kind in ("bytes", "records"):
            if flexible:
                write_size(out, 0 if value is None else len(value) + 1)
            else:
                out += struct.pack(">i", -1 if value is None else len(value))
            out += value or b""
        elif kind.startswith("[]"):
            if flexible:
                write_size(out, 0 if value is None else len(value) + 1)
            else:
                out += struct.pack(">i", -1 if value is None else len(value))
            for item in value or []:
                self.write_value(out, {**field, "nullableVersions": None}, kind[2:], item)
        else:
            if within(self.version, field.get("nullableVersions")):
                out += struct.pack(">b", -1 if value is None else 1)
            if value is not None:
                self.write(out, self.fields_of(field), value)

    def read(self, reader, fields):
        body = {}
        for field in fields:
            if within(self.version, field["versions"]):
                if within(self.version, field.get("taggedVersions")):
                    body[field["name"]] = default(field)
                else:
                    body[field["name"]] = self.read_value(reader, field, field["type"])
        if self.flexible:
            for tag, data in reader.tags():
                known = [f for f in fields if f.get("tag") == tag and within(self.version, f.get("taggedVersions"))]
                if known:
                    body[known[0]["name"]] = self.read_value(Reader(data), known[0], known[0]["type"])
                else:
                    body[f"tag {tag}"] = data.hex()
        return body

    def read_value(self, reader, field, kind):
        flexible = self.flexible and field.get("flexibleVersions") != "none"
        if kind in NUMBERS:
            return reader.number(NUMBERS[kind])
        if kind == "bool":
            return reader.number(">b") != 0
        if kind == "uuid":
            return uuid.UUID(bytes=reader.take(16))
        if kind == "string":
            size = reader.size() - 1 if flexible else reader.number(">h")
            return None if size < 0 else reader.take(size).decode(errors="backslashreplace")
        if kind in ("bytes", "records"):
            size = reader.size() - 1 if flexible else reader.number(">i")
            return None if size < 0 else reader.take(size)
        if kind.startswith("[]"):
            count = reader.size() - 1 if flexible else reader.number(">i")
            inner = {**field, "nullableVersions": None}
            return None if count < 0 else [self.read_value(reader, inner, kind[2:]) for _ in range(count)]
        if within(self.version, field.get("nullableVersions")) and reader.number(">b") < 0:
            return None
        return self.read(reader, self.fields_of(field))


def default(field):
    """What a field is that nobody named."""
    kind, said = field["type"], field.get("default")
    if said == "null":
        return None
    if kind in NUMBERS:
        number = float if kind == "float64" else lambda text: int(str(text), 0)
        return number(said) if said not in (None, "") else 0
    if kind == "bool":
        return str(said).lower() == "true"
    if kind == "uuid":
        return uuid.UUID(int=0)
    if kind == "string":
        return said or ""
    if kind in ("bytes", "records"):
        return b""
    return [] if kind.startswith("[]") else {}


class Reader:
    """Takes bytes one after the other."""

    def __init__(self, data):
        self.data, self.at = bytes(data), 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise ValueError(f"{count} bytes wanted where {len(self.data) - self.at} are left")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def size(self):
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def tags(self):
        return [(self.size(), self.take(self.size())) for _ in range(self.size())]


def write_size(out, value):
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def write_text(out, value, flexible):
    if flexible:
        write_size(out, 0 if value is None else len(value) + 1)
    else:
        out += struct.pack(">h", -1 if value is None else len(value))
    out += value or b""

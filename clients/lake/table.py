"""PyIceberg and DuckDB at cairn-lake's catalog: `table.py CATALOG EVENTS`.

EVENTS is what `cairn tail --from-start --no-follow --json` says. The table must hold each of its events once, at its place and as it is; events that
came since may be there too. Says `ok` and how many, or what is missing, twice or other, with exit code 1.
"""

import json
import pathlib
import sys

import duckdb
import duckdb_extension_avro
import duckdb_extension_httpfs
import duckdb_extension_iceberg
from pyiceberg.catalog import load_catalog


def by_pyiceberg(catalog):
    table = load_catalog("cairn", uri=catalog).load_table("cairn.events")
    columns = ("topic", "partition", "offset", "id", "type", "outcome", "data")
    rows = table.scan(selected_fields=columns).to_arrow().to_pylist()
    # What a filter leaves must be what it says, whichever files it skips.
    calls = table.scan(row_filter="topic = 'mcp.calls' and offset >= 5", selected_fields=("topic", "offset")).to_arrow()
    expected = sum(row["topic"] == "mcp.calls" and row["offset"] >= 5 for row in rows)
    if calls.num_rows != expected:
        sys.exit(f"PyIceberg: {calls.num_rows} rows by a filter, and {expected} without")
    return rows


def by_duckdb(catalog):
    connection = duckdb.connect(config={"allow_unsigned_extensions": "true"})
    for package in (duckdb_extension_avro, duckdb_extension_httpfs, duckdb_extension_iceberg):
        extension = next(pathlib.Path(package.__file__).parent.rglob("*.duckdb_extension"))
        connection.execute(f"LOAD '{extension}'")
    connection.execute(f"ATTACH 'cairn' AS lake (TYPE iceberg, ENDPOINT '{catalog}', AUTHORIZATION_TYPE 'none')")
    question = 'SELECT topic, "partition", "offset", id, type, outcome, data FROM lake.cairn.events'
    names = ("topic", "partition", "offset", "id", "type", "outcome", "data")
    return [dict(zip(names, row)) for row in connection.execute(question).fetchall()]


def compare(engine, rows, events):
    found = {}
    for row in rows:
        place = (row["topic"], row["partition"], row["offset"])
        if place in found:
            sys.exit(f"{engine}: {place} is there twice")
        found[place] = row
    if len({row["id"] for row in rows}) != len(rows):
        sys.exit(f"{engine}: an event is there twice")
    for event in events:
        place = (event["topic"], event["partition"], event["offset"])
        row = found.get(place)
        if row is None:
            sys.exit(f"{engine}: {place} is missing, {len(rows)} rows of {len(events)} events")
        said = (row["id"], row["type"], row["outcome"], json.loads(row["data"]))
        if said != (event["id"], event["type"], event["data"].get("outcome"), event["data"]):
            sys.exit(f"{engine}: {place} is other: {said}")


def main(catalog, path):
    events = [json.loads(line) for line in pathlib.Path(path).read_text().splitlines()]
    for engine, read in (("PyIceberg", by_pyiceberg), ("DuckDB", by_duckdb)):
        rows = read(catalog)
        compare(engine, rows, events)
    print(f"ok {len(events)} events, {len(rows)} rows")


main(*sys.argv[1:])

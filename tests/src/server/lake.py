"""Reads a data lake as its users do, by DuckDB: lake.py DIRECTORY. Prints each row: partition, id, kind, class, name of the process, title."""
import sys

import duckdb

FILES = sys.argv[1] + "/**/*.parquet"
db = duckdb.connect()
columns = dict(db.execute(f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM read_parquet('{FILES}'))").fetchall())
assert columns["time"] == "BIGINT" and columns["class_uid"] == "INTEGER", columns
assert columns["unmapped"] == "MAP(VARCHAR, VARCHAR)", columns["unmapped"]
assert columns["actor"].startswith("STRUCT(process STRUCT(pid INTEGER, "), columns["actor"]
assert columns["resources"].startswith("STRUCT(") and columns["resources"].endswith("[]"), columns["resources"]
codecs = db.execute(f"SELECT DISTINCT compression FROM parquet_metadata('{FILES}')").fetchall()
assert codecs == [("ZSTD",)], codecs
rows = db.execute(
    f"""
    SELECT region || '/' || accountId || '/' || eventDay, metadata.uid, metadata.event_code, class_uid, actor.process.name,
        finding_info.title, strftime(make_timestamp(time * 1000), '%Y%m%d') = CAST(eventDay AS VARCHAR), unmapped['grade'],
        len(finding_info.types), resources[1].uid
    FROM read_parquet('{FILES}', hive_partitioning = true, hive_types_autocast = false, filename = true, file_row_number = true)
    ORDER BY filename, file_row_number
    """
).fetchall()
for partition, uid, kind, number, process, title, of_day, grade, types, fingerprint in rows:
    assert of_day and types == 1 and fingerprint.startswith("kt1:"), (uid, kind, types, fingerprint)
    print(partition, uid, kind, number, process, grade, title, sep="\t")

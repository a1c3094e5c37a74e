"""Reads a shard folder with pyarrow, DuckDB, Polars and Hugging Face datasets, and compares.

    pip install pyarrow duckdb polars datasets pillow
    python tools/read-shards.py shards
"""

import glob
import json
import sys
import tempfile

import datasets
import duckdb
import polars
import pyarrow.parquet

folder = sys.argv[1]
description = json.load(open(f"{folder}/dataset.json"))
datasets.disable_progress_bars()
for split, info in description["splits"].items():
    files = sorted(glob.glob(f"{folder}/{split}-*-of-*.parquet"))
    tables = [pyarrow.parquet.read_table(file) for file in files]
    labels = [label for table in tables for label in table["label"].to_pylist()]
    counts = {label: labels.count(label) for label in set(labels)}
    assert len(labels) == info["images"], (len(labels), info)

    by_duckdb = dict(duckdb.sql(f"select label, count(*) from read_parquet({files}) group by label").fetchall())
    assert by_duckdb == counts, by_duckdb
    by_polars = polars.concat([polars.read_parquet(file, columns=["key", "label"]) for file in files])
    assert by_polars["label"].to_list() == labels
    assert by_polars["key"].n_unique() == len(labels)

    features = None
    if description["shape"] is not None:
        # datasets has no type for bytes of a fixed size, and reads the features in the footer only if asked.
        footer = json.loads(pyarrow.parquet.read_schema(files[0]).metadata[b"huggingface"])
        features = datasets.Features.from_dict(footer["info"]["features"])
    with tempfile.TemporaryDirectory() as cache:
        rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache, features=features)
        label = rows.features["label"]
        if description["classes"]:
            assert label.names == description["classes"], label
        shown = "pixels"
        if description["shape"] is None:
            assert isinstance(rows.features["image"], datasets.Image), rows.features
            # Each image opens, with the size in the table, unless EXIF turns it.
            for row in rows:
                width, height = row["image"].size
                assert sorted((height, width)) == sorted((row["height"], row["width"])), row
            shown = f"images, the first {rows[0]['image']}"
        else:
            pixels = [value for table in tables for value in table["pixels"].to_pylist()]
            assert rows["pixels"][:] == pixels
    print(f"{split}: {len(labels)} rows in {len(files)} files, labels {counts}, datasets shows {shown}")

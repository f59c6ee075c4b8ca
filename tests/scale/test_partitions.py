"""``scale.partition``: any long table becomes files of whole series."""

import gzip
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers import refuses

from fastrnn import scale

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
csv = pytest.importorskip("pyarrow.csv")


def rows(names, steps, seed=0):
    """A long table in the order of time, so that the rows of a series lie apart."""
    rng = np.random.default_rng(seed)
    return pa.table({"unique_id": np.tile(names, steps), "ds": np.repeat(np.arange(steps), len(names)),
                     "y": rng.standard_normal(steps * len(names))})


def by_series(table):
    """{name: its rows as lists}"""
    result = {}
    for name, *values in zip(*(table[column].to_pylist() for column in table.column_names), strict=True):
        result.setdefault(name, []).append(values)
    return result


@pytest.mark.parametrize("names", [[f"shop {n}" for n in range(40)], list(range(40))])
def test_every_series_is_whole_and_in_one_file_alone(tmp_path, names):
    table = rows(names, 30)
    paths = scale.partition(table, out=tmp_path / "parts", partitions=5)
    parts = [by_series(parquet.read_table(path)) for path in paths]
    assert len(parts) == 5 and sum(map(len, parts)) == 40
    assert {name: values for part in parts for name, values in part.items()} == by_series(table)
    for number, part in enumerate(parts):
        assert list(part) == sorted(part)
        # the same file in every process, whatever the order of the rows
        assert all(zlib.crc32(str(name).encode()) % 5 == number for name in part)


def test_the_files_do_not_depend_on_how_the_table_came(tmp_path, monkeypatch):
    from fastrnn.scale import partitions
    pytest.importorskip("pandas")
    table = rows([f"s{n}" for n in range(20)], 25)
    halves = [table.slice(0, 137), table.slice(137)]
    for n, half in enumerate(halves):
        parquet.write_table(half, tmp_path / f"{n}.parquet")
    expected = [Path(path).read_bytes() for path in scale.partition([table], out=tmp_path / "a", partitions=3)]
    values = [by_series(parquet.read_table(tmp_path / "a" / f"part-{n:05d}.parquet")) for n in range(3)]
    monkeypatch.setattr(partitions, "HELD", 1000)           # buckets are appended to many times
    monkeypatch.setattr(partitions, "BLOCK", 50)
    for name, source in {"b": iter(halves), "c": [tmp_path / "0.parquet", tmp_path / "1.parquet"],
                         "d": str(tmp_path / "*.parquet")}.items():
        paths = scale.partition(source, out=tmp_path / name, partitions=3)
        assert [Path(path).read_bytes() for path in paths] == expected
    frames = (half.to_pandas() for half in halves)          # whose text may be of another type of Arrow
    paths = scale.partition(frames, out=tmp_path / "e", partitions=3)
    assert [by_series(parquet.read_table(path)) for path in paths] == values


def test_names_in_csv_files_are_text(tmp_path):
    (tmp_path / "a.csv").write_text("unique_id,ds,y\n0012,2024-01-01,1\n12,2024-01-01,2.5\n0012,2024-01-02,\n")
    path, = scale.partition(tmp_path / "a.csv", out=tmp_path / "parts")
    assert by_series(parquet.read_table(path, columns=["unique_id", "y"])) == {"0012": [[1.0], [None]], "12": [[2.5]]}


def test_the_number_of_files_follows_from_the_rows(tmp_path, monkeypatch):
    from fastrnn.scale import partitions
    monkeypatch.setattr(partitions, "ROWS", 100)
    table = rows(list(range(10)), 35)
    parquet.write_table(table, tmp_path / "a.parquet")
    csv.write_csv(table, tmp_path / "b.csv")
    assert len(scale.partition(tmp_path / "a.parquet", out=tmp_path / "a")) == 4
    assert len(scale.partition(tmp_path / "b.csv", out=tmp_path / "b")) == 4


def test_what_cannot_be_partitioned_is_refused_and_nothing_is_left(tmp_path):
    table, out = rows(["a", "b"], 3), tmp_path / "parts"

    def refused(error, name, words, *arguments, **options):
        with refuses(error, name, words):
            scale.partition(*arguments, out=out, **options)

    refused(ValueError, "partitions", "expected the number of files to make", table)
    refused(ValueError, "by", "frame 0 has no column 'shop', only unique_id, ds, y", table, by="shop", partitions=1)
    refused(TypeError, "by", "expected the name of a column", table, by=3, partitions=1)
    unnamed = pa.table({"unique_id": ["a", None], "y": [1.0, 2.0]})
    refused(ValueError, "by", "rows without a name of their series", unnamed, partitions=1)
    other = pa.table({"unique_id": ["a"], "z": [1.0]})
    refused(ValueError, "files", "the columns unique_id, ds, y everywhere", [table, other], partitions=1)
    words = pa.table({"unique_id": ["a"], "ds": [1], "y": ["much"]})
    refused(ValueError, "files", "do not fit the types of the first one", [table, words], partitions=1)
    refused(ValueError, "files", "expected rows", iter(()), partitions=1)
    refused(TypeError, "files", "expected frames of pandas, polars or pyarrow", [3], partitions=1)
    refused(FileNotFoundError, "files", "there is no file", str(tmp_path / "none.csv"))
    refused(ValueError, "files", "expected a folder or a name that ends in", str(tmp_path / "none.xls"))
    assert list(tmp_path.iterdir()) == []
    scale.partition(table, out=out, partitions=1)
    refused(FileExistsError, "out", "there is a folder", table, partitions=1)


def test_compressed_files_and_batches_are_tables_too(tmp_path):
    table = rows(["a", "b"], 4)
    csv.write_csv(table, tmp_path / "plain.csv")
    (tmp_path / "packed.csv.gz").write_bytes(gzip.compress((tmp_path / "plain.csv").read_bytes()))
    expected = [Path(path).read_bytes() for path in scale.partition(tmp_path / "plain.csv", out=tmp_path / "a",
                                                                    partitions=2)]
    paths = scale.partition(tmp_path / "packed.csv.gz", out=tmp_path / "b", partitions=2)
    assert [Path(path).read_bytes() for path in paths] == expected
    path, = scale.partition(table.to_batches(), out=tmp_path / "c", partitions=1)
    assert by_series(parquet.read_table(path)) == by_series(table)


def test_sources_without_a_file_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    for source, words in (([tmp_path / "empty"], f"the folder {tmp_path / 'empty'} has no file that ends in .parquet"),
                          (str(tmp_path / "*.csv"), f"no file is called {tmp_path / '*.csv'}")):
        with refuses(ValueError, "files", words):
            scale.partition(source, out=tmp_path / "out", partitions=1)
    assert not (tmp_path / "out").exists()

"""Tables as strangers bring them: each is read right, or refused by a line that names the place."""

import bz2
import gzip
import io
import lzma
import math
import os
import subprocess
import sys
import threading
import zipfile

import numpy as np
import pytest

from fastrnn import cli, datasets
from fastrnn.cli import numerals, tables, times
from fastrnn.cli.common import numeric_columns
from fastrnn.cli.tables import Dialect, TableError

NAN = math.nan


def written(path, content, encoding="utf-8"):
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def iso(table, *names):
    """The times of columns, as text."""
    return tables.iso_times(table.time_column(names, "--time").values)


# ---- Read right -----------------------------------------------------------------------------------

RIGHT = {
    # what it is: (contents, dialect, values of the column v)
    "Excel, German": ("Zeit;v\r\n31.01.2024 12:00;1.234,5\r\n31.01.2024 13:00;2,25\r\n", {}, [1234.5, 2.25]),
    "Excel, German, whole thousands beside decimals": ("v;w\n1.234;0,5\n12.500;1,5\n", {}, [1234, 12500]),
    "Excel, French": ("v;w\n1\u202f234,5;1\n2\u00a0345\u00a0678,0;2\n12 345,5;3\n", {}, [1234.5, 2345678, 12345.5]),
    "Excel, English, thousands": ('v,w\n"1,234.5",1\n"12,345",2\n', {}, [1234.5, 12345]),
    "thousands alone, beside points": ('v,w\n"1,234",1.5\n"5,678",2.5\n', {}, [1234, 5678]),
    "Swiss": ("v,w\n1'234.50,1\n2’345.00,2\n", {}, [1234.5, 2345]),
    "decimal comma, one column": ("v\n1,5\n-2,5\n", {}, [1.5, -2.5]),
    "decimal comma, quoted between commas": ('v,w\n"1,5",a\n"2,5",b\n', {}, [1.5, 2.5]),
    "decimal comma, told": ('v\n"1,234"\n"5,678"\n', {"decimal": ","}, [1.234, 5.678]),
    "thousands, told": ('v\n"1,234"\n"5,67,890"\n', {"thousands": ","}, [1234, 567890]),
    "percent": ("v\n45%\n3.5 %\n", {}, [45, 3.5]),
    "euros": ("v;w\n€ 1.000,50;1\n€ 3,00;2\n", {}, [1000.5, 3]),
    "minus signs of printing": ("v,w\n\N{MINUS SIGN}5,1\n- 3,2\n+2,3\n", {}, [-5, -3, 2]),
    "spellings of missing": ("v,w\n#N/A,1\nNaN,1\n-,1\nNULL,1\n n/a ,1\nk.A.,1\n.,1\n,1\n7,1\n", {}, [NAN] * 8 + [7]),
    "missing, told": ("v\n-9999\n-9999.0\nerror\n7\n", {"missing": ("-9999", "error")}, [NAN, NAN, NAN, 7]),
    "quoted numbers": ('"v","w"\n"1.5","2"\n"3","4"\n', {}, [1.5, 3]),
    "tabs": ("w\tv\n1,5 kg\t1\n2,5 kg\t2\n", {}, [1, 2]),
    "pipes": ("w|v\na|1\nb|2\n", {}, [1, 2]),
    "spaces": ("  v   w\n  1   10\n 20    3\n", {}, [1, 20]),
    "delimiter, told": ("w;x,v\n1;2,3\n4;5,6\n", {"delimiter": ","}, [3, 6]),
    "Excel's line of the delimiter": ("sep=;\r\nv;w\r\n1,5;2\r\n2,5;3\r\n", {}, [1.5, 2.5]),
    "more commas than semicolons in names": ("v;w (a, b)\n1;2,5\n2;3,5\n", {}, [1, 2]),
    "units in the header": ("time,v,w [kWh]\n2024-01-01,1,2\n2024-01-02,3,4\n", {}, [1, 3]),
    "cells with line breaks": ('note,v\n"two\nlines, and ""more""",1\nx,2\n', {}, [1, 2]),
    "empty lines, empty rows at the end": ("v,w\n\n1,2\n\n3,4\n,\n,\n\n", {}, [1, 3]),
    "empty columns at the right": ("v;w;;\n1;2;;\n3;4;;\n", {}, [1, 3]),
    "delimiters at the ends of rows": ("v,w\n1,2,\n3,4,\n", {}, [1, 3]),
    "comments": ("# made by a logger\n#\nv,w\n1,2\n3,4\n", {}, [1, 3]),
    "a header in a comment": ("# logger 7\n# v, w\n1,2\n3,4\n", {}, [1, 3]),
    "lines before the header": ("Report\n\nv,w\n1,2\n3,4\n", {"skip": 1}, [1, 3]),
    "old line ends": ("v,w\r1,2\r3,4\r", {}, [1, 3]),
    "one row": ("v,w\n1,2\n", {}, [1]),
    "negative zero, exponents, huge whole numbers": ("v,w\n-0.0,1\n1E-3,2\n1e+5,3\n123456789012345678901234,4\n", {},
                                                     [-0.0, 1e-3, 1e5, 123456789012345678901234.0]),
    "points at the ends": ("v,w\n1.,1\n.5,2\n", {}, [1, 0.5]),
}


@pytest.mark.parametrize("case", RIGHT)
def test_an_odd_table_is_read_right(case, tmp_path, capsys):
    content, dialect, expected = RIGHT[case]
    table = tables.read(written(tmp_path / "t.csv", content), Dialect(**dialect))
    np.testing.assert_array_equal(table.numbers("v", "--target"), expected)
    assert np.array_equal(np.signbit(table.numbers("v", "--target")), np.signbit(expected))
    noted = capsys.readouterr().err
    assert all(line.startswith("note: ") for line in noted.splitlines())
    assert ("decimal comma" in noted) == (not dialect and any(
        words in case for words in ("German", "French", "decimal comma", "euros", "Excel's line")))


@pytest.mark.parametrize("content, encoding", [
    ("v;Größe\n1;2\n3;4\n", "utf-8-sig"), ("v;Größe\n1;2\n3;4\n", "utf-16"), ("v\tGröße\n1\t2\n3\t4\n", "utf-32"),
    ("v;Größe\n1;2\n3;4\n", "cp1252"), ("v;Größe\n1;2\n3;4\n", "utf-16-le")])
def test_encodings(content, encoding, tmp_path):
    path = written(tmp_path / "t.csv", content, encoding)
    told = None if encoding in ("utf-8-sig", "utf-16", "utf-32") else encoding
    assert list(tables.read(path, Dialect(encoding=told)).columns) == ["v", "Größe"]
    if told:
        with pytest.raises(TableError, match="--encoding"):
            tables.read(path)
    else:               # a mark is no part of the text where the encoding is named, too
        path = written(tmp_path / "marked.csv", "\ufeff" + content, "utf-16-le")
        assert list(tables.read(path, Dialect(encoding="utf-16-le")).columns) == ["v", "Größe"]


def test_without_a_header(tmp_path):
    table = tables.read(written(tmp_path / "t.csv", "2024-01-01,5\n2024-01-02,6\n"), Dialect(header=False))
    assert table.columns == {"column1": ["2024-01-01", "2024-01-02"], "column2": ["5", "6"]}
    assert table.lines == [1, 2]


def test_a_first_column_without_a_name_is_the_index(tmp_path):
    table = tables.read(written(tmp_path / "t.csv", ",v\n0,5\n1,6\n"))
    assert list(table.columns) == ["index", "v"]


# ---- Times ----------------------------------------------------------------------------------------

TIMES = {
    # how they are written: (cells, date_format, as they are read, as the column writes the step after the last)
    "ISO, T": (["2024-01-31T22:00", "2024-01-31T23:00"], None, ["2024-01-31T22:00", "2024-01-31T23:00"],
               "2024-02-01T00:00"),
    "ISO, space and seconds": (["2024-01-31 22:00:00", "2024-01-31 23:00:00"], None,
                               ["2024-01-31T22:00", "2024-01-31T23:00"], "2024-02-01 00:00:00"),
    "Z": (["2024-01-31T22:00Z", "2024-01-31T23:00Z"], None, ["2024-01-31T22:00", "2024-01-31T23:00"],
          "2024-02-01T00:00Z"),
    "UTC as a word": (["2024-01-31 22:00 UTC", "2024-01-31 23:00 UTC"], None,
                      ["2024-01-31T22:00", "2024-01-31T23:00"], "2024-02-01 00:00 UTC"),
    "offset": (["2024-01-31 22:00+01:00", "2024-01-31 23:00+01:00"], None, ["2024-01-31T22:00", "2024-01-31T23:00"],
               "2024-02-01 00:00+01:00"),
    "offset without a colon": (["2024-01-31T22:00:00 -0530", "2024-01-31T23:00:00 -0530"], None,
                               ["2024-01-31T22:00", "2024-01-31T23:00"], "2024-02-01T00:00:00 -0530"),
    "clock change": (["2024-03-31T01:00+01:00", "2024-03-31T03:00+02:00"], None,
                     ["2024-03-31T00:00", "2024-03-31T01:00"], "2024-03-31T04:00+02:00"),
    "milliseconds": (["2024-01-31 22:00:00.500", "2024-01-31 22:00:01.500"], None,
                     ["2024-01-31T22:00:00.500", "2024-01-31T22:00:01.500"], "2024-01-31 22:00:02.500"),
    "dates": (["2024-01-30", "2024-01-31"], None, ["2024-01-30", "2024-01-31"], "2024-02-01"),
    "dates with slashes, year first": (["2024/1/30", "2024/1/31"], None, ["2024-01-30", "2024-01-31"], "2024/02/01"),
    "German": (["30.01.2024 23:00", "31.01.2024 00:00"], None, ["2024-01-30T23:00", "2024-01-31T00:00"],
               "31.01.2024 01:00"),
    "German, points are sure": (["01.02.2024", "02.02.2024"], None, ["2024-02-01", "2024-02-02"], "03.02.2024"),
    "day first, one is past 12": (["12/01/2024", "13/01/2024"], None, ["2024-01-12", "2024-01-13"], "14/01/2024"),
    "12-hour clock, month first": (["1/31/2024 11:00 AM", "1/31/2024 12:00 PM"], None,
                                   ["2024-01-31T11:00", "2024-01-31T12:00"], "01/31/2024 01:00 PM"),
    "midnight of the 12-hour clock": (["01/31/2024 11:30:00 p.m.", "02/01/2024 12:30:00 a.m."], None,
                                      ["2024-01-31T23:30", "2024-02-01T00:30"], "02/01/2024 01:30:00 AM"),
    "24:00 ends the day": (["31.01.2024 23:00", "31.01.2024 24:00"], None, ["2024-01-31T23:00", "2024-02-01T00:00"],
                           "01.02.2024 01:00"),
    "Unix, s": (["1706700000", "1706703600"], None, ["2024-01-31T11:20", "2024-01-31T12:20"], "1706707200"),
    "Unix, ms": (["1706700000000", "1706703600000"], None, ["2024-01-31T11:20", "2024-01-31T12:20"], "1706707200000"),
    "Unix, ns": (["1706700000000000000", "1706703600000000000"], None, ["2024-01-31T11:20", "2024-01-31T12:20"],
                 "1706707200000000000"),
    "Unix, a fraction": (["1706700000.5", "1706700001.0"], None, ["2024-01-31T11:20:00.500", "2024-01-31T11:20:01.000"],
                         "1706700001.5"),
    "hours without marks": (["2024013122", "2024013123"], None, ["2024-01-31T22:00", "2024-01-31T23:00"], "2024020100"),
    "dates without marks": (["20240130", "20240131"], None, ["2024-01-30", "2024-01-31"], "20240201"),
    "months": (["2023-11", "2023-12"], None, ["2023-11-01", "2023-12-01"], "2024-01"),
    "quarters": (["2023Q3", "2023Q4"], None, ["2023-07-01", "2023-10-01"], "2024Q1"),
    "years": (["2023", "2024"], None, ["2023-01-01", "2024-01-01"], "2025"),
    "day numbers of Excel, told": (["45322.5", "45323.0"], "excel", ["2024-01-31T12:00", "2024-02-01T00:00"],
                                   "45323.5"),
    "ambiguous, told": (["01/02/2024", "02/02/2024"], "%d/%m/%Y", ["2024-02-01", "2024-02-02"], "03/02/2024"),
    "two figures of the year, told": (["30.01.24", "31.01.24"], "%d.%m.%y", ["2024-01-30", "2024-01-31"], "01.02.24"),
    "month names, told": (["30-Jan-2024", "31-Jan-2024"], "%d-%b-%Y", ["2024-01-30", "2024-01-31"], "01-Feb-2024"),
    "an offset, told": (["30 01 2024 22 +0100", "30 01 2024 23 +0100"], "%d %m %Y %H %z",
                        ["2024-01-30T22:00", "2024-01-30T23:00"], "31 01 2024 00 +0100"),
    "days over a clock change": (["2024-03-30T00:00+01:00", "2024-03-31T00:00+01:00", "2024-04-01T00:00+02:00"], None,
                                 ["2024-03-30", "2024-03-31", "2024-04-01"], "2024-04-02T00:00+02:00"),
}


@pytest.mark.parametrize("case", TIMES)
def test_times_are_read_and_written_as_they_were(case):
    cells, date_format, expected, following = TIMES[case]
    column = times.read(cells, date_format)
    assert column.values.tolist() == np.array(expected, "datetime64[us]").tolist()
    step = column.values[1] - column.values[0]
    after = column.values[-1] + step
    if case in ("months", "quarters", "years"):
        after = (column.values[1].astype("datetime64[M]")
                 + {"months": 1, "quarters": 3, "years": 12}[case]).astype("datetime64[us]")
    assert column.style.texts(np.array([after])) == [following]
    if "," not in case and "12-hour" not in case and case not in (
            "24:00 ends the day", "clock change", "days over a clock change"):
        again = times.read(column.style.texts(column.values), date_format)
        assert np.array_equal(again.values, column.values)


def test_date_and_time_in_two_columns(tmp_path):
    table = tables.read(written(tmp_path / "t.csv", "date;time;v\n31.01.2024;12:00;1\n31.01.2024;13:30;2\n"))
    assert iso(table, "date", "time") == ["2024-01-31T12:00", "2024-01-31T13:30"]


@pytest.mark.parametrize("cells, date_format, words", [
    (["01/02/2024", "02/02/2024"], None, "row 0.*--date-format"),
    (["13/01/2024", "01/13/2024"], None, "row 1.*'13/01/2024' has the day first"),
    (["30.01.24"], None, "row 0.*no year of four figures.*--date-format"),
    (["2024-01-01", "2024-13-01"], None, "row 1.*no such time"),
    (["2024-01-01", "2024-02-30"], None, "row 1.*no such time"),
    (["31.04.2024"], None, "row 0.*no such time"),
    (["1/31/2024 13:00 PM"], None, "row 0.*no such time"),
    (["Ja. 31, 2024"], None, "row 0.*--date-format"), (["Jan 31, 2024", "31 Jan 2024"], None, "row 1.*%b %d, %Y"),
    (["45322.5"], None, "row 0.*--date-format"),
    (["7", "8"], None, "row 0.*--date-format"),
    (["2024-01-31", ""], None, "row 1.*expected a time"),
    (["2024-01-31", "Total"], None, "row 1.*'Total'"),
    (["2024-01-31"], "%d.%m.%Y", "row 0.*%d.%m.%Y"),
    (["2024-01-31"], "s", "row 0.*--date-format s"),
    (["99999999999999"], "s", "row 0.*7000 years"),
    (["0001-01-01T00:00+01:00", "0001-01-01T01:00Z"], None, "row 0.*year from 1"),
])
def test_times_that_are_none_or_two(cells, date_format, words):
    with pytest.raises(times.TimeFault) as fault:
        times.read(cells, date_format)
    row, *parts = words.split(".*")
    assert f"row {fault.value.row}" == row
    for part in parts:
        assert part in str(fault.value)


# ---- Refused by name ------------------------------------------------------------------------------

REFUSED = {
    # what it is: (contents, words of the message)
    "empty": (b"", "is empty"),
    "blank": (b"\n \n\n", "is empty"),
    "Excel's line alone": (b"sep=;\n", "is empty"),
    "comments alone": (b"# a\n# b\n", "is empty"),
    "a header alone": (b"time,v\n", "a header and no rows"),
    "no header": (b"2024-01-01,5\n2024-01-02,6\n", "--no-header"),
    "numbers for a header": (b"1,2\n3,4\n", "numbers alone"),
    "a name twice": (b"v,w,v\n1,2,3\n", "has 'v' twice, in columns 1 and 3"),
    "no name": (b"v,,w\n1,2,3\n", "column 2 of the header has no name"),
    "a short row": (b"v,w\n1,2\n3\n", "line 3 has 1 cells, the header has 2"),
    "a long row": (b"v,w\n1,2\n3,4,5\n", "line 3 has 3 cells, the header has 2"),
    "a title above the header": (b"Report of May\nv,w\n1,2\n", "line 2 has 2 cells, the header has 1"),
    "decimal commas between commas": (b"v,w\n1,5,2,5\n", "line 2 has 4 cells, the header has 2"),
    "a quote that does not end": (b'v,w\n1,2\n3,"4\n5,6\n', "line"),
    "a row of totals": (b"v,w\n1,a\n2,b\n3,Total\n", "line 4 looks like a row of totals ('Total')"),
    "Latin 1": ("v,Größe\n1,2\n".encode("latin-1"), "line 1: this is no UTF-8 text"),
    "UTF-16 without a mark": ("v,w\n1,2\n".encode("utf-16-le"), "--encoding utf-16-le"),
    "half of UTF-16": ("v,w\n1,2\n".encode("utf-16")[:-1], "no text in the encoding utf-16"),
    "one number or another": (b'v\n"1,234"\n"5,678"\n', "line 2, column 'v': '1,234' may be 1234 or 1.234: --decimal"),
    "points and commas": (b"v;w\n1,5;1\n2.5;2\n", "line 3, column 'v': expected a number, got '2.5', and others"),
    "an error of a spreadsheet": (b"v\n1\n2\n#DIV/0!\n", "line 4, column 'v': expected a number, got '#DIV/0!' (--"),
    "percent in some cells": (b"v\n45%\n3\n", "line 2, column 'v': expected a number, got '45%'"),
    "a unit behind a number": (b"v\n45 kWh\n", "line 2, column 'v': expected a number, got '45 kWh'"),
    "underscores": (b"v\n1_000\n", "line 2, column 'v': expected a number, got '1_000'"),
    "a number beyond all": (b"v\n1\n1e999\n", "line 3, column 'v': expected a number within 1e+30"),
    "huge": (b"v\n1\n" + b"9" * 400 + b"\n", "line 3, column 'v': expected a number within 1e+30"),
    "groups that are none": (b'v,w\n"1,23,4",1\n', "line 2, column 'v': expected a number, got '1,23,4'"),
    "zero bytes": (b"v,w\n1,2\n" + b"\n" * 1000 + b"\0,1\n", "line 1003, column 'v': expected a number"),
    "a broken archive": (gzip.compress(b"v\n1\n")[:-9], "cannot be unpacked"),
    "another broken archive": (bz2.compress(b"v\n1\n")[:-9], "cannot be unpacked"),
    "a workbook that is none": (b"PK\x03\x04 and no more", "cannot be unpacked"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_odd_table_is_refused_by_name(case, tmp_path):
    content, words = REFUSED[case]
    path = written(tmp_path / "t.csv", content)
    with pytest.raises(TableError) as error:
        tables.read(path).numbers("v", "--target")
    message = str(error.value)
    assert words in message and message.startswith(str(path)) and "\n" not in message


def test_what_no_command_reads_may_be_anything(tmp_path):
    table = tables.read(written(tmp_path / "t.csv", 'v,w\n1,"1,234"\n2,x\n'))
    assert table.numeric() == ["v"]


def test_doubtful_numbers_are_not_passed_over(tmp_path):
    table = tables.read(written(tmp_path / "t.csv", 'v,w\n1,"1,234"\n2,"2,345"\n'))
    with pytest.raises(TableError, match="column 'w': '1,234' may be"):
        table.numeric()


def test_a_column_with_a_bad_cell_is_left_out_and_that_is_said(tmp_path, capsys):
    table = tables.read(written(tmp_path / "t.csv", "v,w\n1,1\n2,2\n3,high\n4,4\n"))
    assert table.numeric() == ["v"]
    assert "column 'w' is left out: line 4" in capsys.readouterr().err


def test_a_column_that_is_not_there_gets_a_suggestion(tmp_path):
    table = tables.read(written(tmp_path / "t.csv", "time,Load\n1,1\n"))
    with pytest.raises(TableError, match=r"no column 'load', only 'time', 'Load'; did you mean 'Load'\?"):
        table.numbers("load", "--target")


# ---- Columns that only tell rows apart ----------------------------------------------------------------

@pytest.mark.parametrize("name, cells", [
    ("id", [17, 3, 99, 4, 20, 8]), ("customer_id", [5, 5, 7, 7, 9, 9]), ("anything", [10, 11, 12, 13, 14, 15]),
    ("seconds", [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), ("row", [1, 2, 3, 5, 8, 9]), ("Unnamed: 0", [0, 1, 3, 4, 5, 9]),
    ("ts", [1706700000, 1706703600, 1706710800, 1706714400, 1706718000, 1706721600]),
    ("t", [1706703600000, 1706700000000, 1706710800000, 1706714400000, 1706718000000, 1706721600000]),
    ("year", [2019, 2020, 2020, 2022, 2023, 2024]),
])
def test_a_column_that_only_tells_rows_apart_is_no_input(name, cells, tmp_path, capsys):
    values = [3, 1, 4, 1, 5, 9]
    lines = [f"{name},v", *(f"{cell},{value}" for cell, value in zip(cells, values, strict=True))]
    table = tables.read(written(tmp_path / "t.csv", "\n".join(lines)))
    assert numeric_columns(table) == ["v"]
    assert f"column {name!r} is left out" in capsys.readouterr().err
    np.testing.assert_array_equal(table.numbers(name, "--columns"), cells)      # if it is asked for


@pytest.mark.parametrize("name, cells", [
    ("v", [1, 2, 2, 3, 4, 5]), ("price index", [100, 101, 103, 102, 104, 105]), ("grid", [1, 2, 4, 8, 16, 32]),
    ("counter", [3, 2, 1, 4, 5, 6]), ("month", [1, 2, 3, 4, 6, 1])])
def test_a_column_of_values_is_an_input(name, cells, tmp_path):
    table = tables.read(written(tmp_path / "t.csv", "\n".join([name, *map(str, cells)])))
    assert numeric_columns(table) == [name]


def test_where_there_is_nothing_else_it_is_named(tmp_path):
    table = tables.read(written(tmp_path / "t.csv", "\n".join(["n", *map(str, range(9))])))
    with pytest.raises(TableError, match="no column of numbers but 'n'; --columns names it"):
        numeric_columns(table)


# ---- Order and duplicates -----------------------------------------------------------------------------

def test_rows_are_sorted_by_time_and_that_is_said(tmp_path, capsys):
    lines = ["time,v", "2024-01-03,3", "2024-01-01,1", "2024-01-02,2"]
    assert cli.main(["detect", str(written(tmp_path / "t.csv", "\n".join(lines))), "--time", "time", "--out", "-"]) == 0
    out, err = capsys.readouterr()
    assert [line.split(",")[0] for line in out.splitlines()] == ["time", "2024-01-01", "2024-01-02", "2024-01-03"]
    assert "rows are sorted by time" in err


@pytest.mark.parametrize("command", [("detect", "--columns", "v"), ("forecast", "--target", "v", "--horizon", "1")])
@pytest.mark.parametrize("series", [None, "s"])
def test_times_twice_are_named_by_line(command, series, tmp_path, capsys):
    lines = ["time,s,v", *(f"2024-01-{day:02},{name},{day}" for day in range(1, 9) for name in "ab")]
    if series is None:
        lines = [line for line in lines if ",b," not in line]
    lines.append(lines[3].rpartition(",")[0] + ",9")
    path = written(tmp_path / "t.csv", "\n".join(lines))
    name, *options = command
    assert cli.main([name, str(path), *options, "--time", "time", *(["--series", series] if series else [])]) == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert f"line 4 and line {len(lines)}" in err and "have the same time, 2024-01-0" in err
    assert ("of series 'a'" in err) == bool(series)


@pytest.mark.parametrize("cells, first, later, text", [
    (["1/2023", "2/2023"], "2023-01-01", "2023-03-01", "03/2023"),
    (["12.2023", "01.2024"], "2023-12-01", "2024-02-01", "02.2024"),
    (["2023 Jan", "2023 Feb"], "2023-01-01", "2023-03-01", "2023 Mar"),
    (["January 2023", "February 2023"], "2023-01-01", "2023-03-01", "March 2023"),
    (["31-Dec-2023", "1-Jan-2024"], "2023-12-31", "2024-01-02", "02-Jan-2024"),
    (["Dec 31, 2023", "Jan 1, 2024"], "2023-12-31", "2024-01-02", "Jan 02, 2024"),
    (["2023-W52", "2024-W01"], "2023-12-25", "2024-01-08", "2024-W02"),
    (["31 Dec 2023 23:00", "01 Jan 2024 00:00"], "2023-12-31T23:00", "2024-01-01T01:00", "01 Jan 2024 01:00")])
def test_times_in_words_and_weeks(cells, first, later, text):
    column = times.read(cells)
    assert column.values[0] == np.datetime64(first)
    assert column.style.texts(np.array([later], "datetime64[us]")) == [text]


@pytest.mark.parametrize("command", [("detect",), ("forecast", "--horizon", "1", "--blend", "naive")])
def test_a_column_that_may_tell_series_apart_is_named(command, tmp_path, capsys):
    lines = ["time,shop,v", *(f"2024-01-{day:02},{name},{day}.5" for name in ("one", "two") for day in range(1, 13))]
    path, (name, *options) = written(tmp_path / "t.csv", "\n".join(lines)), command
    assert cli.main([name, str(path), *options, "--time", "time"]) == 1
    assert "(--series 'shop' tells series apart, --resample" in capsys.readouterr().err
    assert cli.main([name, str(path), *options]) == 0
    assert "column 'shop' may tell series apart; --series 'shop' makes one of each" in capsys.readouterr().err
    assert cli.main([name, str(path), *options, "--time", "time", "--series", "shop"]) == 0
    assert "may tell series apart" not in capsys.readouterr().err


def test_a_table_of_a_few_rows_is_forecast(tmp_path, capsys):
    path = written(tmp_path / "t.csv", "v\n3\n4\n")
    assert cli.main(["forecast", str(path), "--horizon", "1", "--blend", "naive", "--out", "-"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("step,v") and "2 steps are too few to leave out the last 2" in err
    assert cli.main(["forecast", str(path), "--horizon", "1", "--held-out", "2"]) == 1
    assert "too few to train on all but the last 2 (--held-out)" in capsys.readouterr().err
    assert cli.main(["forecast", str(written(path, "v\n3\n")), "--horizon", "1"]) == 1
    assert "series 'v' has 1 step, expected two or more" in capsys.readouterr().err


def test_a_file_of_a_similar_name_is_named(tmp_path, capsys):
    written(tmp_path / "sales.csv", "v\n3\n4\n")
    assert cli.main(["detect", str(tmp_path / "slaes.csv")]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "No such file: " in err and f"did you mean {str(tmp_path / 'sales.csv')!r}?" in err


# ---- Where tables come from ---------------------------------------------------------------------------

TEXT = b"time,v\n2024-01-01,1\n2024-01-02,2\n2024-01-03,4\n"


def zipped(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, TEXT)
    return file.getvalue()


@pytest.mark.parametrize("name, data", [
    ("t.csv.gz", gzip.compress(TEXT)), ("t.gz", gzip.compress(TEXT)), ("t.csv.bz2", bz2.compress(TEXT)),
    ("t.tsv.xz", lzma.compress(TEXT)), ("t.zip", zipped("inner/t.csv")), ("t.csv", gzip.compress(TEXT))])
def test_compressed(name, data, tmp_path):
    assert tables.read(written(tmp_path / name, data)).numbers("v", "").tolist() == [1, 2, 4]


def test_an_archive_of_several_files(tmp_path):
    with pytest.raises(TableError, match="archive of one file, it has 2"):
        tables.read(written(tmp_path / "t.zip", zipped("a.csv", "b.csv")))


@pytest.mark.parametrize("data", [TEXT, gzip.compress(TEXT)])
def test_standard_input(data, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert cli.main(["detect", "-", "--time", "time", "--out", "-"]) == 0
    assert capsys.readouterr().out.startswith("time,score,anomaly,column\n2024-01-01,0.0,0,\n")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(TEXT,))
    writer.start()
    assert tables.read(tmp_path / "pipe").numbers("v", "").tolist() == [1, 2, 4]
    writer.join()


def test_weather_is_the_table_that_ships(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert list(tables.read("weather").columns) == list(tables.read(datasets.WEATHER).columns)
    written(tmp_path / "weather", TEXT)
    with pytest.raises(TableError, match="expected a name that ends in"):        # a file of this name comes first
        tables.read("weather")


@pytest.mark.parametrize("name", ["t.xls", "t.pdf", "t", "t.csv.7z"])
def test_other_endings_are_refused(name, tmp_path):
    with pytest.raises(TableError, match=r"save it as|expected a name"):
        tables.read(written(tmp_path / name, TEXT))


# ---- Workbooks and frames -----------------------------------------------------------------------------

def test_workbooks(tmp_path, capsys):
    openpyxl = pytest.importorskip("openpyxl")
    import datetime
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "data"
    sheet.append(["when", "v", "text"])
    for day, value in ((30, 1.234), (31, None), (29, 5)):
        sheet.append([datetime.datetime(2024, 1, day, 13), value, "1,5"])
    book.create_sheet("notes").append(["nothing"])
    book.save(tmp_path / "t.xlsx")
    table = tables.read(tmp_path / "t.xlsx")
    assert "the sheet 'data' is read, the first of 2" in capsys.readouterr().err
    np.testing.assert_array_equal(table.numbers("v", ""), [1.234, NAN, 5])      # not 1234, whatever the text has
    assert table.numbers("text", "").tolist() == [1.5] * 3
    assert iso(table, "when") == ["2024-01-30T13:00", "2024-01-31T13:00", "2024-01-29T13:00"]
    assert table.where(1) == "row 3"
    for name in ("2", "notes"):
        with pytest.raises(TableError, match="a header and no rows"):
            tables.read(tmp_path / "t.xlsx", Dialect(sheet=name))
    with pytest.raises(TableError, match="no sheet 'more', only 'data', 'notes'"):
        tables.read(tmp_path / "t.xlsx", Dialect(sheet="more"))


def test_a_broken_workbook(tmp_path):
    pytest.importorskip("openpyxl")
    for data in (b"none", zipped("[Content_Types].xml")):
        with pytest.raises(TableError, match="openpyxl cannot read this"):
            tables.read(written(tmp_path / "t.xlsx", data))


def test_workbooks_without_openpyxl_say_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    assert cli.main(["detect", str(written(tmp_path / "t.xlsx", zipped("[Content_Types].xml")))]) == 1
    assert "pip install openpyxl" in capsys.readouterr().err


@pytest.mark.parametrize("library", ["polars", "pandas"])
@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_frames_keep_offsets_index_and_missing_values(library, kind, tmp_path, monkeypatch):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pytest.importorskip(library)
    if library == "pandas":
        monkeypatch.setitem(sys.modules, "polars", None)
    index = pandas.date_range("2024-01-31", periods=3, freq="h", tz="Europe/Berlin", name="when")
    frame = pandas.DataFrame({"v": pandas.array([1, None, 3], "Int64"), "w": [1.5, 2, 3]}, index=index)
    path = tmp_path / f"t.{kind}"
    frame.to_parquet(path) if kind == "parquet" else frame.reset_index().to_feather(path)
    table = tables.read(path)
    np.testing.assert_array_equal(table.numbers("v", ""), [1, NAN, 3])
    column = table.time_column(("when",), "--time")
    assert tables.iso_times(column.values) == ["2024-01-31T00:00", "2024-01-31T01:00", "2024-01-31T02:00"]
    assert column.style.texts(column.values)[0].replace("T", " ") == "2024-01-31 00:00:00+01:00"


# ---- What is written ----------------------------------------------------------------------------------

def test_formats_of_output(tmp_path):
    import json
    columns = {"when": ["2024-01-31T00:00Z", "2024-01-31T01:00Z"], "v": np.array([1.5, NAN])}
    for name in ("t.csv.gz", "t.jsonl", "t.json", "t.csv"):
        tables.write(str(tmp_path / name), columns)
    text = "when,v\n2024-01-31T00:00Z,1.5\n2024-01-31T01:00Z,\n"
    assert gzip.decompress((tmp_path / "t.csv.gz").read_bytes()).decode() == text == (tmp_path / "t.csv").read_text()
    lines = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert lines == [{"when": "2024-01-31T00:00Z", "v": 1.5}, {"when": "2024-01-31T01:00Z", "v": None}]


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_parquet_output(library, tmp_path, monkeypatch):
    pytest.importorskip(library)
    pytest.importorskip("pyarrow")
    if library == "pandas":
        monkeypatch.setitem(sys.modules, "polars", None)
    tables.write(str(tmp_path / "t.parquet"), {"s": ["a", "b"], "v": np.array([1.5, 2])})
    table = tables.read(tmp_path / "t.parquet")
    assert list(table.columns["s"]) == ["a", "b"] and table.numbers("v", "").tolist() == [1.5, 2]


@pytest.mark.parametrize("options, words", [
    (["--out", "{0}/t.csv"], "is the table that is read"),
    (["--out", "{0}/folder.csv"], "--out: "),
    (["--plot", "{0}/t.csv/p.png"], "--plot: "),
    (["--out", "{0}/t.csv/s.csv"], "--out: "),
])
def test_output_that_cannot_be_written_is_refused_before_the_work(options, words, tmp_path, capsys):
    path = written(tmp_path / "t.csv", TEXT)
    (tmp_path / "folder.csv").mkdir()
    assert cli.main(["detect", str(path), *(option.format(tmp_path) for option in options)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err
    assert path.read_bytes() == TEXT


@pytest.mark.skipif(os.name != "posix", reason="pipes break otherwise on Windows")
def test_a_table_whose_reader_has_gone_ends_quietly(tmp_path):
    """As ``| head`` does; messages still go to stderr."""
    path = written(tmp_path / "t.csv", TEXT)
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as closed:
        result = subprocess.run([sys.executable, "-m", "fastrnn", "detect", str(path), "--out", "-", "--time", "time"],
                                stdout=closed, stderr=subprocess.PIPE, timeout=120, text=True)
    assert result.returncode == 141
    assert result.stderr == "3 rows of v: 0 score above 0.833, in 0 places\n"


# ---- Numbers --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("text, point, comma", [
    ("1.5", 1.5, None), ("1,5", None, 1.5), ("1,234", 1234, 1.234), ("1.234", 1.234, 1234), ("0,123", None, 0.123),
    ("1,234,567", 1234567, None), ("1.234,5", None, 1234.5), ("12", 12, 12), ("1 234", 1234, 1234),
    ("12 34", None, None), ("1,234.5", 1234.5, None), ("1.2.3", None, None), ("", None, None), (".", None, None),
    ("-.5e3", -500, None), ("1e5", 1e5, 1e5), ("e5", None, None), ("0x10", None, None), ("(5)", None, None),
    ("1'234,567.8", None, None), ("1,234 567", None, None)])
def test_numbers_by_their_decimal_mark(text, point, comma):
    for mark, expected in ((".", point), (",", comma)):
        if expected is None:
            with pytest.raises(ValueError):
                numerals.number(text, mark)
        else:
            assert numerals.number(text, mark) == expected


@pytest.mark.parametrize("name, data, words", [
    ("a.parquet", b"time,value\n1,2\n", "this is no Parquet file"),
    ("a.feather", b"time,value\n1,2\n", "this is no Feather file"),
    ("a.parquet", b"PAR1" + bytes(40) + b"PAR1", "cannot read this as Parquet"),
    ("a.feather", b"ARROW1" + bytes(40) + b"ARROW1", "cannot read this as"),
])
def test_files_of_frames_that_are_broken(name, data, words, tmp_path):
    pytest.importorskip("polars")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(TableError, match=words) as raised:
        tables.read(str(tmp_path / name))
    assert name in str(raised.value)


def test_frames_and_sheets_without_rows(tmp_path):
    polars, openpyxl = pytest.importorskip("polars"), pytest.importorskip("openpyxl")
    polars.DataFrame({"value": []}).write_parquet(tmp_path / "a.parquet")
    openpyxl.Workbook().save(tmp_path / "a.xlsx")
    for name, words in (("a.parquet", "there are no rows"), ("a.xlsx", "the sheet is empty")):
        with pytest.raises(TableError, match=f"{name}: {words}"):
            tables.read(str(tmp_path / name))


def test_days_and_hours_of_a_sheet_are_text(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    import datetime
    book = openpyxl.Workbook()
    for row in (("day", "hour", "value"), (datetime.date(2024, 3, 1), datetime.time(6, 30), 1.5),
                (datetime.date(2024, 3, 2), datetime.time(7, 0), 2.5)):
        book.active.append(row)
    book.save(tmp_path / "a.xlsx")
    columns = tables.read(str(tmp_path / "a.xlsx")).columns
    assert [str(cell)[:10] for cell in columns["day"]] == ["2024-03-01", "2024-03-02"]
    assert list(columns["hour"]) == ["06:30:00", "07:00:00"]

"""Which lines of the compiled modules' sources ran, from gcc's counters: reports, and fails below a share.

`make coverage-compiled` builds the modules with FASTRNN_COVERAGE=1, runs the suite on them and then this script. gcc
counts lines of the C that Cython writes, with and without the GIL; a comment before each statement of that C names the
file and line of its Cython source. A line of Cython counts as run where the first line of C of one of its statements
ran, in any of the modules: one source makes the kernels of every instruction set and of both dtypes. Lines that make no
C, such as declarations, do not count, and neither do headings of functions and classes. Lines of the project's own C
headers are taken as gcc counts them, as far as this machine's preprocessor kept them.
"""

import argparse
import collections
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SECTION = re.compile(r"/\* #### Code section: (\w+)")
MARK = re.compile(r'\s*/\* "(src/[^"]+)":(\d+)$')
HEADING = re.compile(r"\s*(@|(def|class|cpdef|ctypedef)\b|cdef\b([^=]*$|[^=(]*\())")
STATEMENTS = ("module_code", "init_module")


def is_heading(text):
    """Whether a line of Cython heads a function or class, or only declares: it does nothing when control passes it."""
    return HEADING.match(text) is not None


def counts_of(data, objects):
    """{file: {line: how often it ran}} of one module, as gcov reads its counters."""
    answer = subprocess.run(["gcov", "--json-format", "--stdout", "-o", str(objects), str(data)], cwd=ROOT, check=True,
                            capture_output=True, text=True)
    counts = {}
    for file in json.loads(answer.stdout)["files"]:
        lines = counts.setdefault(file["file"], collections.Counter())
        for line in file["lines"]:
            lines[line["line_number"]] += line["count"]
    return counts


def statements(c_text):
    """(file, line of Cython, lines of C) for every statement's piece of the C."""
    place, first, section, in_comment = None, 0, "", False
    lines = c_text.split("\n")
    for number, line in enumerate(lines, 1):
        if in_comment:
            if line.strip().endswith("*/"):
                in_comment, first = False, number + 1
            continue
        mark, heading = MARK.match(line), SECTION.match(line)
        if mark or heading or line == "}" or "/* function exit code */" in line:
            if place and section in STATEMENTS and first < number:
                yield (*place, range(first, number))
            place = (mark[1], int(mark[2])) if mark else None
            in_comment = bool(mark)
            section = heading[1] if heading else section


def merge(lines, file, line, count):
    """Adds one module's count of a line to the others'."""
    lines[file][line] = lines[file].get(line, 0) + count


def measured(folder):
    """{source file: {line: how often it ran}} over all the modules that were built below a folder."""
    lines, sources = collections.defaultdict(dict), {}
    for notes in sorted(folder.rglob("*.gcno")):
        counts = counts_of(notes.with_suffix(".gcda") if notes.with_suffix(".gcda").exists() else notes, notes.parent)
        for file, own in counts.items():
            path = (ROOT / file).resolve()
            header = re.search(r"src/\w+/\w+\.h$", file)       # Cython lays copies of the headers beside the C
            if header:
                for line, count in own.items():
                    merge(lines, header[0], line, count)
            if header or not path.is_relative_to(ROOT):
                continue
            for source, line, piece in statements(path.read_text()):
                text = sources.setdefault(source, (ROOT / source).read_text().split("\n"))[line - 1]
                executable = next((number for number in piece if number in own), None)
                if executable is not None and not is_heading(text):
                    merge(lines, source, line, own[executable])
    return lines


def spans(numbers):
    """Line numbers as text: "3-5, 9"."""
    runs = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the modules were built with FASTRNN_COVERAGE=1")
    parser.add_argument("--fail-under", type=float, default=95, metavar="PERCENT", help="the least share (95)")
    options = parser.parse_args()
    lines = measured(options.folder.resolve())
    if not lines:
        sys.exit(f"no counters of gcc below {options.folder}: build with FASTRNN_COVERAGE=1, then run the suite on it")
    total, run = 0, 0
    print(f"{'file':<36}{'lines':>7}{'missed':>8}{'share':>8}  lines that did not run")
    for file, counts in sorted(lines.items()):
        missed = sorted(line for line, count in counts.items() if not count)
        total, run = total + len(counts), run + len(counts) - len(missed)
        part = 100 - 100 * len(missed) / len(counts)
        print(f"{file:<36}{len(counts):>7}{len(missed):>8}{part:>7.1f}%  {spans(missed)}")
    share = 100 * run / total
    print(f"compiled modules: {run:,} of {total:,} lines ran, {share:.2f} % (at least {options.fail_under:g} %)")
    sys.exit(share < options.fail_under)


if __name__ == "__main__":
    main()

"""The layout holds: imports go down the floors, and in no circle. Read from the sources, nothing is run."""

import ast
from pathlib import Path

import fastrnn

ROOT = Path(fastrnn.__file__).parent
# From top to bottom. A module may import from its own floor's package and from floors further down.
FLOORS = [["fastrnn", "__main__"], ["cli"], ["scale"], ["pytorch"], ["forecasting", "anomaly"], ["diagnostics"],
          ["training"], ["interop"], ["losses", "optim"], ["nn"], ["datasets"], ["_base"], ["_core"]]
LEVEL = {name: level for level, names in enumerate(FLOORS) for name in names}
# The backend subclasses onnx's own class, so it is imported when it is asked for: the one circle, and it is lazy.
LAZY = {("fastrnn.interop.onnx", "fastrnn.interop.onnx_backend")}


def sources():
    """Module name -> path."""
    return {".".join(("fastrnn", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
            for path in ROOT.rglob("*.py")}


def imported(name, path, known):
    """The modules of fastrnn that a module imports anywhere in it, but for type checkers alone."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    tree, result = ast.parse(path.read_text("utf-8")), set()
    for_checkers = {id(node) for block in ast.walk(tree) if isinstance(block, ast.If)
                    and getattr(block.test, "id", "") == "TYPE_CHECKING" for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in for_checkers:
            continue
        if isinstance(node, ast.Import):
            result |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[:len(parts) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                result.add(inner if inner in known or inner == "fastrnn._core" else base)
    return {module for module in result if module.split(".")[0] == "fastrnn"} - {name}


KNOWN = sources()
IMPORTS = {name: imported(name, path, KNOWN) for name, path in KNOWN.items()}


def floor(module):
    return LEVEL[module.split(".")[1] if "." in module else module]


def test_the_sources_were_read():
    assert len(IMPORTS) > 60
    assert "fastrnn._base.validation" in IMPORTS["fastrnn.nn.recurrent"]
    assert "fastrnn.nn.streams" in IMPORTS["fastrnn.nn.recurrent_base"]


def test_every_module_has_a_floor():
    assert {module.split(".")[1] for module in IMPORTS if "." in module} <= set(LEVEL)


def test_no_import_goes_up():
    upward = [(name, other) for name, others in IMPORTS.items() for other in others
              if other != "fastrnn" and floor(other) < floor(name)]
    # `import fastrnn` as a whole is for the top floor and for what users would run: the commands.
    whole = [name for name, others in IMPORTS.items() if "fastrnn" in others and floor(name) > LEVEL["cli"]
             and name != "fastrnn._base.dispatch"]       # it prints the version
    assert not upward and not whole


def test_no_circle():
    edges = {name: {other for other in others if (name, other) not in LAZY} for name, others in IMPORTS.items()}
    done, path = set(), []

    def visit(module):
        assert module not in path, " -> ".join([*path[path.index(module):], module])
        if module in done or module not in edges:
            return
        path.append(module)
        for other in sorted(edges[module] - {"fastrnn"}):
            visit(other)
        path.pop()
        done.add(module)

    for module in sorted(edges):
        visit(module)

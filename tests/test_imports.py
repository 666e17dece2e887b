"""Imports inside alignet point down, from room to room, and never in a circle; rooms and files stay easy to find.

A room is a package in alignet/. The sources are read, not run, so an import counts wherever it stands: at the top of a
file, inside a function, or under `if TYPE_CHECKING`.
"""

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

import alignet

ROOT = Path(alignet.__file__).parent

# A module may import from its own room and from floors below its own.
FLOORS = (
    ("stages",),
    ("plan", "doctor", "rehearse"),
    ("pipeline",),
    ("report",),
    ("evaluate",),
    ("attacks", "invariances"),
    ("harmonizer",),
    ("student", "api"),
    ("teacher",),
    ("backbones", "world", "survey", "vice"),
    ("data",),
    ("config", "runtime", "triplets"),  # triplets.py: what a triplet is, for all of them
)
# What else may be imported. "" is alignet/__init__.py, which loads api.py on its first use; nothing imports it.
ALSO = {
    (
        "plan",
        "doctor",
    ): "the plan reads the doctor's rates and findings; the doctor knows nothing of the plan",
    ("", "api"): "the names that `import alignet` offers",
}
# Imports whose module is chosen as the program runs, which no reading of the source can follow: file, call.
CHOSEN = [
    ("pipeline/runner.py", 'importlib.import_module(f"alignet.stages.{node.stage}")'),  # the stage of a node
    ("pipeline/parallel.py", "importlib.import_module(name)"),  # libraries that workers share
]
TOP = {"__init__.py", "api.py", "triplets.py"}
TOP_ALLOWED = {"py.typed", "conf"}  # conf: inside a wheel
MAX_LINES, MAX_LINES_CONFIG = 450, 300


@dataclass(frozen=True)
class Import:
    """One import of one module by another, by their dotted names."""

    importer: str
    imported: str
    where: str  # file:line

    @property
    def rooms(self) -> tuple[str, str]:
        return room(self.importer), room(self.imported)

    def __str__(self) -> str:
        first, second = (name or "alignet/__init__.py" for name in self.rooms)
        return f"{self.where}: {self.importer} imports {self.imported} ({first} -> {second})"


def room(module):
    """The package in alignet/ that a module stands in; a module at the top is a room by itself."""
    return [*module.split("."), ""][1]


def modules_of(root):
    """The file of each module of a package, by dotted name; a package's name stands for its __init__.py."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(root):
    """Every import of the package's own modules, in the order of files and lines.

    `from a.b import c` is an import of a.b.c if that is a module, else of a.b. That Python also runs the __init__.py
    of each package on the way to a module is not counted.
    """
    modules, found = modules_of(root), []
    for importer, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                start = (node.module or "") if not node.level else _relative(importer, path, node)
                names = [f"{start}.{alias.name}" for alias in node.names]
                names = [name if name in modules else start for name in names]
            else:
                continue
            for name in dict.fromkeys(names):
                if name.partition(".")[0] == root.name and name != importer:
                    where = f"{root.name}/{path.relative_to(root).as_posix()}:{node.lineno}"
                    found.append(Import(importer, name, where))
    return sorted(found, key=lambda one: (one.where.rpartition(":")[0], int(one.where.rpartition(":")[2])))


def _relative(importer, path, node):
    """The module that `from ..x import y` starts from."""
    parts = importer.split(".")
    up = node.level - (path.name == "__init__.py")
    return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])


def wrong_imports(imports):
    """Those that point up, or aside to a room of the same floor, or to or from a room without a floor."""
    floor = {name: height for height, names in enumerate(FLOORS) for name in names}

    def allowed(first, second):
        if first == second or (first, second) in ALSO:
            return True
        return first in floor and second in floor and floor[first] < floor[second]

    return [one for one in imports if not allowed(*one.rooms)]


def circles(imports):
    """Groups of modules that reach each other by imports (strongly connected components), each sorted."""
    edges = {}
    for one in imports:
        edges.setdefault(one.importer, set()).add(one.imported)

    def reached(start):
        seen, todo = set(), [start]
        while todo:
            for name in edges.get(todo.pop(), ()):
                if name not in seen:
                    seen.add(name)
                    todo.append(name)
        return seen

    reach = {name: reached(name) for name in edges}
    found = {
        tuple(sorted(other for other in reach[name] if name in reach.get(other, ())))
        for name in edges
        if name in reach[name]
    }
    return sorted(found)


def circle_text(group, imports):
    """One circle as text: its modules, and the imports between them."""
    between = [f"    {one}" for one in imports if one.importer in group and one.imported in group]
    return "\n".join([f"{len(group)} modules import each other: {', '.join(group)}", *between])


def chosen_imports(root):
    """The calls of import_module and __import__: file, source of the call, line."""
    found = []
    for path in modules_of(root).values():
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                if name in ("import_module", "__import__"):
                    call = " ".join((ast.get_source_segment(source, node) or "").split())
                    found.append((path.relative_to(root).as_posix(), call, node.lineno))
    return found


def message(lines, rule):
    return "\n".join([f"{len(lines)} against the rule: {rule}", *(str(line) for line in lines)])


def test_imports_point_down():
    wrong = wrong_imports(imports_of(ROOT))
    assert not wrong, message(
        wrong, "a module imports from its own room and from floors below (FLOORS, ALSO)"
    )


def test_no_imports_in_a_circle():
    imports = imports_of(ROOT)
    texts = [circle_text(group, imports) for group in circles(imports)]
    assert not texts, message(texts, "no module reaches itself by imports; move what both need below both")


def test_imports_chosen_as_the_program_runs_are_listed():
    found = chosen_imports(ROOT)
    unlisted = [f"alignet/{file}:{line}: {call}" for file, call, line in found if (file, call) not in CHOSEN]
    assert not unlisted, message(unlisted, "import_module and __import__ only as listed in CHOSEN")
    gone = [entry for entry in CHOSEN if entry not in [(file, call) for file, call, _ in found]]
    assert not gone, message(gone, "what CHOSEN lists exists")


def test_every_room_has_a_floor_and_every_floor_its_rooms():
    rooms = {room(module) for module in modules_of(ROOT)} - {""}
    assert rooms == {name for names in FLOORS for name in names}


def test_the_top_of_the_package_holds_rooms_and_three_files():
    files, folders = set(), set()
    for path in ROOT.iterdir():
        if path.name != "__pycache__" and path.name not in TOP_ALLOWED:
            (folders if path.is_dir() else files).add(path.name)
    assert files == TOP
    assert not [name for name in sorted(folders) if not (ROOT / name / "__init__.py").is_file()]


def test_every_package_says_where_to_begin():
    wrong = []
    for path in sorted(ROOT.rglob("__init__.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if "Open first" not in text or len(text.splitlines()) > 6:
            wrong.append(f"alignet/{path.relative_to(ROOT).as_posix()}: {len(text.splitlines())} lines")
    assert not wrong, message(wrong, "a package's docstring has at most 6 lines and says `Open first: ...`")


def test_no_file_is_long():
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        inside, count = path.relative_to(ROOT), len(path.read_text(encoding="utf-8").splitlines())
        most = MAX_LINES_CONFIG if inside.parts[0] == "config" else MAX_LINES
        if count > most:
            wrong.append(f"alignet/{inside.as_posix()}: {count} lines, at most {most}")
    assert not wrong, message(wrong, "split a long file by what it is about")


@pytest.fixture
def planted(tmp_path):
    """A made package `alignet` with faults: two imports up, one of them relative; two circles; a chosen import."""
    files = {
        "__init__.py": "from alignet import api\n",
        "api.py": "from alignet.data import rows\n",
        "triplets.py": "",
        "stages/__init__.py": "",
        "stages/distill.py": "from alignet.teacher import fit\nfrom alignet.data.rows import read\n",
        "teacher/__init__.py": "",
        "teacher/fit.py": "import json\n\n\ndef fit():\n    from alignet.student.network import build\n",
        "student/__init__.py": "",
        "student/network.py": "from alignet.student import loss\n",
        "student/loss.py": (
            "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from alignet.student.network import Net\n"
        ),
        "data/__init__.py": "from .rows import read\n",
        "data/rows.py": "import importlib\n\nfrom alignet import triplets\n\nimportlib.import_module(name)\n",
        "data/tables.py": "from . import rows, lists\n\n\ndef table():\n    from ..teacher import fit\n",
        "data/lists.py": "import alignet.data.text\n",
        "data/text.py": "from alignet.data.tables import table\n",
    }
    for name, text in files.items():
        path = tmp_path / "alignet" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "alignet"


def test_planted_imports_up_are_found_and_no_others(planted):
    assert [str(one) for one in wrong_imports(imports_of(planted))] == [
        "alignet/data/tables.py:5: alignet.data.tables imports alignet.teacher.fit (data -> teacher)",
        "alignet/teacher/fit.py:5: alignet.teacher.fit imports alignet.student.network (teacher -> student)",
    ]


def test_planted_circles_are_found_and_no_others(planted):
    imports = imports_of(planted)
    lists, student = circles(imports)
    assert lists == ("alignet.data.lists", "alignet.data.tables", "alignet.data.text")
    assert student == ("alignet.student.loss", "alignet.student.network")
    assert circle_text(student, imports).splitlines() == [
        "2 modules import each other: alignet.student.loss, alignet.student.network",
        "    alignet/student/loss.py:4: alignet.student.loss imports alignet.student.network (student -> student)",
        "    alignet/student/network.py:1: alignet.student.network imports alignet.student.loss (student -> student)",
    ]


def test_a_planted_chosen_import_is_found(planted):
    assert chosen_imports(planted) == [("data/rows.py", "importlib.import_module(name)", 5)]


@pytest.mark.parametrize(
    ("importer", "imported", "right"),
    [
        ("alignet.plan.nodes", "alignet.doctor.estimates", True),
        ("alignet.doctor.estimates", "alignet.plan.nodes", False),
        ("alignet.config.data", "alignet.runtime.artifacts", False),
        ("alignet.runtime.artifacts", "alignet.triplets", False),
        ("alignet.data.triplets", "alignet.triplets", True),
        ("alignet.triplets", "alignet.data.triplets", False),
        ("alignet.vice.fit", "alignet.backbones.encoder", False),
        ("alignet.student.finetune", "alignet.api", False),
        ("alignet.stages.embed", "alignet", False),
        ("alignet", "alignet.api", True),
        ("alignet.new.room", "alignet.data.rows", False),
    ],
)
def test_which_imports_are_right(importer, imported, right):
    assert (not wrong_imports([Import(importer, imported, "x.py:1")])) == right

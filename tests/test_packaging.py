"""What is built and published holds together: versions, the headers a build reads, and the look that is taken at a wheel."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from emfuse import _isas

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "emfuse"
BUILT_FROM = (".pyx", ".pxi", ".h", ".cpp", ".so", ".pyd")
CHECK = ROOT / ".ci" / "check_wheel.py"

if not (ROOT / "setup.py").exists():
    pytest.skip("these tests are not in a source tree", allow_module_level=True)


def test_the_version_is_the_same_wherever_it_stands():
    """In the package, and for those who cite it; and the changelog opens with it."""
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.MULTILINE)
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    written = re.search(r'^__version__ = "(.+)"$', (SOURCE / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert cited[1] == newest[1] == written[1]


def test_the_oldest_python_is_the_same_wherever_it_stands():
    """In what pip is told, in the classifiers, in the name of a wheel for the stable ABI, and in what its code may call."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = re.fullmatch(r">=3\.(\d+)", project["requires-python"])[1]
    named = [int(line.rsplit(".", 1)[1]) for line in project["classifiers"] if re.fullmatch(r".* :: 3\.\d+", line)]
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert min(named) == int(oldest)
    assert f'"py_limited_api": "cp3{oldest}"' in setup
    assert f'("Py_LIMITED_API", "0x03{int(oldest):02X}0000")' in setup


def test_a_change_to_any_header_builds_anew():
    """setup.py lists them all: one that it misses would leave an old build in place."""
    listed = re.search(r"^NAMES = \((.*)\)$", (ROOT / "setup.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert {f"{name}.h" for name in re.findall(r'"(\w+)"', listed[1])} == {path.name for path in SOURCE.glob("*.h")}


@pytest.mark.parametrize("isa", _isas.ISAS, ids=lambda isa: isa.name)
def test_an_instruction_set_has_its_shell(isa):
    """A row in the table is built from a file that includes the pass."""
    assert 'include "_sweep.pxi"' in (SOURCE / f"_sweep_{isa.name}.pyx").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def wheel(tmp_path):
    """Function that makes what looks like a wheel of the tree for x86-64, with or without some files, and looks at it."""

    def made(add=(), drop=(), size=10):
        path = tmp_path / "emfuse-0-cp311-abi3-manylinux_2_28_x86_64.whl"
        files = {
            f"emfuse/{each.name}": each.read_bytes() for each in SOURCE.iterdir() if each.suffix in (".py", ".csv", ".typed")
        }
        files |= {f"emfuse/_sweep_{isa.name}.abi3.so": bytes(size) for isa in _isas.isas_of("x86_64")}
        files |= {"emfuse/": b"", "emfuse-0.dist-info/METADATA": b"", **dict.fromkeys(add, b"other")}
        with zipfile.ZipFile(path, "w") as content:  # as it is, not deflated: the size can be chosen
            for name, data in files.items():
                if name not in drop:
                    content.writestr(name, data)
        return subprocess.run([sys.executable, str(CHECK), str(path)], capture_output=True, text=True)

    return made


def test_a_wheel_of_the_tree_is_passed(wheel):
    """Its Python files, its data and one module for each build."""
    done = wheel()
    assert done.returncode == 0, done.stderr
    assert "3 of them compiled" in done.stdout


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"add": ["emfuse.libs/libgomp-a34b3233.so.1.0.0"]}, "libgomp"),
        ({"drop": ["emfuse/_sweep_avx2.abi3.so"]}, "wanted one module for each"),
        ({"drop": ["emfuse/em.py"]}, "missing: ['emfuse/em.py']"),
        ({"add": ["emfuse/left_over.py"]}, "too many: ['emfuse/left_over.py']"),
        ({"add": ["emfuse/em.py"]}, "other than in the tree: ['emfuse/em.py']"),
        ({"size": 1_000_000}, "at most 3,000,000"),
    ],
)
def test_a_wheel_that_is_not_so_is_stopped(wheel, what, said):
    """Another library, a build or a module that is missing, one that is left over or old, or too many bytes."""
    done = wheel(**what)
    assert done.returncode == 1
    assert said in done.stderr


def test_the_table_of_builds_can_be_read_without_the_package():
    """setup.py and the look at a wheel run it by its path, where there may be nothing to import."""
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); print([name for name in sys.modules if name.startswith('emfuse')])"
    done = subprocess.run([sys.executable, "-I", "-c", code, str(SOURCE / "_isas.py")], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr

"""Fail unless a wheel holds the tree's files as they are and one module for each build, nothing else, and is small.

Called with the path of the wheel.
"""

import re
import runpy
import sys
import zipfile
from pathlib import Path

MOST_BYTES = 3_000_000
NATIVE = re.compile(r"\.(so|pyd|dll|dylib|a|lib)(\.[\d.]+)?$")
SOURCE = Path(__file__).parent.parent / "src"
NOT_INSTALLED = {".pyx", ".pxi", ".h", ".cpp", ".so", ".pyd", ".pyc"}

wheel = Path(sys.argv[1])
machine = next(name for name in ("x86_64", "amd64", "aarch64", "arm64") if wheel.stem.endswith(name))
builds = [isa.name for isa in runpy.run_path(str(SOURCE / "emfuse" / "_isas.py"))["isas_of"](machine)]
faults = []

with zipfile.ZipFile(wheel) as content:
    names = {name for name in content.namelist() if not re.match(r"emfuse-[^/]+\.dist-info/|.*/$", name)}
    native = {name for name in names if NATIVE.search(name)}
    here = {path.relative_to(SOURCE).as_posix(): path for path in (SOURCE / "emfuse").rglob("*") if path.is_file()}
    here = {name: path for name, path in here.items() if path.suffix not in NOT_INSTALLED}
    for name in sorted(native):
        print(f"  {content.getinfo(name).file_size:9,} bytes  {name}")
    if sorted(re.sub(r"emfuse/_sweep_(\w+)\..*", r"\1", name) for name in native) != sorted(builds):
        faults.append(f"compiled: {sorted(native)}, wanted one module for each of {builds}")
    if names - native != set(here):
        faults.append(f"missing: {sorted(set(here) - names)}; too many: {sorted(names - native - set(here))}")
    differing = [name for name in names & set(here) if content.read(name).splitlines() != here[name].read_bytes().splitlines()]
    if differing:
        faults.append(f"other than in the tree: {sorted(differing)}")
size = wheel.stat().st_size
if size > MOST_BYTES:
    faults.append(f"{size:,} bytes, and at most {MOST_BYTES:,} are wanted")
print(f"{wheel.name}: {size:,} bytes, {len(names)} files, {len(native)} of them compiled")
sys.exit("\n".join(faults) or None)

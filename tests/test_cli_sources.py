"""Where the rows of a command come from: loaded, streamed, or on the workers of a cluster, and the same answer from each.

The cluster is a real one, of two processes, made as --workers makes it.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import emfuse
from emfuse import sources
from emfuse.sources import Ask

parquet = pytest.importorskip("pyarrow.parquet", reason='pip install "emfuse[parquet]"')
pa = pytest.importorskip("pyarrow")

TOLERANCE = (
    1e-9  # of means and log-likelihoods a row, about 1: another start, and both within 1e-6 nats of the maximum of 3,000 rows
)
WORDS = ["x", "y", "z"]


@pytest.fixture(scope="module")
def rows():
    """3,000 rows of three features, of two clusters that are far apart, in random order."""
    random = np.random.default_rng(0)
    X = random.normal(size=(3_000, 3)) + np.repeat([[0.0, 0.0, 0.0], [9.0, 5.0, 1.0]], [1_000, 2_000], axis=0)
    return random.permutation(X)


def write_parquet(path, X, *, words=None, row_group_size=400, **columns):
    """Write columns x, y, z, and others."""
    content = {name: X[:, i] for i, name in enumerate(WORDS)} | columns | ({} if words is None else {"word": words})
    parquet.write_table(pa.table(content), path, row_group_size=row_group_size)


@pytest.fixture
def data(rows, tmp_path):
    """The rows as files of several kinds, in the test's folder."""
    (tmp_path / "parquet").mkdir()
    (tmp_path / "npy").mkdir()
    for i, part in enumerate(np.split(rows, [700, 1_900])):
        write_parquet(tmp_path / f"parquet/{i}.parquet", part)
        np.save(tmp_path / f"npy/{i}.npy", part)
        np.savetxt(tmp_path / f"part{i}.csv", part, delimiter=",", fmt="%.17g", header="x,y,z", comments="")
    np.save(tmp_path / "rows.npy", rows)
    return tmp_path


SPELLINGS = [
    ["parquet"],
    ["parquet/*.parquet"],
    ["parquet/0.parquet", "parquet/1.parquet", "parquet/2.parquet"],
    ["npy"],
    ["npy/?.npy"],
    ["rows.npy"],
    ["part*.csv"],
    ["part0.csv", "part1.csv", "part2.csv"],
]


# ---------------------------------------------------------------- loaded, or streamed


@pytest.mark.parametrize("files", SPELLINGS)
def test_files_are_the_rows_in_memory(data, rows, monkeypatch, files):
    """Of any kind, in a folder, by a pattern or listed: the same rows in the same order, to the last bit."""
    monkeypatch.chdir(data)
    source = sources.read(files)
    np.testing.assert_array_equal(source.rows, rows)
    assert (source.how, source.count, source.weights) == ("memory", 3_000, None)
    assert source.called == (WORDS if source.names else ["column 0", "column 1", "column 2"])


@pytest.mark.parametrize("files", SPELLINGS[:6])
def test_rows_above_the_limit_are_streamed(data, rows, monkeypatch, files):
    """3,000 rows of three doubles take 72,000 bytes: a byte less, and they are read again for every sweep. In the same order."""
    monkeypatch.chdir(data)
    assert sources.read(files, limit=72_000).how == "memory"
    source = sources.read(files, limit=71_999)
    assert (source.how, source.size, source.limit, source.count) == ("stream", 72_000, 71_999, 3_000)
    p = emfuse.Parameters([0.5, 0.5], [[0.0, 0.0, 0.0], [9.0, 5.0, 1.0]], [np.eye(3)] * 2)
    scores = np.concatenate([found.log_density for found in source.evaluate(p, log_density=True)])
    np.testing.assert_array_equal(scores, emfuse.engines.evaluate(rows, p.factors, log_density=True).log_density)
    assert sources.read(files, limit=71_999, whole=True).how == "memory"


@pytest.mark.parametrize("file", ["f.parquet", "f.npy", "g"])
def test_single_precision_stays(tmp_path, rows, file):
    """float32 rows take four bytes a number, and are loaded as such."""
    X = rows.astype(np.float32)
    if file == "f.parquet":
        write_parquet(tmp_path / file, X)
    elif file == "f.npy":
        np.save(tmp_path / file, X)
    else:
        (tmp_path / "g").mkdir()
        for i in range(2):
            np.save(tmp_path / f"g/{i}.npy", np.split(X, 2)[i])
    source = sources.read([str(tmp_path / file)])
    assert source.rows.dtype == np.float32
    np.testing.assert_array_equal(source.rows, X)
    assert sources.read([str(tmp_path / file)], limit=36_000).how == "memory"
    assert sources.read([str(tmp_path / file)], limit=35_999).how == "stream"


def test_a_double_among_singles_makes_all_double(tmp_path, rows):
    """Nothing is rounded, whatever comes first."""
    (tmp_path / "g").mkdir()
    np.save(tmp_path / "g/0.npy", rows[:10].astype(np.float32))
    np.save(tmp_path / "g/1.npy", rows[10:])
    np.testing.assert_array_equal(sources.read([str(tmp_path / "g")]).rows[10:], rows[10:])


def test_columns_and_weights_are_chosen_in_every_kind_of_file(tmp_path, rows):
    """By name or number in Parquet, by number in .npy, streamed or not; what pandas kept as its index is no feature."""
    pandas = pytest.importorskip("pandas")
    v = np.arange(3_000.0) % 3
    frame = pandas.DataFrame({"x": rows[:, 0], "y": rows[:, 1], "n": v}, index=pandas.Index(np.arange(3_000) * 7, name="key"))
    frame.to_parquet(tmp_path / "x.parquet")
    np.save(tmp_path / "x.npy", np.column_stack([rows[:, 0], rows[:, 1], v]))
    for name, ask, called in [
        ("x.parquet", Ask(weights="n"), ["x", "y"]),
        ("x.parquet", Ask(["1", "x"], "n"), ["y", "x"]),
        ("x.parquet", Ask(None, "2", ["y"]), ["y"]),
        ("x.npy", Ask(weights="2"), ["column 0", "column 1"]),
        ("x.npy", Ask(["1"], "2"), ["column 1"]),
    ]:
        source, streamed = (sources.read([str(tmp_path / name)], ask, limit=limit) for limit in (1 << 30, 1))
        assert source.called == streamed.called == called
        np.testing.assert_array_equal(source.rows, rows[:, [{"x": 0, "y": 1, "column 0": 0, "column 1": 1}[c] for c in called]])
        np.testing.assert_array_equal(source.weights, v)
        assert streamed.rows.weight == v.sum()


@pytest.mark.parametrize("limit", [1, 1 << 30])
@pytest.mark.parametrize("kind", ["parquet", "npy"])
def test_rows_with_holes_are_left_out(tmp_path, rows, kind, limit):
    """missing="drop", loaded and streamed: null in Parquet, NaN in .npy; and no row is written down as more."""
    X = rows.copy()
    X[[3, 900, 2_999], [0, 2, 1]] = np.nan
    if kind == "npy":
        np.save(tmp_path / "x.npy", X)
    else:
        parquet.write_table(
            pa.table({name: pa.array(X[:, i], from_pandas=True) for i, name in enumerate(WORDS)}), tmp_path / "x.parquet"
        )
    source = sources.read([str(tmp_path / f"x.{kind}")], Ask(missing="drop"), limit=limit)
    kept = np.delete(rows, [3, 900, 2_999], axis=0)
    if source.how == "memory":
        np.testing.assert_array_equal(source.rows, kept)
    else:
        assert (source.rows.weight, source.count) == (2_997, None)
        np.testing.assert_array_equal(source.some().X, kept)


@pytest.mark.parametrize("files", [["parquet"], ["npy"], ["rows.npy"]])
def test_a_streamed_fit_is_one_in_memory(call, data, rows, files):
    """Same maximum, labels block by block, a picture of a sample; and the text says what was decided, and why."""
    argv = ["--out", "m.json", "--labels", "labels.csv", "--plot", "fit.png"]
    code, out, err = call("fit", *files, "-k", 2, "--memory-limit", 1000, *argv)
    assert (code, err) == (0, "")
    assert "read             again for every sweep: 70.3k, above the limit of 1000 bytes" in out.splitlines()
    assert out.splitlines()[0] == "rows             3000"
    p, labels = emfuse.Parameters.load("m.json"), np.loadtxt("labels.csv", skiprows=1, dtype=int)
    fit = emfuse.fit(rows, 2, init=p)
    np.testing.assert_allclose(p.means, fit.parameters.means, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(labels, emfuse.engines.evaluate(rows, p.factors, labels=True).labels)
    assert os.path.getsize("fit.png") > 10_000


def test_a_streamed_score_is_one_in_memory(call, data, rows):
    """`score` reads blocks too; the columns are found by the model's names, in another order."""
    write_parquet("other.parquet", rows[:, [2, 0, 1]])
    table = parquet.read_table("other.parquet").rename_columns(["z", "x", "y"])
    parquet.write_table(table, "other.parquet")
    assert call("fit", "parquet", "-k", 2, "--out", "m.json")[0] == 0
    said = []
    for file, more in (("parquet", []), ("other.parquet", []), ("other.parquet", ["--memory-limit", 1])):
        assert call("score", "m.json", file, "--out", "scores.csv", *more)[0] == 0
        said.append(Path("scores.csv").read_bytes())
    assert said[0] == said[1] == said[2]


def test_the_document_says_how_rows_were_read(call, data):
    """ "data" of --json: the files as they were given, how, and the bytes that decided it."""
    assert call("fit", "parquet", "-k", 2, "--out", "m.json")[0] == 0
    said = json.loads(call("score", "m.json", "parquet", "--memory-limit", "1k", "--json")[1])
    assert said["data"] == {"files": ["parquet"], "how": "stream", "bytes": 72_000, "limit": 1024}


def test_a_selection_and_a_picture_take_parquet(call, data):
    """They load it."""
    code, out, err = call("select", "parquet", "-k", "1:2", "--structures", "full", "--out", "m.json")
    assert (code, err) == (0, "")
    assert "read             once, into memory: 70.3k" in out.splitlines()
    assert call("plot", "m.json", "parquet", "--out", "x.png")[0] == 0


def test_memory_is_that_of_the_machine(monkeypatch):
    """Without a limit, half of it: more than 128 MB and less than a petabyte anywhere."""
    assert 1 << 27 < sources._memory() <= 1 << 40


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0k"), (1536 << 10, "1.5M"), (1 << 50, "1024.0T")]
)
def test_bytes_in_words(size, words):
    """In the largest unit of which there is one at least."""
    assert sources.in_units(size) == words


# ---------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["gone.parquet"], "gone.parquet: No such file or directory"),
        (["gone/*.parquet"], "gone/*.parquet: No such file or directory"),
        (["empty"], "empty: Is a directory"),
        (
            ["words.parquet"],
            "words.parquet: column 'word' holds string, and must hold numbers; choose with --columns, of 'x', 'y', 'z'",
        ),
        (["words.parquet", "--columns", "x,q"], "words.parquet: there is no column 'q'; choose from x, y, z, word"),
        (
            ["parquet/0.parquet", "part0.csv"],
            "parquet/0.parquet and 1 more: files must be of one kind, and only some of them are Parquet",
        ),
        (["part0.csv", "other.csv"], "other.csv: it has columns a, b, and part0.csv x, y, z; choose with --columns"),
        (
            ["part0.csv", "--memory-limit", "1k"],
            "part0.csv: it has 39.9k, above the limit of 1.0k, and only .npy and Parquet can be read again for every sweep; save "
            "it as one of these, or raise --memory-limit",
        ),
        (
            ["holes.parquet"],
            "column 'y' is null in row 7 (row 7 of row group 0 of holes.parquet); fill the value in, or leave such rows out by "
            "--missing drop\n",
        ),
        (
            ["rows.npy", "--memory-limit", 1, "--standard-errors", "sandwich"],
            "--standard-errors takes rows in memory, and these are read again for every sweep: ",
        ),
        (["torn.parquet"], "torn.parquet: not a whole Parquet file: "),
    ],
)
def test_what_cannot_be_read_is_one_line(call, data, rows, argv, message):
    """The file, what was seen, and the option that helps; exit code 1."""
    write_parquet("words.parquet", rows, words=["a"] * 3_000)
    y = pa.array([None if i == 7 else 1.0 * i for i in range(10)])
    parquet.write_table(pa.table({"x": np.arange(10.0), "y": y}), "holes.parquet")
    Path("torn.parquet").write_bytes(Path("words.parquet").read_bytes()[:500])
    Path("other.csv").write_text("a,b\n1,2\n")
    os.mkdir("empty")
    code, out, err = call("fit", *argv, "-k", 1)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith(f"emfuse: error: {message}")


def test_without_pyarrow_the_extra_is_named(tmp_path):
    """One line, exit code 1."""
    (tmp_path / "pyarrow.py").write_text("raise ImportError")
    (tmp_path / "x.parquet").write_bytes(b"PAR1")
    command = [sys.executable, "-m", "emfuse.cli", "fit", "x.parquet", "-k", "1"]
    ended = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (
        1,
        'emfuse: error: x.parquet: to read Parquet takes pyarrow; pip install "emfuse[parquet]"\n',
    )


# ---------------------------------------------------------------- a cluster


@pytest.fixture(scope="module")
def address():
    """Where a cluster of two processes listens."""
    pytest.importorskip("dask.dataframe", reason='pip install "emfuse[dask]"')
    with sources.cluster(None, 2) as client:
        yield client.scheduler.address


@pytest.mark.parametrize("files", [*SPELLINGS[:3], *SPELLINGS[3:5], ["rows.npy"], ["part*.csv"]])
def test_workers_find_what_one_process_finds(call, data, rows, address, files):
    """Parquet, .npy, which they read themselves, and text, which is sent to them: the same maximum; labels in order."""
    code, out, err = call(
        "fit", *files, "-k", 2, "--dask", address, "--out", "m.json", "--labels", "labels.csv", "--plot", "fit.png"
    )
    assert (code, err) == (0, "")
    assert "read             by 2 workers, " in out
    p, labels = emfuse.Parameters.load("m.json"), np.loadtxt("labels.csv", skiprows=1, dtype=int)
    np.testing.assert_allclose(p.means, emfuse.fit(rows, 2, init=p).parameters.means, rtol=0, atol=TOLERANCE)
    np.testing.assert_array_equal(labels, emfuse.engines.evaluate(rows, p.factors, labels=True).labels)
    assert os.path.getsize("fit.png") > 10_000


@pytest.mark.parametrize("kind", ["parquet", "npy", "csv"])
def test_workers_leave_out_holes_and_count_by_weights(call, rows, address, kind):
    """Columns, weights and --missing drop, as in one process: the same log-likelihood."""
    X = np.column_stack([rows[:, 0], np.arange(3_000) % 3, rows[:, 1]])
    X[[5, 1_000], [0, 1]] = np.nan
    file = f"x.{kind}"
    if kind == "npy":
        np.save(file, X)
    elif kind == "csv":
        np.savetxt(file, X, delimiter=",", fmt="%.17g")
    else:
        parquet.write_table(pa.table({str(i): pa.array(X[:, i], from_pandas=True) for i in range(3)}), file, row_group_size=500)
    argv = ["fit", file, "-k", 2, "--columns", "2,0", "--weights", "1", "--missing", "drop", "--json"]
    here, there = (json.loads(call(*argv, *more)[1])["fit"] for more in ([], ["--dask", address]))
    assert here["weight"] == there["weight"] == np.nansum(np.delete(X, 5, axis=0)[:, 1])
    assert there["log_likelihood"] == pytest.approx(here["log_likelihood"], rel=TOLERANCE)
    assert (here["rows"], there["rows"]) == (2_998, None)


def test_what_workers_find_wrong_is_one_line(call, data, rows, address):
    """Text in a column, a name that is not there, NaN: named, with the options of the command."""
    write_parquet("words.parquet", rows, words=["a"] * 3_000)
    bad = rows.copy()
    bad[2_000, 1] = np.nan
    np.save("bad.npy", bad)
    for argv, message in [
        (["words.parquet"], "column 'word' holds string, and must hold numbers; choose with --columns, of 'x', 'y', 'z'\n"),
        (
            ["words.parquet", "--columns", "q"],
            f"{os.path.abspath('words.parquet')}: there is no column 'q'; choose from x, y, z, word\n",
        ),
        (["bad.npy"], "X must be finite, got nan (NaN or infinity) in row 125 of partition 5, feature 1"),
    ]:
        code, out, err = call("fit", *argv, "-k", 2, "--dask", address)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert err.startswith(f"emfuse: error: {message}")


def test_nobody_at_an_address_is_one_line(call, data, monkeypatch):
    """After ten seconds, which are cut short here."""
    distributed = pytest.importorskip("distributed")

    class Client(distributed.Client):
        def __init__(self, address, timeout):
            super().__init__(address, timeout="0.5s")

    monkeypatch.setattr(distributed, "Client", Client)
    code, out, err = call("fit", "rows.npy", "-k", 2, "--dask", "tcp://127.0.0.1:1")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "127.0.0.1:1" in err


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_ctrl_c_ends_the_workers_too(data):
    """A terminal sends the signal to every process: exit code 130, not a word from any of them, and none is left."""
    pytest.importorskip("distributed")
    endless = ["-k", "20", "--gain", "1e-300", "--acceleration", "none", "--max-sweeps", str(10**9), "--verbose"]
    command = [sys.executable, "-m", "emfuse.cli", "fit", "parquet", *endless, "--workers", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=data, start_new_session=True, **pipes) as ended:
        while "sweep" not in (line := ended.stderr.readline()):
            assert line
        os.killpg(ended.pid, signal.SIGINT)
        out, err = ended.communicate(timeout=60)  # which waits for all who hold the pipes
    assert (ended.returncode, out) == (130, "")
    assert all(line.startswith("EM") for line in err.splitlines())

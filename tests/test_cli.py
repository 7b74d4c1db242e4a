"""The `emfuse` command, end to end: what it prints, writes and returns, whatever it is given."""

import csv
import gzip
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest

import emfuse
from emfuse import cli, tables

FAITHFUL = str(files("emfuse").joinpath("faithful.csv"))
DATA = np.loadtxt(FAITHFUL, delimiter=",", skiprows=1)


def process(*argv, **options):
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "emfuse.cli", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, **options)


@pytest.fixture
def model(call):
    """A fitted model's file, in the folder of the test."""
    assert call("fit", FAITHFUL, "-k", 2, "--out", "model.json")[0] == 0
    return "model.json"


def rows_of(path):
    """Rows of a CSV file, as lists of text."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def value(out, name):
    """The number after `name` in a summary."""
    (line,) = [line for line in out.splitlines() if line.startswith(name)]
    return float(line[len(name) :].split()[0].rstrip(","))


# ---------------------------------------------------------------- demo


def test_the_demo_prints_its_history_and_writes_its_picture(tmp_path):
    """The published maximum of Old Faithful's waiting times: 0.3609, 54.61, 80.09, 5.87, 5.87, log-likelihood -1034.002."""
    ended = process("demo", "--out", tmp_path / "out.png")
    assert (ended.returncode, ended.stderr) == (0, "")
    table = [line.split() for line in ended.stdout.splitlines()]
    start = table.index(["sweep", "pi1", "pi2", "mu1", "mu2", "sd1", "sd2", "log-likelihood"]) + 1
    last = table[table.index([], start) - 1]
    np.testing.assert_allclose([float(x) for x in last[1:]], [0.3609, 0.6391, 54.615, 80.091, 5.871, 5.868, -1034.002], atol=1e-3)
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_demo_says_how_to_get_the_picture(tmp_path):
    """Everything but the picture is there, one line says how to get it, and that is no failure."""
    (tmp_path / "matplotlib.py").write_text("raise ImportError")
    ended = process("demo", cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.endswith('For the picture, install matplotlib: pip install "emfuse[plot]"\n')
    assert not (tmp_path / "faithful.png").exists()


# ---------------------------------------------------------------- fit, score, sample


def test_a_fit_is_that_of_the_library(call, model):
    """The model's file holds the very parameters that `emfuse.fit` returns, and the columns' names."""
    assert emfuse.Parameters.load(model) == emfuse.fit(DATA, 2).parameters
    with open(model, encoding="utf-8") as file:
        assert json.load(file)["columns"] == ["eruptions", "waiting"]


def test_the_summary_says_what_was_done(call):
    """Rows, columns, log-likelihood, AIC, BIC, reason and sweeps are those of the fit; nothing is on stderr."""
    code, out, err = call("fit", FAITHFUL, "-k", 2)
    fit = emfuse.fit(DATA, 2)
    assert (code, err) == (0, "")
    for line in (
        "rows             272",
        "columns          eruptions, waiting",
        f"log-likelihood   {fit.log_likelihood:.6f} nats, {fit.log_likelihood / 272:.6f} a row",
        f"AIC              {fit.aic:.4f}",
        f"BIC              {fit.bic:.4f}",
        f"stopped          converged: {fit.reason}",
        f"sweeps           {fit.sweeps}",
    ):
        assert line in out.splitlines()


def test_a_model_scores_the_rows_that_it_was_fitted_to(call, model):
    """The log-likelihood of `score` is that of `fit`, to the digits printed."""
    code, out, err = call("score", model, FAITHFUL)
    assert (code, err) == (0, "")
    assert value(out, "log-likelihood") == pytest.approx(emfuse.fit(DATA, 2).log_likelihood, abs=1e-6)


def test_scores_are_those_of_the_library(call, model):
    """Log density, label and responsibilities of each row, to the last bit."""
    assert call("score", model, FAITHFUL, "--out", "scores.csv")[0] == 0
    header, *rows = rows_of("scores.csv")
    assert header == ["log_density", "label", "p0", "p1"]
    fit, found = emfuse.fit(DATA, 2), np.array(rows, dtype=float)
    np.testing.assert_array_equal(found[:, 0], fit.score_samples(DATA))
    np.testing.assert_array_equal(found[:, 1], fit.predict(DATA))
    np.testing.assert_array_equal(found[:, 2:], fit.predict_proba(DATA))


def test_labels_are_those_of_the_library(call):
    """One line a row, in the order of the rows."""
    assert call("fit", FAITHFUL, "-k", 2, "--labels", "labels.csv")[0] == 0
    header, *rows = rows_of("labels.csv")
    assert header == ["label"]
    np.testing.assert_array_equal(np.array(rows, dtype=int)[:, 0], emfuse.fit(DATA, 2).predict(DATA))


@pytest.mark.parametrize("name", ["rows.csv", "rows.npy"])
def test_a_sample_can_be_fitted_again(call, model, name):
    """sample -> fit gives the model back: 40,000 rows put each weight within 0.012, five of its standard errors."""
    assert call("sample", model, "-n", 40_000, "--seed", 1, "--out", name)[0] == 0
    assert call("fit", name, "-k", 2, "--out", "again.json")[0] == 0
    weights = [np.sort(emfuse.Parameters.load(path).weights) for path in (model, "again.json")]
    np.testing.assert_allclose(*weights, atol=0.012)


def test_a_sample_is_written_to_the_last_bit(call, model):
    """CSV on stdout, under the columns' names, has the numbers that .npy has."""
    code, out, _ = call("sample", model, "-n", 5, "--seed", 7)
    call("sample", model, "-n", 5, "--seed", 7, "--out", "rows.npy")
    header, *rows = csv.reader(out.splitlines())
    assert (code, header) == (0, ["eruptions", "waiting"])
    np.testing.assert_array_equal(np.array(rows, dtype=float), np.load("rows.npy"))


def test_the_head_of_a_sample_is_a_sample(call, model):
    """Rows come in random order, not component by component: 20 of one kind in a row have chance 0.64^20 = 1e-4."""
    X = np.loadtxt(call("sample", model, "-n", 1_000, "--seed", 0)[1].splitlines(), delimiter=",", skiprows=1)
    assert 0 < (X[:20, 0] > 3.0).sum() < 20


def test_columns_are_found_by_name(call, model):
    """A file with the model's columns among others, in another order, is scored all the same."""
    with open("other.csv", "w", encoding="utf-8") as file:
        file.write("waiting,name,eruptions\n" + "".join(f"{w},old,{e}\n" for e, w in DATA))
    assert call("score", model, "other.csv")[1] == call("score", model, FAITHFUL)[1]


@pytest.mark.parametrize("structure", ["full", "tied", "diag", "spherical"])
def test_every_structure_makes_the_round_trip(call, structure):
    """fit -> file -> score, for each covariance structure."""
    _, fitted, _ = call("fit", FAITHFUL, "-k", 2, "--structure", structure, "--out", "m.json")
    assert value(call("score", "m.json", FAITHFUL)[1], "log-likelihood") == pytest.approx(
        value(fitted, "log-likelihood"), abs=1e-6
    )


@pytest.mark.parametrize("init", ["kmeans", "kmeans++", "random_rows", "random"])
def test_every_start_that_help_names_runs(call, init):
    """--init takes what `emfuse.fit` takes."""
    assert call("fit", FAITHFUL, "-k", 2, "--init", init, "--seed", 3, "--n-init", 2, "--threads", 1)[0] == 0


def test_weight_two_is_the_row_twice(call):
    """--weights COL leaves that column out of the rows, and counts the rows by it."""
    with open("w.csv", "w", encoding="utf-8") as file:
        file.write("n,x\n1,0\n2,3\n1,5\n2,9\n")
    with open("twice.csv", "w", encoding="utf-8") as file:
        file.write("x\n0\n3\n3\n5\n9\n9\n")
    weighted = call("fit", "w.csv", "-k", 1, "--weights", "n")[1]
    assert value(weighted, "log-likelihood") == value(call("fit", "twice.csv", "-k", 1)[1], "log-likelihood")
    assert "of total weight 6" in weighted


def test_the_history_has_a_line_a_sweep(call):
    """--history prints the table of every sweep before the summary."""
    out = call("fit", FAITHFUL, "-k", 2, "--columns", "waiting", "--history")[1]
    assert out.splitlines()[0].split() == ["sweep", "pi1", "pi2", "mu1", "mu2", "sd1", "sd2", "log-likelihood"]


def test_a_fit_that_meets_its_limit_warns(call):
    """The result is printed, exit code 0, and stderr says in one line that it did not converge."""
    code, out, err = call("fit", FAITHFUL, "-k", 2, "--max-sweeps", 2, "--init", "kmeans")
    assert (code, value(out, "sweeps")) == (0, 2)
    assert err == (
        "emfuse: warning: the fit did not converge: the limit of 2 sweeps was reached; raise --max-sweeps, or ask for fewer "
        "components\n"
    )


@pytest.mark.parametrize("columns", ["waiting", "eruptions,waiting"])
@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_a_fit_can_be_drawn(call, columns, kind):
    """--plot writes a picture in the format that its name ends with."""
    assert call("fit", FAITHFUL, "-k", 2, "--columns", columns, "--plot", f"fit.{kind}")[0] == 0
    with open(f"fit.{kind}", "rb") as file:
        assert {"png": b"PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind] in file.read(16)


def test_progress_is_not_a_result(call):
    """--verbose adds to stderr and nothing to stdout but the time."""
    quiet, loud = call("fit", FAITHFUL, "-k", 2), call("fit", FAITHFUL, "-k", 2, "--verbose")
    timeless = [[line for line in out.splitlines() if not line.startswith("time")] for _, out, _ in (quiet, loud)]
    assert timeless[0] == timeless[1] and loud[2]


# ---------------------------------------------------------------- what can be read

ROWS = [(1.0, 2.0), (3.0, 4.5), (5.0, -6.0), (7.0, 8.0)]


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("plain.csv", "x,y\n1,2\n3,4.5\n5,-6\n7,8\n", ["x", "y"]),
        ("no_header.csv", "1,2\n3,4.5\n5,-6\n7,8\n", None),
        ("no_newline.csv", "x,y\n1,2\n3,4.5\n5,-6\n7,8", ["x", "y"]),
        ("windows.csv", "x,y\r\n1,2\r\n3,4.5\r\n5,-6\r\n7,8\r\n", ["x", "y"]),
        ("blank_lines.csv", "\nx,y\n\n1,2\n3,4.5\n\n5,-6\n7,8\n\n", ["x", "y"]),
        ("bom.csv", "\ufeffx,y\n1,2\n3,4.5\n5,-6\n7,8\n", ["x", "y"]),
        ("quotes.csv", '"the ""x"", here",y\n"1","2"\n3,4.5\n5,-6\n7,8\n', ['the "x", here', "y"]),
        ("two_lines.csv", '"x\n(mm)",y\n1,2\n3,4.5\n5,-6\n7,8\n', ["x\n(mm)", "y"]),
        ("tabs.tsv", "x a\ty\n1\t2\n3\t4.5\n5\t-6\n7\t8\n", ["x a", "y"]),
        ("semicolons.csv", "x;y\n1;2\n3;4.5\n5;-6\n7;8\n", ["x", "y"]),
        ("spaces.txt", " x   y\n 1   2\n 3 4.5\n 5  -6\n 7   8\n", ["x", "y"]),
        ("exponents.csv", "1e0, 20e-1\n+3,45E-1\n5.,-6\n 7 ,.8e1\n", None),
    ],
)
def test_text_is_read(tmp_path, name, text, names):
    """Header or not, whatever stands between cells: the same rows, and the names."""
    (tmp_path / name).write_bytes(text.encode())
    table = tables.read(str(tmp_path / name))
    np.testing.assert_array_equal(table.X, ROWS)
    assert table.names == names


@pytest.mark.parametrize("hole", ["", "NA", "nan", "null", "?"])
def test_rows_with_missing_cells_are_left_out_where_that_is_wanted(tmp_path, hole):
    """missing="drop": an empty cell, NA or NaN takes its row away; one in a column that is not used does not matter."""
    (tmp_path / "x.csv").write_text(f"x,y,z\n1,2,{hole}\n{hole},0,0\n3,4.5,0\n5,-6,1\n0,{hole},1\n7,8,2\n")
    np.testing.assert_array_equal(tables.read(str(tmp_path / "x.csv"), ["x", "y"], missing="drop").X, ROWS)


def test_nan_in_an_array_is_left_out_where_that_is_wanted(tmp_path):
    """The same of .npy, where weights can be missing too."""
    np.save(tmp_path / "x.npy", [(1.0, 2.0, 1.0), (np.nan, 0.0, 1.0), (3.0, 4.5, 2.0), (0.0, 0.0, np.nan), (5.0, -6.0, 3.0)])
    table = tables.read(str(tmp_path / "x.npy"), weights="2", missing="drop")
    np.testing.assert_array_equal(table.X, ROWS[:3])
    np.testing.assert_array_equal(table.weights, [1, 2, 3])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"a,b\n1,\n,2\n", "no row is left without missing values; choose other columns with --columns"),
        ("x.csv", b"a,b\n1,x\n,2\n", "line 2, column 'b' has 'x', which is not a finite number; "),
        ("x.csv", b"a,b\n1,2\n,2\n3,inf\n", "line 4, column 'b' has 'inf', which is not a finite number; "),
        ("x.npy", np.array([[np.nan, 1.0]]), "no row is left without missing values; choose other columns with --columns"),
        ("x.npy", np.array([[np.nan, 1.0], [np.inf, 1.0]]), "X must be finite, got inf"),
    ],
)
def test_what_is_wrong_and_not_just_missing_is_an_error_all_the_same(call, name, content, message):
    """Text, infinity, and nothing left at all; exit code 1."""
    if name.endswith(".npy"):
        np.save(name, content)
    else:
        with open(name, "wb") as file:
            file.write(content)
    code, out, err = call("fit", name, "-k", 1, "--missing", "drop")
    assert (code, out) == (1, "")
    assert err.startswith(f"emfuse: error: {name}: {message}")


def test_gz_is_read(tmp_path):
    """FILE.csv.gz is FILE.csv."""
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(b"x,y\n1,2\n3,4.5\n5,-6\n7,8\n"))
    np.testing.assert_array_equal(tables.read(str(tmp_path / "x.csv.gz")).X, ROWS)


@pytest.mark.parametrize("name", ["a.npy", "one.npz", "two.npz:b"])
def test_arrays_are_read(tmp_path, name):
    """An array, the only one of an archive, or one of several by name."""
    np.save(tmp_path / "a.npy", ROWS)
    np.savez(tmp_path / "one.npz", ROWS)
    np.savez(tmp_path / "two.npz", a=[1.0], b=ROWS)
    np.testing.assert_array_equal(tables.read(str(tmp_path / name)).X, ROWS)


@pytest.mark.parametrize(("columns", "picked"), [(["y"], [1]), (["1", "0"], [1, 0]), (["y", "0"], [1, 0]), (["z 2"], [2])])
def test_columns_are_chosen_by_name_or_number(tmp_path, columns, picked):
    """In the order asked for; text in the columns left out does not matter."""
    (tmp_path / "x.csv").write_text("x,y,z 2,word\n1,2,3,a\n4,5,6,b\n")
    table = tables.read(str(tmp_path / "x.csv"), columns)
    np.testing.assert_array_equal(table.X, np.array([[1, 2, 3], [4, 5, 6]])[:, picked])


def test_stdin_is_read():
    """- is CSV on stdin."""
    with open(FAITHFUL, encoding="utf-8") as file:
        ended = process("fit", "-", "-k", 2, input=file.read())
    assert (ended.returncode, ended.stderr) == (0, "")
    assert value(ended.stdout, "log-likelihood") == pytest.approx(emfuse.fit(DATA, 2).log_likelihood, abs=1e-6)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_read(tmp_path):
    """A pipe, such as a shell's <(command), can be read only once, and is."""
    os.mkfifo(tmp_path / "pipe")
    with subprocess.Popen(["cp", FAITHFUL, tmp_path / "pipe"]):
        assert len(tables.read(str(tmp_path / "pipe")).X) == 272


# ---------------------------------------------------------------- what cannot

BAD_CELL = "correct or drop the row, or choose other columns with --columns"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a,b\n1,2\n3,\n", [], f"line 3, column 'b' is empty; {BAD_CELL}"),
        ("a,b\n1,2\n3,x\n", [], f"line 3, column 'b' has 'x', which is not a finite number; {BAD_CELL}"),
        ("1,2\n3,NA\n", [], f"line 2, column 1 has 'NA', which is not a finite number; {BAD_CELL}"),
        ("a,b\n1,2\nnan,4\n", [], f"line 3, column 'a' has 'nan', which is not a finite number; {BAD_CELL}"),
        ("a,b\n1,2\n1e999,4\n", [], f"line 3, column 'a' has '1e999', which is not a finite number; {BAD_CELL}"),
        ("a,b\n\n1,2\n1_0,4\n", [], f"line 4, column 'a' has '1_0', which is not a finite number; {BAD_CELL}"),
        (
            "id,2019\n1,2\n",
            [],
            "line 1, column 0 has 'id', which is not a finite number (not taken for a header, because other cells are numbers); "
            + BAD_CELL,
        ),
        ("a,b\n1,x\n2,y\n", ["--columns", "b"], f"line 2, column 'b' has 'x', which is not a finite number; {BAD_CELL}"),
        ("a,b\n1,2\n3\n", [], "line 3 has 1 cell, and the first row has 2; correct or drop it"),
        ("a,b\n1,2\n3,4,5\n", [], "line 3 has 3 cells, and the first row has 2; correct or drop it"),
        ("a,b\n1,2,3\n", [], "line 2 has 3 cells, and the header has 2; they must be as many"),
        ("a,b\n", [], "there is a header, and no row of numbers below it"),
        ("", [], "there is nothing in it"),
        ("\n\n", [], "there is nothing in it"),
        ("a,b\n1,2\n", ["--columns", "c"], "there is no column 'c'; choose from a, b"),
        ("1,2\n3,4\n", ["--columns", "2"], "there is no column '2'; choose from 0 to 1"),
        ("a,a\n1,2\n", ["--columns", "a"], "2 columns are called 'a'; choose by number, from 0"),
        ("a,b\n1,2\n", ["--columns", "a,0"], "a column was chosen twice: a, 0"),
        ("a\n1\n2\n", ["--weights", "a"], "no column is left beside the weights"),
    ],
)
def test_bad_text_is_refused_where_it_is_bad(call, text, options, message):
    """One line on stderr names file, line and column, and says what to do; exit code 1; nothing is written."""
    with open("bad.csv", "w", encoding="utf-8") as file:
        file.write(text)
    assert call("fit", "bad.csv", "-k", 1, "--out", "m.json", *options) == (1, "", f"emfuse: error: bad.csv: {message}\n")
    assert os.listdir() == ["bad.csv"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "a,b\n".encode("utf-16"), "not UTF-8 text; save it as CSV in UTF-8, or as .npy"),
        ("x.csv", b"a,\xe9\n1,2\n", "not UTF-8 text; save it as CSV in UTF-8, or as .npy"),
        ("x.csv.gz", b"a,b\n1,2\n", "Not a gzipped file (b'a,')"),
        ("x.npy", b"", "not a whole NumPy file of plain numbers"),
        ("x.npy", b"1,2\n3,4\n", "not a whole NumPy file of plain numbers"),
        ("x.npz", b"PK\x03\x04", "not a whole NumPy file of plain numbers"),
    ],
)
def test_what_is_no_data_is_refused(call, name, content, message):
    """Bytes of another kind are one line on stderr, and exit code 1."""
    with open(name, "wb") as file:
        file.write(content)
    assert call("fit", name, "-k", 1) == (1, "", f"emfuse: error: {name}: {message}\n")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([None, 1.0]), "not a whole NumPy file of plain numbers"),
        (np.zeros((2, 2, 2)), "X must be 2-D, rows x features (or 1-D, for one feature), got shape (2, 2, 2)"),
        (np.array(["a"]), "X must be real numbers, got an array of <U1"),
        (np.array([[0.0], [np.inf]]), "X must be finite, got inf (NaN or infinity) in row 1, feature 0; "),
    ],
)
def test_arrays_that_are_no_rows_are_refused(call, array, message):
    """Objects, a third dimension, text and infinity; pickles are never loaded."""
    np.save("x.npy", array, allow_pickle=True)
    code, out, err = call("fit", "x.npy", "-k", 1)
    assert (code, out) == (1, "")
    assert err.startswith(f"emfuse: error: x.npy: {message}")


def test_an_archive_of_many_needs_a_name(call):
    """The names there are, and how to write one."""
    np.savez("x.npz", a=DATA, b=DATA)
    message = "write x.npz:NAME with a name of a, b\n"
    assert call("fit", "x.npz", "-k", 1) == (1, "", f"emfuse: error: x.npz: it has 2 arrays; {message}")
    assert call("fit", "x.npz:c", "-k", 1) == (1, "", f"emfuse: error: x.npz: it has no array 'c'; {message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "Expecting value"),
        ("[1]", "not a saved mixture"),
        ("[" * 100_000, ""),  # deeper than Python goes
        ('{"format": "emfuse.Parameters", "version": 2}', 'saved mixture has "version": 2'),
        ("{columns}", '"columns" must be 2 names, one a feature, got [1, 2]'),
        ("{negative}", "weights must be at least 0, got weights[0] = -1.0"),
    ],
)
def test_a_bad_model_is_refused(call, model, content, message):
    """The file and what is wrong in it, in one line; exit code 1."""
    with open(model, encoding="utf-8") as file:
        whole = json.load(file)
    changed = {"{columns}": whole | {"columns": [1, 2]}, "{negative}": whole | {"weights": [-1.0, 2.0]}}
    with open("bad.json", "w", encoding="utf-8") as file:
        file.write(json.dumps(changed[content]) if content in changed else content)
    code, out, err = call("sample", "bad.json", "-n", 1)
    assert (code, out) == (1, "")
    assert err.startswith(f"emfuse: error: bad.json: {message}") and err.count("\n") == 1


def test_a_model_of_other_columns_is_refused(call, model):
    """Too few, or without the model's names: what there is, and the option that chooses."""
    with open("other.csv", "w", encoding="utf-8") as file:
        file.write("eruptions,delay\n1,2\n")
    choose = "emfuse: error: other.csv: there is no column 'waiting', which the model has; choose from eruptions, delay\n"
    assert call("score", model, "other.csv") == (1, "", choose)
    np.save("one.npy", DATA[:, 0])
    few = "emfuse: error: one.npy: the model has 2 features, and 1 column would be scored: column 0; choose with --columns\n"
    assert call("score", model, "one.npy") == (1, "", few)


def test_a_collapsed_component_is_one_line(call):
    """The library's sentence about it, and exit code 1."""
    with open("same.csv", "w", encoding="utf-8") as file:
        file.write("x\n" + "1\n" * 10)
    code, out, err = call("fit", "same.csv", "-k", 1)
    assert (code, out) == (1, "")
    assert err.startswith("emfuse: error: component 0 has collapsed: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["fit", "gone.csv", "-k", "2"], "gone.csv: No such file or directory"),
        (["fit", "gone.npy", "-k", "2"], "gone.npy: No such file or directory"),
        (["score", "gone.json", FAITHFUL], "gone.json: No such file or directory"),
        (["sample", "gone.json", "-n", "1"], "gone.json: No such file or directory"),
        pytest.param(
            ["fit", ".", "-k", "2"], ".: Is a directory", marks=pytest.mark.skipif(os.name == "nt", reason="other words there")
        ),
        (["fit", FAITHFUL, "-k", "273"], "n_components must be from 1 to the number of rows, 272, got 273"),
    ],
)
def test_what_is_not_there_is_one_line(call, argv, message):
    """The file and the reason, as other commands say it; exit code 1."""
    assert call(*argv) == (1, "", f"emfuse: error: {message}\n")


@pytest.mark.parametrize("option", ["--out", "--labels", "--plot"])
def test_an_output_without_a_folder_is_refused_before_the_fit(call, option):
    """Nothing is fitted for nothing."""
    code, out, err = call("fit", FAITHFUL, "-k", 2, option, "no/such/file.png")
    assert (code, out) == (1, "")
    assert err.startswith("emfuse: error: no/such/file.png: there is no folder ")


def test_a_picture_of_unknown_format_is_refused_before_the_fit(call):
    """The formats that there are."""
    code, out, err = call("fit", FAITHFUL, "-k", 2, "--plot", "fit.xyz")
    assert (code, out) == (1, "")
    assert err.startswith("emfuse: error: fit.xyz: a picture's name must end with one of ")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: COMMAND; see 'emfuse --help'"),
        (["fit", FAITHFUL], "the following arguments are required: -k; see 'emfuse fit --help'"),
        (["fit", FAITHFUL, "-k", "0"], "argument -k: must be a whole number of at least 1, got '0'; see 'emfuse fit --help'"),
        (["fit", FAITHFUL, "-k", "2.5"], "argument -k: must be a whole number of at least 1, got '2.5'; see 'emfuse fit --help'"),
        (
            ["fit", FAITHFUL, "-k", "2", "--reg-covar", "nan"],
            "argument --reg-covar: must be a number of at least 0, got 'nan'; see 'emfuse fit --help'",
        ),
        (
            ["fit", FAITHFUL, "-k", "2", "--columns", "a,,b"],
            "argument --columns: must be names or numbers with commas between them, got 'a,,b'; see 'emfuse fit --help'",
        ),
        (
            ["sample", "m.json", "-n", "1", "--seed", "-1"],
            "argument --seed: must be a whole number of at least 0, got '-1'; see 'emfuse sample --help'",
        ),
    ],
)
def test_a_wrong_command_line_is_a_2(call, argv, message):
    """One line that says what and where to read more; exit code 2."""
    assert call(*argv) == (2, "", f"emfuse: error: {message}\n")


# ---------------------------------------------------------------- a good citizen


COMMANDS = ("fit", "select", "score", "sample", "plot", "kernels", "demo", "completion")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(call, command):
    """Each command's help has lines that can be typed: the parser understands them."""
    code, out, err = call(command, "--help")
    assert (code, err) == (0, "")
    lines = re.findall(rf"^  (?:\w+=\w+ )?emfuse ({command}.*?)(?: > .*)?$", out[out.index("example:\n") :], re.MULTILINE)
    assert lines
    for line in lines:
        assert cli._parsed(shlex.split(line)).command == command


@pytest.mark.parametrize("columns", [80, 100, 300])
@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_fits_its_terminal(call, monkeypatch, command, columns):
    """No line is longer than the terminal is wide, nor than 100 columns, which are easier to read than 300."""
    monkeypatch.setenv("COLUMNS", str(columns))
    out = call(*[command] * (command is not None), "--help")[1]
    assert max(map(len, out.splitlines())) <= min(columns, 100)


@pytest.mark.parametrize("argv", [["--help"], ["fit", "--help"], ["kernels"], ["completion", "bash"]])
def test_what_is_quick_imports_nothing_heavy(argv):
    """Half a second of matplotlib before a line of help would be too long."""
    heavy = ("matplotlib", "sklearn", "scipy", "pandas", "pyarrow", "dask", "distributed")
    code = (
        "import sys, emfuse.cli\n"
        "try:\n"
        f"    emfuse.cli.main({argv!r})\n"
        "finally:\n"
        f"    print([name for name in {heavy!r} if name in sys.modules], file=sys.stderr)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "[]\n")


def test_the_version_is_the_packages(call):
    """emfuse --version."""
    assert call("--version") == (0, f"emfuse {emfuse.__version__}\n", "")


def test_python_runs_it_as_a_module():
    """Where no script is on the path: the same words and exit codes."""
    ended = [
        subprocess.run([sys.executable, "-m", "emfuse", *a], capture_output=True, text=True) for a in (["--version"], ["fits"])
    ]
    assert [each.returncode for each in ended] == [0, 2]
    assert ended[0].stdout == f"emfuse {emfuse.__version__}\n" and ended[1].stderr.startswith("emfuse: error: ")


def test_kernels_marks_the_build_in_use(call):
    """Every build is listed, those that do not run here with the reason, and one has the mark."""
    with emfuse.kernels.use("reference"):
        code, out, _ = call("kernels")
    assert code == 0
    assert [line.split()[1] for line in out.splitlines() if line.startswith("*")] == ["reference"]
    for name in emfuse.kernels.runnable() + [f"{name}  no: {why}" for name, why in emfuse.kernels.not_runnable().items()]:
        assert name in " ".join(out.split(" "))


def test_kernels_helps_where_the_variable_is_wrong():
    """EMFUSE_KERNEL=nonsense: the table of what runs here, one line of error, exit code 1."""
    ended = process("kernels", env=os.environ | {"EMFUSE_KERNEL": "nonsense"})
    assert ended.returncode == 1
    assert "reference  runs here" in ended.stdout
    assert ended.stderr.startswith("emfuse: error: environment variable EMFUSE_KERNEL 'nonsense' does not run here")


def test_ctrl_c_is_quiet(call, monkeypatch):
    """Exit code 130 and not a word."""

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(emfuse, "fit", interrupted)
    assert call("fit", FAITHFUL, "-k", 2) == (130, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("more", [[], ["--memory-limit", 1]])
def test_ctrl_c_in_the_middle_of_a_fit_is_quiet(tmp_path, more):
    """A real signal, from memory and from a file: exit code 130, and not a word but the progress that was asked for."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(100_000, 4)))
    endless = ["-k", 20, "--gain", 1e-300, "--acceleration", "none", "--max-sweeps", 10**9, "--verbose", *more]
    command = [sys.executable, "-m", "emfuse.cli", "fit", tmp_path / "x.npy", *endless]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as ended:
        while "sweep" not in (line := ended.stderr.readline()):
            assert line
        ended.send_signal(signal.SIGINT)
        out, err = ended.communicate(timeout=60)
    assert (ended.returncode, out) == (130, "")
    assert all(line.startswith("EM") for line in err.splitlines())


@pytest.mark.skipif(sys.platform == "win32", reason="pipes close otherwise there")
def test_a_closed_pipe_is_quiet(call, model):
    """emfuse sample | head: exit code 141, as the shell has for `cat`, and not a word."""
    command = [sys.executable, "-m", "emfuse.cli", "sample", model, "-n", "200000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ended:
        assert ended.stdout.readline() == b"eruptions,waiting\n"
        ended.stdout.close()
        assert ended.stderr.read() == b""
    assert ended.returncode == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_one_line(call, model):
    """Neither a traceback nor a complaint of the interpreter as it ends."""
    with open("/dev/full", "w", encoding="utf-8") as full:
        command = [sys.executable, "-m", "emfuse.cli", "sample", model, "-n", "10"]
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (1, "emfuse: error: No space left on device\n")


def test_a_terminal_without_plus_minus_is_no_failure():
    """On an ASCII terminal the sign is spelt out."""
    ended = process("fit", FAITHFUL, "-k", 2, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_file_is_replaced_whole_or_not_at_all(call, model):
    """Where writing fails, the file of before is still there, and nothing beside it."""
    before = sorted(os.listdir())
    with pytest.raises(RuntimeError), tables.replacing(model) as out:
        out.write(b"half a file")
        raise RuntimeError
    assert sorted(os.listdir()) == before
    assert emfuse.Parameters.load(model).n_components == 2


def test_a_link_stays_a_link(call):
    """--out through a symbolic link writes the file that it points to."""
    open("real.json", "w").close()
    try:
        os.symlink("real.json", "link.json")
    except OSError:
        pytest.skip("needs symbolic links")
    assert call("fit", FAITHFUL, "-k", 2, "--out", "link.json")[0] == 0
    assert os.path.islink("link.json") and emfuse.Parameters.load("real.json").n_components == 2


def test_a_device_is_written_to_and_stays(call, model):
    """--out /dev/stdout prints after the rest; the device is not replaced by a file."""
    if not os.path.exists("/dev/stdout"):
        pytest.skip("needs /dev/stdout")
    ended = process("fit", FAITHFUL, "-k", 2, "--labels", "/dev/stdout")
    lines = ended.stdout.splitlines()
    assert (ended.returncode, lines[-1]) == (0, "labels           /dev/stdout")
    assert lines[-274] == "label" and len(lines[0].split()) == 2


def test_the_embedded_data_are_old_faithfuls():
    """272 eruptions; the sums of R's datasets::faithful: 948.677 and 19284 minutes."""
    assert DATA.shape == (272, 2)
    np.testing.assert_allclose(DATA.sum(axis=0), [948.677, 19284.0], rtol=1e-12)

"""Films: which sweeps have a frame, that a file has as many as it should, and that it is whole or not there."""

import os
import stat
import sys

import numpy as np
import pytest
from PIL import Image

import emfuse
from emfuse import film, plots

ONE = emfuse.Parameters.univariate([0.5, 0.5], [45.0, 60.0], [5.0, 5.0])
TWO = emfuse.Parameters([0.5, 0.5], [[0.0, 0.0], [10.0, 5.0]], [1.0, 4.0], "spherical")


@pytest.fixture(scope="module")
def fit():
    """A fit of five sweeps of two features, its rows, and what it is of."""
    X = TWO.sample(60, 0)[0]
    start = emfuse.Parameters([0.5, 0.5], [[3.0, 0.0], [6.0, 5.0]], [9.0, 9.0], "spherical")
    return emfuse.em(X, start, stop=4, history=True), X


def frame(number):
    """A small picture that is different for each number."""
    made = np.full((12, 16, 4), 255, dtype=np.uint8)
    made[number % 12, :, :3] = (0, 90, 180)
    return made


@pytest.fixture
def ffmpeg(tmp_path, monkeypatch):
    """Function that puts a program called ffmpeg on the PATH: lines of Python, which have its arguments in sys.argv."""

    def made(code):
        program = tmp_path / "bin" / "ffmpeg"
        program.parent.mkdir()
        program.write_text(f"#!{sys.executable}\nimport sys\n{code}\n", encoding="utf-8")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", os.fspath(program.parent))

    return made


@pytest.mark.parametrize(
    ("log_likelihoods", "most", "expected"),
    [
        ([-3.0], 2, [0]),
        ([-3.0, -2.0, -1.0], 3, [0, 1, 2]),
        (list(range(101)), 6, [0, 1, 2, 35, 68, 100]),  # equal gains: a third of what is left each
        ([0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 100.0], 4, [0, 1, 2, 7]),  # the last half of the gain is in one sweep
        ([0.0, 1.0, 1.0, 1.0, 1.0], 4, [0, 1, 4]),  # nothing is gained: no frame but the last
        ([0.0, 1.0, -5.0, 2.0, 3.0, 2.0], 4, [0, 1, 3, 5]),  # a fall is no gain
    ],
)
def test_the_first_sweeps_are_all_there_and_later_ones_gain_equally(log_likelihoods, most, expected):
    """Half of the frames are the first sweeps; the last is always one."""
    assert film.chosen(log_likelihoods, most) == expected


@pytest.mark.parametrize("most", [2, 3, 50, 200])
def test_there_are_no_more_frames_than_asked_for(most):
    """Of ten thousand sweeps that gain less and less, in rising order, with the first and the last."""
    which = film.chosen(-np.exp(-np.arange(10_000) / 300.0), most)
    assert len(which) <= most
    assert which == sorted(set(which))
    assert (which[0], which[-1]) == (0, 9_999)
    assert which[: most // 2] == list(range(most // 2))


def test_a_gif_has_every_frame_and_stays_at_the_last(tmp_path):
    """Seven frames of a tenth of a second, the last of two seconds; it begins again for ever."""
    film.write(frame, 7, tmp_path / "a.gif", fps=10.0)
    with Image.open(tmp_path / "a.gif") as made:
        assert (made.n_frames, made.size, made.info["loop"]) == (7, (16, 12), 0)
        durations = []
        for i in range(7):
            made.seek(i)
            durations.append(made.info["duration"])
            found = np.array(made.convert("RGB"))
            assert (found[i] == (0, 90, 180)).all() and (np.delete(found, i, axis=0) == 255).all()
    assert durations == [100] * 6 + [2000]


def test_a_gif_of_one_frame_can_be_written(tmp_path):
    """A fit that stopped at its start is a film too."""
    film.write(frame, 1, tmp_path / "a.gif", fps=10.0)
    with Image.open(tmp_path / "a.gif") as made:
        assert made.n_frames == 1


def test_a_folder_gets_numbered_pictures(tmp_path):
    """Frame by frame, to the last bit; the folder is made, and may be there already."""
    for _ in range(2):
        film.write(frame, 3, tmp_path / "deep" / "frames", fps=10.0)
    paths = sorted((tmp_path / "deep" / "frames").iterdir())
    assert [path.name for path in paths] == ["frame_0000.png", "frame_0001.png", "frame_0002.png"]
    for i, path in enumerate(paths):
        np.testing.assert_array_equal(np.array(Image.open(path)), frame(i))


def test_ffmpeg_gets_every_frame(ffmpeg, tmp_path):
    """Raw pixels of the size and speed that it is told, and the last frame again for two seconds: 3 + 2 x 5 of them."""
    ffmpeg("open(sys.argv[-1], 'wb').write(' '.join(sys.argv).encode() + b'\\n' + sys.stdin.buffer.read())")
    film.write(frame, 3, tmp_path / "a.mp4", fps=5.0)
    told, _, pixels = (tmp_path / "a.mp4").read_bytes().partition(b"\n")
    assert b"-pix_fmt rgba -s 16x12 -r 5 " in told
    assert pixels == b"".join(frame(min(i, 2)).tobytes() for i in range(3 + 10))


def test_what_ffmpeg_complains_of_is_told(ffmpeg, tmp_path):
    """Its words are in the error; the film that was there before is still there, and nothing else."""
    ffmpeg("sys.stderr.write('no such codec'); sys.exit(3)")
    (tmp_path / "a.mp4").write_text("before", encoding="utf-8")
    with pytest.raises(OSError, match=r"a\.mp4: ffmpeg could not write it: no such codec"):
        film.write(frame, 3, tmp_path / "a.mp4", fps=5.0)
    assert (tmp_path / "a.mp4").read_text(encoding="utf-8") == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "bin"]


def test_without_ffmpeg_the_way_out_is_said(tmp_path, monkeypatch):
    """No frame is drawn for nothing."""
    monkeypatch.setenv("PATH", os.fspath(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"a\.mp4: an \.mp4 is made by the program ffmpeg.*write a \.gif or a folder"):
        film.write(None, 3, tmp_path / "a.mp4", fps=5.0)


@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
def test_a_film_is_whole_or_not_there(name, ffmpeg, tmp_path):
    """A frame that cannot be drawn leaves what was there before, and nothing else."""
    ffmpeg("sys.stdin.buffer.read()")

    def broken(number):
        if number == 4:
            raise RuntimeError("no more paint")
        return frame(number)

    (tmp_path / name).write_text("before", encoding="utf-8")
    with pytest.raises(RuntimeError, match="no more paint"):
        film.write(broken, 6, tmp_path / name, fps=5.0)
    assert (tmp_path / name).read_text(encoding="utf-8") == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == [name, "bin"]


@pytest.mark.parametrize(
    ("path", "fps", "kind", "message"),
    [
        ("a.avi", 5.0, ValueError, r"a\.avi: a film's name must end with \.gif or \.mp4, or be a folder's, for PNG files"),
        ("a.gif", 0.0, ValueError, r"fps must be above 0 and at most 100 frames a second, got 0\.0"),
        ("a.gif", float("nan"), ValueError, r"fps must be above 0 and at most 100 frames a second, got nan"),
        ("none/a.gif", 5.0, FileNotFoundError, r"a\.gif: there is no folder none"),
    ],
)
def test_what_cannot_be_written_says_why(path, fps, kind, message, tmp_path, monkeypatch):
    """Before anything is drawn."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=message):
        film.write(None, 3, path, fps=fps)


def test_a_fit_becomes_a_film_of_its_sweeps(fit, tmp_path):
    """As many frames as sweeps are returned, which are those of the history."""
    assert plots.film(*fit, tmp_path / "em.gif") == [0, 1, 2, 3, 4]
    with Image.open(tmp_path / "em.gif") as made:
        assert made.n_frames == 5


def test_a_long_fit_is_thinned(fit, tmp_path):
    """Three frames of five: the first, and the last, and one in between."""
    drawn = plots.film(*fit, tmp_path / "em.gif", most=3)
    assert (len(drawn), drawn[0], drawn[-1]) == (3, 0, 4)
    with Image.open(tmp_path / "em.gif") as made:
        assert made.n_frames == 3


@pytest.mark.parametrize("D", [1, 2])
def test_a_film_does_not_shake(D, tmp_path):
    """What stands left of the axes is the same in every frame, and what is in them is not: axes and scales stay."""
    p = ONE if D == 1 else TWO
    start = ONE if D == 1 else emfuse.Parameters([0.5, 0.5], [[3.0, 0.0], [6.0, 5.0]], [9.0, 90.0], "spherical")
    X = emfuse.Parameters.univariate([0.4, 0.6], [55.0, 80.0], [5.0, 6.0]).sample(90, 0)[0] if D == 1 else p.sample(90, 0)[0]
    plots.film(emfuse.em(X, start, stop=6, history=True), X, tmp_path / "em")
    frames = np.stack([np.array(Image.open(path)) for path in sorted((tmp_path / "em").iterdir())])
    top, left = 40, 55  # pixels: the title, which has the sweep's number; ticks and labels
    assert (frames[:, top:, :left] == frames[0, top:, :left]).all()
    assert not (frames[:, top:, left:] == frames[0, top:, left:]).all()


def test_a_frame_says_which_sweep_it_is_and_its_log_likelihood(fit, monkeypatch):
    """In the title of each."""
    titles = []

    def write(draw, count, path, *, fps):
        assert (count, path, fps) == (5, "em.gif", 10.0)
        monkeypatch.setattr(plots.Axes, "set_title", lambda ax, text, **style: titles.append(text))
        for i in range(count):
            draw(i)

    monkeypatch.setattr(film, "write", write)
    plots.film(*fit, "em.gif")
    assert titles == [f"sweep {at.sweep}, log-likelihood {at.log_likelihood:.6f} nats" for at in fit[0].history]


def test_any_two_features_can_be_filmed(tmp_path):
    """Of five features, two: those that are asked for."""
    p = emfuse.Parameters([1.0], [np.zeros(5)], [1.0], "spherical")
    X = p.sample(20, 0)[0]
    assert plots.film(emfuse.em(X, p, stop=1, history=True), X, tmp_path / "em.gif", features=(4, 1)) == [0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"most": 1}, "a film needs at least 2 frames, got most=1"),
        ({"features": (0, 2)}, "features must be two different ones of 0 to 1"),
        ({"names": ["a"]}, "names must have 2 entries, one a feature, got 1"),
        ({"levels": [-1.0]}, "levels must be numbers of standard deviations above 0"),
    ],
)
def test_what_cannot_be_filmed_says_why(fit, options, message, tmp_path):
    """And nothing is written."""
    with pytest.raises(ValueError, match=message):
        plots.film(*fit, tmp_path / "em.gif", **options)
    assert not list(tmp_path.iterdir())


def test_a_film_needs_a_history(tmp_path):
    """The error says how to get one."""
    fit = emfuse.em([0.0, 1.0, 3.0], ONE, stop=1)
    with pytest.raises(ValueError, match="the fit kept no history: fit again with history=True"):
        plots.film(fit, [0.0, 1.0, 3.0], tmp_path / "em.gif")


def test_the_pictures_of_a_film_need_neither_pyplot_nor_matplotlibs_animation(run, tmp_path):
    """No window, no global state; and emfuse.film alone needs neither matplotlib nor Pillow."""
    code = f"""
import sys, emfuse.film
assert not {{"matplotlib", "PIL"}} & set(sys.modules)
p = emfuse.Parameters.univariate([1], [0], [1])
emfuse.plots.film(emfuse.em([0.0, 1.0], p, stop=1, history=True), [0.0, 1.0], {os.fspath(tmp_path / "a.gif")!r})
print({{"matplotlib.pyplot", "matplotlib.animation"}} & set(sys.modules))
"""
    assert run(code) == "set()"


def test_a_slider_shows_the_frame_of_its_sweep(fit, tmp_path):
    """The same pictures as the film's, one at a time."""
    pytest.importorskip("ipywidgets", reason="a slider is for notebooks, where ipywidgets is")
    sweeps = plots.film(*fit, tmp_path / "frames")
    position, picture = plots.slider(*fit).children
    assert list(position.options) == sweeps
    for i in (0, 3, 1):
        position.index = i
        assert picture.value == (tmp_path / "frames" / f"frame_{i:04}.png").read_bytes()


def test_without_ipywidgets_the_way_to_get_it_is_said(fit, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(ImportError, match="pip install ipywidgets"):
        plots.slider(*fit)

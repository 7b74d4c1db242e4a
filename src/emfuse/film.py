"""Films: which sweeps of a fit are worth a frame, and how frames become a file. What a frame shows is drawn by `emfuse.plots`.

A long fit has thousands of sweeps, most of which change nothing that can be seen: a film has the first ones all, and of the later
ones one for each equal share of what they gain in log-likelihood.

Layer 5.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from emfuse import tables

Frame: TypeAlias = NDArray[np.uint8]

LAST_SECONDS = 2.0  # how long the last frame stays: it is the result
FRAMES_SEEN = 4  # frames from which a GIF's 256 colours are taken
NEAR_PAPER = 12  # of 255: Pillow finds the nearest colour only about so well


def chosen(log_likelihoods: Sequence[float], most: int) -> list[int]:
    """Return which sweeps to draw: the first `most` / 2 and the last, and between them at most so many that gain equally.

    log_likelihoods : (T,)    nats, as in `Fit.trace`; a fall counts as no gain
    most : int                frames, at least 2

    Raises ValueError where `most` is less.
    """
    if most < 2:
        raise ValueError(f"a film needs at least 2 frames, got most={most}")
    T = len(log_likelihoods)
    if most >= T:
        return list(range(T))
    first = most // 2
    reached = np.maximum.accumulate(np.asarray(log_likelihoods, dtype=np.float64)[first - 1 :])
    wanted = np.linspace(reached[0], reached[-1], most - first + 1)[1:-1]
    later = first - 1 + np.searchsorted(reached, wanted)
    return sorted({*range(first), *later.tolist(), T - 1})


def write(draw: Callable[[int], Frame], count: int, path: str | os.PathLike[str], *, fps: float) -> None:
    """Write `count` frames to `path`: a .gif, an .mp4 (by the program ffmpeg), or a folder of PNG files, which is made.

    draw : function    frame number -> (H, W, 4) uint8, all of one size; each is asked for when its turn has come, and some twice
    fps : float        frames a second; the last one stays for two seconds. A folder has no speed

    A file is in its place when it is whole, and not before; PNG files of the same names in a folder are replaced.
    Raises ValueError for another ending or a speed of 0; FileNotFoundError where ffmpeg is missing; OSError where it failed.
    """
    if not 0.0 < fps <= 100.0:
        raise ValueError(f"fps must be above 0 and at most 100 frames a second, got {fps!r}")
    target = Path(path)
    writer = {".gif": _gif, ".mp4": _mp4, "": _folder}.get("" if target.is_dir() else target.suffix.lower())
    if writer is None:
        raise ValueError(f"{target}: a film's name must end with .gif or .mp4, or be a folder's, for PNG files")
    if target.suffix and not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: there is no folder {target.parent}")
    writer(draw, count, target, fps)


def png(frame: Frame) -> bytes:
    """Return a frame, (H, W, 4) uint8, as the bytes of a PNG file."""
    from PIL import Image

    made = BytesIO()
    Image.fromarray(np.ascontiguousarray(frame)).save(made, format="PNG")
    return made.getvalue()


def _gif(draw: Callable[[int], Frame], count: int, target: Path, fps: float) -> None:
    from PIL import Image

    looked_at = np.unique(np.linspace(0, count - 1, FRAMES_SEEN).astype(int)).tolist()
    seen = Image.fromarray(np.concatenate([draw(i)[..., :3] for i in looked_at])).quantize(256)
    colours = np.array(seen.getpalette(), dtype=np.uint8).reshape(-1, 3)
    paper = np.asarray(draw(0))[0, 0, :3].astype(int)  # a large part of each frame, which quantising would tint
    colours[np.abs(colours - paper).max(axis=1) <= NEAR_PAPER] = paper
    colours[cast(int, seen.getpixel((0, 0)))] = paper
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.ravel().tolist())

    def picture(i: int) -> Image.Image:  # one palette for all, or colours would flicker; no dither, which would too
        return Image.fromarray(np.ascontiguousarray(draw(i)[..., :3])).quantize(palette=palette, dither=Image.Dither.NONE)

    milliseconds = [1e3 / fps] * (count - 1) + [1e3 * max(LAST_SECONDS, 1.0 / fps)]
    durations = [10 * max(2, round(each / 10.0)) for each in milliseconds]  # a GIF counts hundredths, and few viewers take one
    with tables.replacing(os.fspath(target)) as out:
        picture(0).save(
            out,
            format="GIF",
            save_all=True,
            append_images=(picture(i) for i in range(1, count)),
            duration=durations if count > 1 else durations[0],
            loop=0,
        )


def _mp4(draw: Callable[[int], Frame], count: int, target: Path, fps: float) -> None:
    program = shutil.which("ffmpeg")
    if program is None:
        raise FileNotFoundError(
            f"{target}: an .mp4 is made by the program ffmpeg, which is not on the PATH. Install it, or write a .gif or a folder."
        )
    first = draw(0)
    height, width = first.shape[:2]
    rest = chain((draw(i) for i in range(1, count)), [draw(count - 1)] * round(LAST_SECONDS * fps))
    with tempfile.TemporaryDirectory(dir=target.resolve().parent, prefix=".film-") as folder:
        made = Path(folder) / "film.mp4"
        given = f"-v error -y -f rawvideo -pix_fmt rgba -s {width}x{height} -r {fps:g} -i -"
        # H.264 halves the colours' resolution, so its sizes are even; players do not know another format of pixels
        into = "-vf pad=ceil(iw/2)*2:ceil(ih/2)*2 -c:v libx264 -crf 20 -pix_fmt yuv420p -movflags +faststart"
        command = [program, *shlex.split(f"{given} {into}"), str(made)]
        with (Path(folder) / "errors").open("w+b") as errors:
            running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=errors, stderr=errors)
            assert running.stdin is not None
            try:
                for frame in chain([first], rest):
                    running.stdin.write(np.ascontiguousarray(frame).tobytes())
                running.stdin.close()
            except BrokenPipeError:
                pass  # it gave up; what it said says why
            except BaseException:
                running.kill()
                raise
            finally:
                ended = running.wait()
            if ended != 0 or not made.exists():
                errors.seek(0)
                said = errors.read().decode(errors="replace").strip() or f"exit code {ended}"
                raise OSError(f"{target}: ffmpeg could not write it: {said}")
        os.replace(made, target)


def _folder(draw: Callable[[int], Frame], count: int, target: Path, fps: float) -> None:
    target.mkdir(parents=True, exist_ok=True)
    digits = max(4, len(str(count - 1)))
    for i in range(count):
        (target / f"frame_{i:0{digits}}.png").write_bytes(png(draw(i)))

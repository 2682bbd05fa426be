"""NYU Depth v2: images with depth in metres.

`nyu:FOLDER` reads pairs of an image and a 16-bit PNG in millimetres (0: unknown), by the names under which they are passed
on: `rgb_N.jpg` with `sync_depth_N.png`, `N_colors.png` with `N_depth.png`, or `rgb/N` (`images/N`) with `depth/N.png`; or
files `*.h5` with `rgb` u8[3 h w] and `depth` f[h w] in metres. `nyu:nyu_depth_v2_labeled.mat` is the labelled set: depth
and 894 classes, 0 unlabelled. The last two need the extra `nyu` (h5py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from datasetdm.errors import ConfigError, DataError
from datasetdm.io.codecs import MAX_PIXELS
from datasetdm.io.files import require_regular
from datasetdm.readers.depths import MILLIMETRE, read_depth
from datasetdm.readers.places import IMAGE, files_in, pairs
from datasetdm.readers.source import FilesSource, Item, Source, caption_prompt
from datasetdm.records import IGNORE, Annotations, DepthMap, Labels, Provenance, Sample, SemanticMap

LAYOUT = """\
FOLDER/                          one of these pairs
  rgb_N.jpg, sync_depth_N.png    16 bits, millimetres, 0 unknown
  N_colors.png, N_depth.png
  rgb/NAME.jpg, depth/NAME.png   (or images/NAME.jpg)
  NAME.h5                        rgb u8[3 h w], depth in metres

nyu_depth_v2_labeled.mat         the labelled set
"""

NO_LABELS = Labels(("image",))
RULES = {
    "depth": (
        (rf"(.*/|)rgb_(\d+){IMAGE}", r"\1sync_depth_\2.png"),
        (rf"(.*)_colors{IMAGE}", r"\1_depth.png"),
        (rf"(.*/|)(?:rgb|images)/(.+){IMAGE}", r"\1depth/\2.png"),
    )
}


def open_nyu(path: str, images: Path | None = None) -> Source:
    """The source of a folder or of a .mat file."""
    place = Path(path)
    if place.suffix == ".mat":
        return MatSource(place)
    return H5Source(place) if files_in(place, ".h5", ".hdf5") else NyuSource(place)


class NyuSource(FilesSource):
    """Pairs of files. Its only label is `image`, which no sample carries."""

    labels = NO_LABELS

    def __init__(self, root: Path):
        found = pairs(root, RULES, "rgb_N.jpg with sync_depth_N.png, N_colors.png with N_depth.png, rgb/ with depth/")
        self.items, self.orphan_errors, self.notes = found.items, found.orphan_errors, found.notes

    def records(self, item: Item, size: tuple[int, int]) -> Annotations:
        """Depth."""
        return Annotations(depth=read_depth(item.maps["depth"], item.maps["depth"], size, MILLIMETRE))


class H5Source(Source):
    """One HDF5 file a sample."""

    labels = NO_LABELS

    def __init__(self, root: Path):
        self.root, self._files = root, files_in(root, ".h5", ".hdf5")
        _h5py()

    def __len__(self) -> int:
        return len(self._files)

    def check(self, index: int) -> None:
        """The file has both arrays, in one size."""
        path = self._files[index]
        with _opened(path) as f:
            rgb, depth = _dataset(f, "rgb", path, 3), _dataset(f, "depth", path, 2)
            if rgb.dtype != np.uint8 or rgb.shape != (3, *depth.shape) or depth.dtype.kind not in "fui":
                what = f"rgb is {rgb.dtype} {rgb.shape}, depth {depth.dtype} {depth.shape}"
                raise DataError(what, where=path, expected="rgb u8[3 h w] and depth [h w]")

    def __getitem__(self, index: int) -> Sample:
        self.check(index)
        path = self._files[index]
        with _opened(path) as f:
            image, metres = _read(f["rgb"], path), _read(f["depth"], path, np.float32)
        key = path.relative_to(self.root).with_suffix("").as_posix()
        pixels, depth = image.transpose(1, 2, 0), _metres(metres, path)
        return Sample(key, pixels, self.labels, depth=depth, provenance=Provenance(path.name))


class MatSource(Source):
    """The labelled set, whose arrays have their axes reversed: `images` [n 3 w h], `depths` and `labels` [n w h]."""

    def __init__(self, path: Path):
        self.path, self._file = path, _opened(path)
        self._images = _dataset(self._file, "images", path, 4)
        self._depths, self._ids = (_dataset(self._file, k, path, 3) for k in ("depths", "labels"))
        n, _, w, h = self._images.shape
        if self._depths.shape != (n, w, h) or self._ids.shape != (n, w, h):
            raise DataError("images, depths and labels differ in size", where=path, expected="one of each a sample")
        for name, array, kinds in (
            ("images", self._images, "u"),
            ("depths", self._depths, "fui"),
            ("labels", self._ids, "ui"),
        ):
            if array.dtype.kind not in kinds:
                raise DataError(f"{name} holds {array.dtype}", where=path, expected="numbers")
        self.labels = Labels(self._names())

    def _names(self) -> tuple[str, ...]:
        """The classes' names, each an array of characters to which `names` refers."""
        try:
            refs = np.asarray(_dataset(self._file, "names", self.path, 2)).ravel()
            return tuple("".join(map(chr, np.asarray(self._file[r]).ravel())) for r in refs)
        except (OSError, TypeError, ValueError, KeyError, OverflowError) as e:
            raise DataError(
                f"the classes' names cannot be read: {e}", where=f"{self.path}, names", expected="references to texts"
            ) from e

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        where = f"{self.path}, sample {index}"
        ids = _read(self._ids, where, np.int64, index).T
        if ids.max(initial=0) > len(self.labels) or ids.min(initial=0) < 0:
            raise DataError(f"label {ids.max()} has no name", where=where, expected=f"0..{len(self.labels)}")
        semantic = SemanticMap(np.where(ids == 0, IGNORE, ids - 1).astype(np.uint16))
        depth = _metres(_read(self._depths, where, np.float32, index).T, where)
        present = tuple(self.labels.names[i - 1] for i in np.unique(ids).tolist() if i)
        image = _read(self._images, where, np.uint8, index).transpose(2, 1, 0)
        return Sample(
            f"{index:04d}", image, self.labels, caption_prompt(None, present),
            semantic=semantic, depth=depth, provenance=Provenance(index=index),
        )  # fmt: skip


def _metres(depth: np.ndarray, where: object) -> DepthMap:
    if not np.isfinite(depth).all() or (depth < 0).any():
        raise DataError("depth is negative or not finite", where=where, expected="metres, 0 where it is unknown")
    return DepthMap(depth, depth > 0)


def _read(dataset: Any, where: object, dtype: type = np.uint8, index: int | None = None) -> np.ndarray:
    """An array of a file, or the part of it that belongs to a sample."""
    try:
        shape = dataset.shape if index is None else dataset.shape[1:]
        if np.prod(shape, dtype=np.float64) > 3 * MAX_PIXELS:
            raise ValueError(f"its shape is {shape}")
        return np.asarray(dataset[()] if index is None else dataset[index]).astype(dtype)
    except (OSError, TypeError, ValueError, MemoryError) as e:
        raise DataError(f"an array cannot be read: {e}", where=where, expected="NYU's arrays") from e


def _h5py() -> Any:
    try:
        import h5py
    except ImportError as e:
        remedy = "pip install 'datasetdm[nyu]'"
        raise ConfigError("reading HDF5 needs h5py", expected="the extra nyu", remedy=remedy) from e
    return h5py


def _opened(path: Path) -> Any:
    try:
        h5py = _h5py()
        require_regular(path)
        return h5py.File(path, "r")
    except (OSError, ValueError, RuntimeError) as e:
        raise DataError(f"the file cannot be read: {e}", where=path, expected="HDF5") from e


def _dataset(file: Any, name: str, path: Path, axes: int) -> Any:
    try:
        value = file.get(name)
    except (KeyError, OSError, RuntimeError, ValueError) as e:
        raise DataError(f"the array {name} cannot be read: {e}", where=path, expected="NYU's arrays") from e
    if value is None or getattr(value, "ndim", None) != axes:
        raise DataError(f"the file has no array {name} of {axes} axes", where=path, expected="NYU's arrays")
    return value

"""Depth: AbsRel, delta1 to delta3, RMSE, with and without the image's median scale."""

from __future__ import annotations

import numpy as np

from datasetdm.records import AnnotationName, Sample


class DepthMeter:
    """Errors of depth over the truth's valid pixels, averaged in each image, then over images (Eigen et al. 2014).

    absrel: |predicted - true| / true. delta1: share with max(predicted / true, true / predicted) < 1.25; delta2 and delta3: below
    its square and cube. rmse in the truth's unit. `_scaled`: after the image's median ratio has been divided out, which leaves
    its shape.
    Pixels that the prediction calls invalid are compared with its depth of 0.
    """

    better = ("delta1", True)
    reads: tuple[AnnotationName, ...] = ("depth",)
    by_label = False
    figures = ("absrel", "delta1", "rmse", "absrel_scaled", "delta1_scaled", "delta2", "delta3")

    def __init__(self) -> None:
        self.rows: list[tuple[float, ...]] = []

    def update(self, predicted: Sample, true: Sample) -> None:
        """Add one image; one without valid depth does not count."""
        assert predicted.depth is not None and true.depth is not None
        ok = true.depth.valid & (true.depth.depth > 0)
        if not ok.any():
            return
        p, t = (s.depth.depth[ok].astype(np.float64) for s in (predicted, true) if s.depth is not None)
        some = p > 0
        scale = np.median(t[some] / p[some]) if some.any() else 1.0
        rmse = float(np.sqrt(np.mean((p - t) ** 2)))
        far = (float(np.mean(_ratio(p, t) < 1.25**n)) for n in (2, 3))
        self.rows.append((*_absrel_delta1(p, t), rmse, *_absrel_delta1(p * scale, t), *far))

    def compute(self) -> dict[str, float]:
        """All figures."""
        mean = np.mean(self.rows, 0) if self.rows else [float("nan")] * len(self.figures)
        return {n: float(v) for n, v in zip(self.figures, mean, strict=True)}

    def by_id(self) -> dict[int, dict[str, float]]:
        """Nothing: depth has no labels."""
        return {}


def _absrel_delta1(p: np.ndarray, t: np.ndarray) -> tuple[float, float]:
    return float(np.mean(np.abs(p - t) / t)), float(np.mean(_ratio(p, t) < 1.25))


def _ratio(p: np.ndarray, t: np.ndarray) -> np.ndarray:
    return np.maximum(np.maximum(p, 1e-6) / t, t / np.maximum(p, 1e-6))

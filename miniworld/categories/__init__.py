"""Every category, one file each.

A module of this folder that holds a `CATEGORY` is found by itself; the others are shared builders.
"""

from __future__ import annotations

import importlib
import pkgutil

from .base import Category, Keypoints, Thing

__all__ = ["CATEGORIES", "Category", "Keypoints", "Thing"]


def _collect() -> dict[str, Category]:
    """All categories by name, in the order of their class ids."""
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    categories = [module.CATEGORY for module in modules if hasattr(module, "CATEGORY")]
    by_id: dict[int, Category] = {}
    for category in categories:
        if not 1 <= category.class_id <= 20:
            raise ValueError(
                f"{category.name}: class id {category.class_id} is not in 1..20 (21 and up are surroundings)"
            )
        other = by_id.setdefault(category.class_id, category)
        if other is not category:
            raise ValueError(f"{category.name} and {other.name} share the class id {category.class_id}")
    return {by_id[class_id].name: by_id[class_id] for class_id in sorted(by_id)}


CATEGORIES: dict[str, Category] = _collect()

"""One table per kind of plug-in: names, and where each is imported from when it is first used."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from datasetdm.errors import ConfigError, unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """Built-in plug-ins of one kind, and those that installed packages offer by an entry point.

    A package adds one with, for readers, `[project.entry-points."datasetdm.readers"]` and `name = "package.module:Class"` in
    its `pyproject.toml`. Nothing of it is imported before it is asked for by name.

    Args:
        kind: the word for one of them in messages, for instance "format".
        group: the entry points' group, for instance "datasetdm.readers"; None if third parties cannot add any.
        table: name -> "module:attribute" of the built-in ones.
    """

    def __init__(self, kind: str, group: str | None, table: Mapping[str, str]):
        self.kind, self.group, self.table = kind, group, dict(table)

    @cached_property
    def _installed(self) -> dict[str, EntryPoint]:
        return {p.name: p for p in entry_points(group=self.group)} if self.group else {}

    def __iter__(self) -> Iterator[str]:
        """All names: the built-in ones in their table's order, then the installed ones sorted."""
        yield from self.table
        yield from sorted(set(self._installed) - set(self.table))

    def __len__(self) -> int:
        return len({*self.table, *self._installed})

    def __contains__(self, name: object) -> bool:
        return name in self.table or name in self._installed

    def load(self, name: str) -> T:
        """The plug-in of this name. A built-in one goes before an installed one.

        Raises:
            ConfigError: an unknown name (with the nearest known one), or an installed plug-in that cannot be imported.
        """
        if name in self.table:
            module, attribute = self.table[name].split(":")
            return cast(T, getattr(importlib.import_module(module), attribute))
        if name not in self._installed:
            raise unknown_name(self.kind, name, self)
        point = self._installed[name]
        try:
            return cast(T, point.load())
        except (ImportError, AttributeError) as e:
            raise ConfigError(
                f"the {self.kind} {name!r} cannot be imported: {e}",
                where=f"entry point {point.value!r} of group {self.group!r}",
                expected="a module and an attribute that exist",
                remedy="update or uninstall the package that offers it",
            ) from e

    def describe(self) -> dict[str, Any]:
        """Name -> where it is imported from."""
        return {name: self.table.get(name) or self._installed[name].value for name in self}

"""Plug-ins: objectives, optimizers and readers that other installed packages bring, found by their entry points.

A package names them in its metadata (``[project.entry-points."danlu.objectives"]`` and so on); nothing of it is
imported before a recipe or a file asks for it. Not for what each kind must be able to do (``training.objectives``,
``training.optimizers``, ``data.readers``).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Final, Literal

from pydantic_core import PydanticCustomError

from danlu.errors import PluginError

Group = Literal["danlu.objectives", "danlu.optimizers", "danlu.readers"]
GROUPS: Final[tuple[Group, ...]] = ("danlu.objectives", "danlu.optimizers", "danlu.readers")
UNKNOWN: Final = "unknown_plugin"


@dataclass(frozen=True)
class Plugin:
    """One entry point.

    Attributes:
        group: which kind it is.
        name: what a recipe calls it.
        package: the package that brings it, with its version.
        entry: where it lies.
    """

    group: Group
    name: str
    package: str
    entry: EntryPoint

    def load(self) -> object:
        """Import it.

        Raises:
            PluginError: it cannot be imported; the message names the package.
        """
        try:
            loaded: object = self.entry.load()
        except Exception as error:  # the code of others may fail in any way
            raise self.broken(f"{type(error).__name__}: {error}") from error
        return loaded

    def make(self, *arguments: object) -> object:
        """Import it and call it: a class is made an object, a function gives one.

        Raises:
            PluginError: it cannot be imported, or not be called so.
        """
        factory = self.load()
        if not callable(factory):
            raise self.broken(f"{self.entry.value} is a {type(factory).__name__}, not a class or a function")
        try:
            made: object = factory(*arguments)
        except Exception as error:  # the code of others may fail in any way
            raise self.broken(f"{type(error).__name__}: {error}") from error
        return made

    def require(self, made: object, methods: Mapping[str, int]) -> None:
        """Check that an object has methods that take so many arguments.

        Raises:
            PluginError: one is missing or takes others.
        """
        for name, count in methods.items():
            method = getattr(made, name, None)
            if not callable(method):
                raise self.broken(f"{self.entry.value} has no method {name}")
            try:
                inspect.signature(method).bind(*[None] * count)
            except TypeError as error:
                raise self.broken(f"{self.entry.value}.{name} does not take {count} arguments ({error})") from error

    def broken(self, reason: str) -> PluginError:
        """Return the error that says what is wrong with it."""
        return PluginError(
            "ground.plugin_broken",
            self.group,
            name=self.name,
            package=self.package,
            reason=" ".join(reason.split()),
        )


def installed(group: Group) -> dict[str, Plugin]:
    """Return the plug-ins of a kind by name, in order.

    Raises:
        PluginError: two packages bring one of the same name.
    """
    found: dict[str, Plugin] = {}
    for entry in sorted(entry_points(group=group), key=lambda item: item.name):
        package = "?" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
        plugin = Plugin(group, entry.name, package, entry)
        other = found.setdefault(entry.name, plugin)
        if other.entry.value != entry.value:
            packages = f"{other.package}, {package}"
            raise PluginError("ground.plugin_twice", group, name=entry.name, packages=packages)
    return found


def find(group: Group, name: str) -> Plugin:
    """Return a plug-in.

    Raises:
        PluginError: there is none of this name; the message says which there are.
    """
    known = installed(group)
    if name not in known:
        raise PluginError("ground.plugin_unknown", group, name=name, known=", ".join(known) or "–")
    return known[name]


def is_objective(name: str) -> str:
    """Check a recipe's value: raise pydantic's error unless an objective of this name is installed."""
    return _checked("danlu.objectives", name)


def is_optimizer(name: str) -> str:
    """Check a recipe's value: raise pydantic's error unless an optimizer of this name is installed."""
    return _checked("danlu.optimizers", name)


def _checked(group: Group, name: str) -> str:
    known = installed(group)
    if name not in known:
        raise PydanticCustomError(UNKNOWN, "unknown plug-in", {"known": ",".join(known)})
    return name

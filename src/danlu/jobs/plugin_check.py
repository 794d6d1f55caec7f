"""Looks whether an installed plug-in can be used, for ``danlu doctor``."""

from __future__ import annotations

from danlu.data.readers import made_reader
from danlu.plugins import Plugin


def check_plugin(plugin: Plugin) -> None:
    """Import a plug-in and check what can be checked without a run.

    Raises:
        PluginError: it is broken; the message names the package.
    """
    if plugin.group == "danlu.readers":
        made_reader(plugin)
    elif plugin.group == "danlu.objectives":
        from danlu.training.plugged import made_objective

        made_objective(plugin)
    elif not callable(plugin.load()):
        raise plugin.broken(f"{plugin.entry.value} is not a class or a function")

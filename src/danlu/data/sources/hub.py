"""Data sets of the Hugging Face Hub and of ModelScope, streamed through ``datasets`` (extra ``danlu[hub]``).

Nothing else of Danlu asks a hub for data. No code of a data set is ever run: ``datasets`` no longer can.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from danlu.data.sources.arrow import plain
from danlu.data.sources.base import Member, Read
from danlu.errors import DataError

_NAME: Final = re.compile(
    r"(?P<hub>hf|ms):(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<config>[\w.-]+))?(?:@(?P<revision>[^:\s]+))?(?::(?P<split>[\w.-]+))?"
)
_TRAIN: Final = "train"
# Seconds that a hub has for its first answer.
_TIMEOUT: Final = 10.0


@dataclass(frozen=True)
class HubName:
    """What names a data set of a hub.

    Attributes:
        hub: ``hf`` or ``ms``.
        name: ``OWNER/NAME``.
        config: one of several sets of files in it; empty for its only one.
        revision: branch, tag or commit; empty for the newest.
        split: ``train`` and the like; empty for ``train``, or the only one.
    """

    hub: Literal["hf", "ms"]
    name: str
    config: str = ""
    revision: str = ""
    split: str = ""

    @property
    def shown_hub(self) -> str:
        """The name of the hub."""
        return "Hugging Face" if self.hub == "hf" else "ModelScope"

    def __str__(self) -> str:
        """Return it as people write it."""
        config = f"/{self.config}" if self.config else ""
        revision = f"@{self.revision}" if self.revision else ""
        split = f":{self.split}" if self.split else ""
        return f"{self.hub}:{self.name}{config}{revision}{split}"


def hub_name(path: Path | str) -> HubName | None:
    """Return the data set of a hub that a text names, or None where it names a file."""
    text = path.as_posix() if isinstance(path, Path) else path
    found = _NAME.fullmatch(text)
    if found is None:
        return None
    part = {key: value or "" for key, value in found.groupdict().items()}
    hub: Literal["hf", "ms"] = "hf" if part["hub"] == "hf" else "ms"
    return HubName(hub, part["name"], part["config"], part["revision"], part["split"])


def hub_rows(hub: HubName) -> Iterator[Read]:
    """Go through the rows of a data set of a hub; lines are rows, from 1.

    Raises:
        DataError: a package is not installed, the hub cannot be reached, there is no such data set, it must be asked
            for first, or it has several splits or configurations and none is named.
    """
    _require(hub, "datasets")
    if hub.hub == "ms":
        _require(hub, "modelscope")
        dataset = opened_dataset(hub, _snapshot(hub))
    else:
        dataset = opened_dataset(hub, hub.name, _commit(hub))
    yield from dataset_rows(hub, dataset)


def opened_dataset(hub: HubName, source: str, commit: str | None = None) -> Any:
    """Open a data set as a stream.

    Args:
        hub: what it is called, with the configuration and split that are wanted.
        source: its name on the Hugging Face Hub, or a folder with its files.
        commit: which commit of it on the Hugging Face Hub; None for a folder.

    Returns:
        A ``datasets.IterableDataset``.

    Raises:
        DataError: see ``hub_rows``.
    """
    import datasets

    try:
        found = datasets.load_dataset(source, hub.config or None, revision=commit, streaming=True)
    except datasets.exceptions.DatasetNotFoundError as error:
        gated = "gated" in str(error).lower()
        raise DataError("files.hub_gated" if gated else "files.hub_unknown", str(hub), hub=hub.shown_hub) from None
    except (ValueError, FileNotFoundError, datasets.exceptions.DatasetsError) as error:
        # Several configurations, one that is not there, or files of no kind that is read: the message names them.
        raise DataError("files.hub_unfit", str(hub), reason=_first_line(error)) from None
    except _network_errors() as error:
        raise _unreachable(hub, error) from None
    splits = [str(name) for name in found]
    wanted = hub.split or (_TRAIN if _TRAIN in splits else splits[0] if len(splits) == 1 else "")
    if wanted not in splits:
        example = str(replace(hub, split=splits[0]))
        raise DataError("files.hub_splits", str(hub), splits=", ".join(splits), example=example)
    return found[wanted]


def dataset_rows(hub: HubName, dataset: Any) -> Iterator[Read]:
    """Go through the rows of an opened data set.

    Raises:
        DataError: the connection broke, a file of it is damaged, or a column holds pictures or sounds.
    """
    import datasets

    member = Member(Path(str(hub)), str(hub))
    rows = iter(dataset)
    number = 0
    while True:
        try:
            values = next(rows, None)
        except (ValueError, datasets.exceptions.DatasetsError) as error:
            raise DataError("files.hub_unfit", str(hub), reason=_first_line(error)) from None
        except _network_errors() as error:
            raise _unreachable(hub, error) from None
        if values is None:
            return
        number += 1
        yield number, {str(name): plain(member, value, number) for name, value in values.items() if value is not None}


def _commit(hub: HubName) -> str:
    """Ask for the commit that a revision is: one short question, where ``datasets`` asks five times and waits.

    Raises:
        DataError: the hub does not answer, or does not have it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return str(HfApi().dataset_info(hub.name, revision=hub.revision or None, timeout=_TIMEOUT).sha)
    except GatedRepoError:
        raise DataError("files.hub_gated", str(hub), hub=hub.shown_hub) from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        raise DataError("files.hub_unknown", str(hub), hub=hub.shown_hub) from None
    except _network_errors() as error:
        raise _unreachable(hub, error) from None


def _snapshot(hub: HubName) -> str:
    """Fetch the files of a data set of ModelScope into its cache.

    Raises:
        DataError: the hub does not answer, or does not have it.
    """
    from modelscope import dataset_snapshot_download

    errors: tuple[type[Exception], ...] = (ValueError, RuntimeError, *_network_errors())
    try:
        return str(dataset_snapshot_download(hub.name, revision=hub.revision or None))
    except errors as error:
        raise _unreachable(hub, error) from None


def _require(hub: HubName, package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise DataError("files.hub_missing", str(hub), package=package)


def _network_errors() -> tuple[type[Exception], ...]:
    """Return what the libraries let through: errors of the system and of their HTTP library (httpx, say)."""
    from huggingface_hub.errors import HfHubHTTPError

    return (next(cls for cls in HfHubHTTPError.__mro__ if cls.__name__ == "HTTPError"), OSError)


def _unreachable(hub: HubName, error: Exception) -> DataError:
    return DataError("files.hub_unreachable", str(hub), hub=hub.shown_hub, reason=_first_line(error))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")

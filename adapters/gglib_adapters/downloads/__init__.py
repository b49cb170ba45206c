"""Files over HTTP: resumed, verified, and put in their place whole."""

from __future__ import annotations

from gglib_adapters.downloads.http import HttpDownloader, open_http_downloader

__all__ = ["HttpDownloader", "open_http_downloader"]

"""llama.cpp's releases: what their archives are called, which fits this machine, what it must be.

Source: .github/workflows/release.yml of ggml-org/llama.cpp, and its releases b10621 to b11476:
binaries are in the prereleases called bNNNN; the API tells a ``digest`` for each asset.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import attrs

from gglib.errors import ConfigurationError, EngineNotFound, InvalidValue
from gglib.ports.downloader import Downloader
from gglib.ports.engine_installer import EngineArchive

__all__ = ["DEFAULT_RELEASE_URL", "DEFAULT_TAG", "Machine", "Releases", "this_machine"]

DEFAULT_RELEASE_URL = "https://github.com/ggml-org/llama.cpp/releases"
#: llama.cpp v0.3.0.
DEFAULT_TAG = "b10621"

_ENGINE = "llama-server"
_TAG = re.compile(r"b[1-9][0-9]{0,8}")
_VARIANT = re.compile(r"[a-z0-9][a-z0-9.-]{0,40}")
_ASSET = re.compile(
    r"llama-(?P<tag>b[0-9]+)-bin-(?P<system>ubuntu|macos|win)-(?:(?P<backend>[a-z0-9.-]+)-)?"
    r"(?P<processor>x64|arm64|s390x)\.(?:zip|tar\.gz)"
)
#: The CUDA libraries, which a machine with a driver alone does not have.
_COMPANION = re.compile(
    r"cudart-llama-(?:b[0-9]+-)?bin-(?P<system>ubuntu|win)-(?P<backend>[a-z0-9.-]+)-"
    r"(?P<processor>x64|arm64)\.(?:zip|tar\.gz)"
)
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MAX_DOCUMENT_BYTES = 8 << 20

#: SHA-256 and size of what ``DEFAULT_TAG`` has, as GitHub's API tells them.
_PINNED: Mapping[str, tuple[str, int]] = {
    "ubuntu-x64.tar.gz": (
        "91d7b03ddae498a39f28fdb85d84d2b4a0fd3838d10b4f897e0ef8975bb9b583",
        16_291_771,
    ),
    "ubuntu-arm64.tar.gz": (
        "95940151be63492f70f659da420b268244cc83a6ee70e310d2600ccdb7ea4deb",
        13_043_001,
    ),
    "ubuntu-vulkan-x64.tar.gz": (
        "3db8e4411033ef4531072be43377e859bcdbf9640c7bb36f9656e538eabd0978",
        32_914_916,
    ),
    "ubuntu-vulkan-arm64.tar.gz": (
        "1267a0e918c37be5ef568b37f9a5de377e47cbe1ea77d4d42e38a20dfff1b358",
        26_774_470,
    ),
    "macos-arm64.tar.gz": (
        "429c8270608600188035e5e92f7d78dffb7900904fe7dd7e6a84f48068cd13cf",
        10_954_823,
    ),
    "macos-x64.tar.gz": (
        "33c44e036e0e223f71a29fc74a0ab3e130ca9eadeb032ecc1c7af25985b8b91b",
        11_034_240,
    ),
    "win-cpu-x64.zip": (
        "0e8b65e650e369f70f8307d890508886f171ef4fb00facccddd4a1b7ffdaca51",
        18_068_018,
    ),
    "win-vulkan-x64.zip": (
        "2672d85bf87c8280d94dee01eb6a86280046878f70a07d786a93637fa9081163",
        34_403_304,
    ),
}


@attrs.frozen
class Machine:
    """What archives are built for, in the words of their names."""

    system: str
    processor: str


def this_machine() -> Machine:
    """Return this machine.

    Raises:
        EngineNotFound: nothing is built for it.
    """
    systems = {"linux": "ubuntu", "darwin": "macos", "win32": "win"}
    processors = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
    system = systems.get(sys.platform)
    processor = processors.get(platform.machine().lower())
    if system is None or processor is None:
        what = f"{sys.platform} on {platform.machine()}"
        raise EngineNotFound(_ENGINE, f"llama.cpp releases nothing for {what}")
    return Machine(system, processor)


@attrs.frozen(kw_only=True)
class _Asset:
    name: str
    url: str
    sha256: str | None
    size_bytes: int | None
    backend: str
    companion: bool = False

    def archive(self) -> EngineArchive:
        return EngineArchive(
            name=self.name, url=self.url, sha256=self.sha256, size_bytes=self.size_bytes
        )


class Releases:
    """Where releases are: GitHub's, or a mirror with the same paths."""

    def __init__(self, url: str, machine: Machine) -> None:
        """``url``: above ``download/TAG/NAME`` and, but for GitHub's own, ``tags/TAG``.

        Raises:
            ConfigurationError: what comes from there could be anybody's.
        """
        parts = urlsplit(url)
        loopback = parts.hostname in {"127.0.0.1", "localhost", "::1"}
        if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
            raise ConfigurationError(
                f"[engines.{_ENGINE}] release_url is {url!r}; expected an https address"
            )
        self._url = url.rstrip("/")
        self._machine = machine

    async def archives(
        self, tag: str, variant: str, downloader: Downloader
    ) -> tuple[EngineArchive, ...]:
        """Return what there is of ``tag`` for this machine, the program's archive first.

        Raises:
            InvalidValue: that is no name of a release or variant.
            EngineNotFound: there is no such release, or none such for this machine.
            DownloadError: the list could not be fetched.
        """
        if not _TAG.fullmatch(tag):
            raise InvalidValue("version", tag, f"a release of llama.cpp, such as {DEFAULT_TAG}")
        if not _VARIANT.fullmatch(variant):
            raise InvalidValue("variant", variant, "cpu, cuda, vulkan, rocm …")
        assets = self._pinned(tag)
        if _chosen(assets, variant) is None:
            assets = await self._listed(tag, downloader)
        program = _chosen(assets, variant)
        if program is None:
            there = ", ".join(sorted(each.backend for each in assets if not each.companion))
            what = f"{self._machine.system} {self._machine.processor}"
            raise EngineNotFound(
                _ENGINE,
                f"release {tag} has no '{variant}' for {what}; it has {there or 'nothing'}",
                ("choose one with --variant, or another release with --version",),
            )
        companions = [each for each in assets if each.companion and each.backend == program.backend]
        return tuple(each.archive() for each in (program, *companions))

    def _pinned(self, tag: str) -> list[_Asset]:
        """Return what is known of a release without asking."""
        if tag != DEFAULT_TAG:
            return []
        known = {f"llama-{tag}-bin-{name}": facts for name, facts in _PINNED.items()}
        return self._fitting(
            (name, f"{self._url}/download/{tag}/{name}", sha256, size_bytes)
            for name, (sha256, size_bytes) in known.items()
        )

    async def _listed(self, tag: str, downloader: Downloader) -> list[_Asset]:
        """Return what the releases' API tells."""
        from gglib.errors import DownloadNotFound

        headers = {"accept": "application/vnd.github+json"}
        try:
            content = await downloader.fetch_bytes(
                self._list_url(tag), max_bytes=_MAX_DOCUMENT_BYTES, headers=headers
            )
        except DownloadNotFound:
            raise EngineNotFound(_ENGINE, f"there is no release {tag} at {self._url}") from None
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        assets = document.get("assets") if isinstance(document, dict) else None
        if not isinstance(assets, list):
            raise EngineNotFound(_ENGINE, f"{self._list_url(tag)} is no list of a release's files")
        return self._fitting(_told(asset) for asset in assets if isinstance(asset, dict))

    def _list_url(self, tag: str) -> str:
        parts = urlsplit(self._url)
        if parts.hostname == "github.com":
            return f"https://api.github.com/repos{parts.path}/tags/{tag}"
        return f"{self._url}/tags/{tag}"

    def _fitting(self, assets: Iterable[tuple[str, str, str | None, int | None]]) -> list[_Asset]:
        found = []
        for name, url, sha256, size_bytes in assets:
            program, companion = _ASSET.fullmatch(name), _COMPANION.fullmatch(name)
            match = program or companion
            if match is None:
                continue
            if Machine(match["system"], match["processor"]) != self._machine:
                continue
            found.append(
                _Asset(
                    name=name,
                    url=url,
                    sha256=sha256,
                    size_bytes=size_bytes,
                    backend=match["backend"] or "cpu",
                    companion=program is None,
                )
            )
        return found


def _told(asset: Mapping[str, Any]) -> tuple[str, str, str | None, int | None]:
    """Return what an asset of GitHub's API says of itself."""
    name, url = asset.get("name"), asset.get("browser_download_url")
    digest, size = asset.get("digest"), asset.get("size")
    match = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    return (
        name if isinstance(name, str) else "",
        url if isinstance(url, str) else "",
        match[1] if match else None,
        size if isinstance(size, int) and size > 0 else None,
    )


def _chosen(assets: Iterable[_Asset], variant: str) -> _Asset | None:
    """Return the archive of a variant: of that very name, else the oldest of its family.

    The oldest CUDA runs with most drivers.
    """
    programs = [each for each in assets if not each.companion]
    exact = [each for each in programs if each.backend == variant]
    family = [each for each in programs if each.backend.startswith(f"{variant}-")]
    family.sort(key=lambda each: [int(part) for part in re.findall(r"\d+", each.backend)])
    return next(iter(exact + family), None)

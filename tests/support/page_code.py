"""The code of the page, in Node.js."""

import subprocess
from pathlib import Path
from typing import Final

from tests.support.paths import ROOT
from tests.support.servers import missing

_SITE: Final = ROOT / "functions/gateway/site"


def bundle(code: str, target: Path) -> None:
    """Bundles a module with what it imports from the page's sources, such as ``./src/uploads``."""
    esbuild = _SITE / "node_modules/.bin/esbuild"
    if not esbuild.exists():
        missing("the packages of the page are not installed: run npm ci in functions/gateway/site")
    arguments = ("--bundle", "--format=esm", "--log-level=warning", "--jsx=automatic", "--jsx-import-source=preact")
    subprocess.run([esbuild, *arguments, f"--outfile={target}"], input=code, text=True, cwd=_SITE, check=True)

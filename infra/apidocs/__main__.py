"""``python -m infra.apidocs DIRECTORY``: writes the documents that the gateway serves."""

import argparse
from pathlib import Path

from infra.apidocs.site import write

parser = argparse.ArgumentParser(prog="python -m infra.apidocs", description="Writes the documents of the API.")
parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="where they are written")
write(parser.parse_args().directory)

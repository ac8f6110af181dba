"""Lengths of what users log in with, in characters, and the characters that no name may have."""

import re
from typing import Final

CONTROLS: Final = re.compile(r"[\x00-\x1f\ud800-\udfff]")
MAX_NAME: Final = 200

MAX_USERNAME: Final = 254
#: Of a username as typed. A character of a username in stored form has at most four code points when it is decomposed
#: (UAX #15, table "Expansion Factors"). Normalization sorts combining marks in quadratic time.
MAX_TYPED_USERNAME: Final = 4 * MAX_USERNAME
MIN_PASSWORD: Final = 8
MAX_PASSWORD: Final = 128
#: Of the name of an API key.
MAX_KEY_NAME: Final = 100

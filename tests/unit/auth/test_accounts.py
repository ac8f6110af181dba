"""The form in which usernames are stored."""

import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from functions.auth.accounts import normalize_username

#: Letters with precomposed forms, and all combining marks: normalization and case folding decompose and reorder them.
LETTERS = st.sampled_from("a\u03bf\u03b9\u03c9\u0391\u0390\u1ff3\u01f0\u1e96\u0130\xdf\u017f\u01c5\u1fb3")
MARKS = st.sampled_from([chr(n) for n in range(0x3000) if unicodedata.combining(chr(n))])


@given(st.one_of(st.text(), st.text(st.one_of(LETTERS, MARKS), max_size=6)))
@example("\u03b1\u0345\u0304")
@example("\u0130\u0316")
def test_normalization_is_idempotent(name: str) -> None:
    assert normalize_username(normalize_username(name)) == normalize_username(name)


def test_stored_form_never_changes() -> None:
    assert normalize_username(" Zoë Ångström\t") == "zoë ångström"
    assert normalize_username("\u0390") == "\u03b9\u0308\u0301"  # not recomposed: databases contain this form
    assert normalize_username("\u01f0") == "j\u030c"

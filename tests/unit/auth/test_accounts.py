"""The spelling under which a user is kept."""

import unicodedata

from hypothesis import example, given
from hypothesis import strategies as st

from functions.auth.accounts import normalize_username

#: Letters that have forms with marks, and all marks: what normal forms and the folding of case take apart and reorder.
LETTERS = st.sampled_from("a\u03bf\u03b9\u03c9\u0391\u0390\u1ff3\u01f0\u1e96\u0130\xdf\u017f\u01c5\u1fb3")
MARKS = st.sampled_from([chr(n) for n in range(0x3000) if unicodedata.combining(chr(n))])


@given(st.one_of(st.text(), st.text(st.one_of(LETTERS, MARKS), max_size=6)))
@example("\u03b1\u0345\u0304")
@example("\u0130\u0316")
def test_the_name_that_registration_answers_is_the_users_own(name: str) -> None:
    assert normalize_username(normalize_username(name)) == normalize_username(name)


def test_names_without_such_marks_are_kept_as_they_were() -> None:
    assert normalize_username(" Zoë Ångström\t") == "zoë ångström"
    assert normalize_username("\u0390") == "\u03b9\u0308\u0301"  # not composed again: it is so in databases
    assert normalize_username("\u01f0") == "j\u030c"

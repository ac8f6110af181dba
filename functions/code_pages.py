"""Decodes text that should be UTF-8 and is in the code page of some language.

ID3v1 and RIFF tags do not say which one they are in, nor do the file names that curl sends on Windows. Bytes that are
not UTF-8 are given as lone surrogates (PEP 383, ``surrogateescape``).
"""

import codecs
import contextlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

#: What Windows and Unix programs write such text in: one code page for each script that is in use.
#: chardet calls every Big5 by its superset.
_CODE_PAGES = (
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp874", "koi8-r"),
    *("cp932", "gb18030", "big5hkscs", "cp949"),
)
#: What a tag that claims to be Latin-1 is in if hardly any of its letters are ASCII.
_NOT_LATIN = ("cp1251", "cp1253", "cp1255", "cp1256", "cp874", "koi8-r", "cp932", "gb18030", "big5hkscs", "cp949")
#: Bytes that the code page is detected from. More do not make it any clearer.
_MAX_SAMPLE = 4096
#: Neighbors that no word has, Latin letters and another alphabet or kana and Hangul: a sign of the wrong code page.
_MIXED = re.compile(
    "[A-Za-z\u00c0-\u024f][\u0370-\u0e7f]|[\u0370-\u0e7f][A-Za-z\u00c0-\u024f]"
    "|[\u3041-\u30ff][\u3131-\u318e\uac00-\ud7a3]|[\u3131-\u318e\uac00-\ud7a3][\u3041-\u30ff]"
)
#: What the letters of ISO 8859-2 that are elsewhere in cp1250 become there, beside other letters.
_LETTERS_AS_SIGNS = re.compile(r"[^\W\d_][±¶¦¬¹µ]|[±¶¦¬µ][^\W\d_]|[^\W\d_][»«©®¡][^\W\d_]")
_KANA = re.compile("[\u3041-\u30ff]")
#: Kana that show that a text is in EUC-JP: in other code pages of Asia their bytes are rare, but not impossible.
_MIN_KANA = 5
#: Letters beyond ASCII in a Baltic text, at least: a single one may as well be French or Portuguese.
_MIN_BALTIC = 3
#: A Vietnamese syllable without the marks of its vowels and tone; every word is one.
_SYLLABLE = re.compile("(?:ngh|[gknpt]h|ch|ng|gi|tr|qu|[bcd\u0111ghklmnprstvx])?[aeiouy]{1,3}(?:ch|ng|nh|[cmnpt])?")
#: The marks of a Vietnamese tone, and those of its vowels.
_TONES = frozenset("\u0300\u0301\u0303\u0309\u0323")
_VOWEL_MARKS = frozenset("\u0302\u0306\u031b")
#: The marks that cp1258 has as letters of their own, where cp1252 has capital letters.
_CAPITALS_AS_TONES = re.compile(r"[a-z\xe0-\xff][\xcc\xd2\xde]")
#: Categories of characters that no tag has: control characters, private use, unassigned.
_NO_TEXT = ("Cc", "Co", "Cn")
#: Control characters in ISO 8859-1, letters in the code pages of Windows.
_CONTROLS = re.compile("[\x80-\x9f]")
#: Letters beyond ASCII in a text that is not Latin-1, at least, and the share of others, at most.
_MIN_LETTERS = 4
_MAX_ASCII = 0.4


def decode(data: bytes) -> str:
    """Returns a text that should be UTF-8; otherwise it is decoded by the likeliest code page."""
    return decode_all([data.decode("utf-8", "surrogateescape")])[0]


def decode_all(texts: Sequence[str], *, doubts_latin_1: bool = False) -> list[str]:
    """Returns texts with every byte that was not UTF-8 decoded; all texts share one code page.

    Args:
        texts: with bytes that are not UTF-8 as lone surrogates.
        doubts_latin_1: whether texts may be wrongly decoded Latin-1, as those of ID3v2 may. They are decoded again if
            they cannot be Latin-1.
    """
    escaped = {text: data for text in texts if (data := _escaped(text))}
    narrow = {text: text.encode("latin-1") for text in texts if not text.isascii() and max(text) <= "\xff"}
    mislabeled = narrow if doubts_latin_1 and any(map(_is_mislabeled, narrow)) else {}
    decoded: dict[str, str] = {}
    likely = _CODE_PAGES if any(map(_CONTROLS.search, mislabeled)) else _NOT_LATIN
    for found, code_pages, default in ((escaped, _CODE_PAGES, "cp1252"), (mislabeled, likely, "latin-1")):
        if found:
            if _are_vietnamese(found.values()):
                decoded |= {text: unicodedata.normalize("NFC", data.decode("cp1258")) for text, data in found.items()}
                continue
            code_page = _refined(_detect(found.values(), code_pages) or default, found.values())
            decoded |= {text: data.decode(code_page, "replace") for text, data in found.items()}
    return [decoded.get(text, text) for text in texts]


def _escaped(text: str) -> bytes | None:
    """Returns the bytes of a text that was not UTF-8; None if it was, or if a compromised child made it up."""
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            return text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            return None
    return None


def _is_mislabeled(text: str) -> bool:
    """Returns whether the text cannot be in the Latin-1 that its ID3v2 tag claims, as in ``Ãðóïïà``."""
    if _CONTROLS.search(text):
        return True
    letters = [letter for letter in text if letter.isalpha() or not letter.isascii()]
    ascii_letters = sum(letter.isascii() for letter in letters)
    return len(letters) - ascii_letters >= _MIN_LETTERS and ascii_letters <= _MAX_ASCII * len(letters)


def _are_vietnamese(texts: Iterable[bytes]) -> bool:
    """Returns whether texts are in cp1258, whose bytes are those of other languages: by the structure of all words."""
    sample = b"\n".join(dict.fromkeys(texts))
    try:
        text = unicodedata.normalize("NFC", sample.decode("cp1258")).lower()
    except UnicodeDecodeError:
        return False
    if any(unicodedata.category(letter) == "Mn" for letter in text):
        return False  # a tone without a vowel
    words = [unicodedata.normalize("NFD", word) for word in re.findall(r"[^\W\d_]+", text) if not word.isascii()]
    both = any(_VOWEL_MARKS.intersection(word) and _TONES.intersection(word) for word in words)
    capitals = _CAPITALS_AS_TONES.search(sample.decode("latin-1"))
    return (both or capitals is not None) and all(map(_is_syllable, words))


def _is_syllable(word: str) -> bool:
    """Returns whether a decomposed word has the vowels and the consonants of a Vietnamese syllable, and one tone."""
    letters = "".join(letter for letter in word if unicodedata.category(letter) != "Mn")
    marks = [letter for letter in word if unicodedata.category(letter) == "Mn"]
    known = all(mark in _TONES or mark in _VOWEL_MARKS for mark in marks)
    return known and sum(mark in _TONES for mark in marks) <= 1 and _SYLLABLE.fullmatch(letters) is not None


def _detect(texts: Iterable[bytes], code_pages: Sequence[str]) -> str | None:
    """Returns the code page that all the texts are in; None if none fits."""
    import chardet

    sample = b"\n".join(dict.fromkeys(texts))[:_MAX_SAMPLE]
    for guess in chardet.detect_all(
        sample, ignore_threshold=True, include_encodings=code_pages, prefer_superset=True, compat_names=False
    ):
        code_page = guess["encoding"]
        if code_page is None or code_page not in code_pages:
            continue
        if code_page == "cp1257" and sum(byte > 127 for byte in sample) < _MIN_BALTIC:
            continue
        try:
            # Not final: the last character may be cut.
            text = codecs.getincrementaldecoder(code_page)().decode(sample)
        except UnicodeDecodeError:
            continue
        if _is_plausible(text):
            return code_page
    return None


def _refined(code_page: str, texts: Iterable[bytes]) -> str:
    """Returns the code page that chardet does not tell from another one, if it can be shown to be that; or the same."""
    sample = b"\n".join(dict.fromkeys(texts))
    if code_page == "cp1250" and not re.search(b"[\x80-\x9f]", sample):
        return "iso8859-2" if _LETTERS_AS_SIGNS.search(sample.decode(code_page, "replace")) else code_page
    with contextlib.suppress(UnicodeDecodeError):
        japanese = [letter for letter in sample.decode("euc_jp") if not letter.isascii()]
        kana = len(_KANA.findall("".join(japanese)))
        if kana >= max(_MIN_KANA, len(japanese) / 2):
            return "euc_jp"
    return code_page


def _is_plausible(text: str) -> bool:
    printable = text.replace("\n", "").replace("\r", "").replace("\t", "")
    return not _MIXED.search(text) and not any(unicodedata.category(letter) in _NO_TEXT for letter in printable)

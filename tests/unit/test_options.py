"""Options as users type them: parsed, rejected with the field's name, and stored in the job's row."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from functions.options import BadOption, Options


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("83.5", 83.5),
        ("1:23.5", 83.5),
        ("01:02:03.25", 3723.25),
        ("100:00:00", 360_000.0),
        (" 7. ", 7.0),
        ("90:00", 5400.0),
        ("1:60:00", None),
        ("1:60", None),
        ("1:2:3:4", None),
        ("-1", None),
        ("1e3", None),
        ("nan", None),
        ("360000.1", None),
        ("٣", None),
        ("1,5", None),
    ],
)
def test_time_formats(text: str, seconds: float | None) -> None:
    if seconds is None:
        with pytest.raises(BadOption, match=r"start must be a time such as 83\.5 or 1:23\.5, at most") as caught:
            Options.from_form({"start": text})
        assert caught.value.field == "start"
    else:
        assert Options.from_form({"start": text}).start == seconds


@pytest.mark.parametrize(
    ("text", "decibels"),
    [("6", 6), ("-3.5dB", -3.5), ("+2 db", 2), ("-30", -30), ("30.1", None), ("200%", None), ("loud", None)],
)
def test_volume_is_in_decibels(text: str, decibels: float | None) -> None:
    if decibels is None:
        with pytest.raises(BadOption, match="volume must be decibels from -30 to 30"):
            Options.from_form({"volume": text})
    else:
        assert Options.from_form({"volume": text}).volume == decibels


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"bitrate": "128", "vbr": "2"}, "vbr"),
        ({"start": "5", "end": "5"}, "end"),
        ({"end": "0"}, "end"),
        ({"start": "1:00", "end": "59.999"}, "end"),
        ({"start": "10", "end": "14", "fade_in": "5"}, "fade_in"),
        ({"start": "10", "end": "14", "fade_in": "2", "fade_out": "2.5"}, "fade_out"),
        ({"fade_out": "3601"}, "fade_out"),
        ({"normalize": "maybe"}, "normalize"),
        ({"mono": "2"}, "mono"),
        ({"bitrate": "9" * 5000}, "bitrate"),
        ({"vbr": "9" * 5000}, "vbr"),
        ({"track": "9" * 5000}, "track"),
        ({"track": "1,1"}, "track"),
        ({"track": "0,100"}, "track"),
        ({"track": "0,1,2"}, "track"),
        ({"track": ",1"}, "track"),
        ({"speed": "2"}, "speed"),
    ],
)
def test_error_names_the_field(form: dict[str, str], field: str) -> None:
    with pytest.raises(BadOption) as caught:
        Options.from_form(form)
    assert caught.value.field == field
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(
    ("text", "wanted"), [("frame", "frame"), ("NONE", "none"), ("0", 0.0), ("1:05", 65.0), ("best", None), ("-3", None)]
)
def test_cover_is_a_frame_or_none_or_a_time(text: str, wanted: str | float | None) -> None:
    if wanted is None:
        with pytest.raises(BadOption, match="cover must be frame, none, or a time in the video") as caught:
            Options.from_form({"cover": text})
        assert caught.value.field == "cover"
    else:
        assert Options.from_form({"cover": text}).cover == wanted


@pytest.mark.parametrize(
    ("text", "track"), [("0", 0), ("007", 7), ("99", 99), ("0,1", (0, 1)), (" 12 , 3 ", (12, 3)), ("01,0", (1, 0))]
)
def test_track_is_one_or_two(text: str, track: int | tuple[int, int]) -> None:
    assert Options.from_form({"track": text}).track == track


def test_fades_may_be_as_long_as_the_excerpt() -> None:
    options = Options.from_form({"start": "10", "end": "14", "fade_in": "2", "fade_out": "2"})
    assert (options.fade_in, options.fade_out) == (2, 2)
    assert Options.from_form({"start": "10", "fade_in": "20"}).fade_in == 20


def test_switches_accept_several_spellings() -> None:
    assert Options.from_form({"normalize": "true", "mono": "ON"}) == Options(normalize=True, mono=True)
    assert Options.from_form({"normalize": "no", "mono": "0"}) == Options()


TIMES = st.none() | st.floats(0, 360_000)


@given(
    st.builds(
        Options,
        bitrate=st.none() | st.just(192),
        vbr=st.none() | st.integers(0, 9),
        track=st.integers(0, 99) | st.tuples(st.integers(0, 99), st.integers(0, 99)),
        start=TIMES,
        end=TIMES,
        fade_in=TIMES,
        volume=st.none() | st.floats(-30, 30),
        normalize=st.booleans(),
        mono=st.booleans(),
        cover=TIMES | st.sampled_from(["frame", "none"]),
    )
)
def test_json_round_trip(options: Options) -> None:
    assert Options.from_json(options.to_json()) == options


def test_json_contains_only_what_differs_from_the_defaults() -> None:
    assert json.loads(Options().to_json()) == {}
    assert json.loads(Options(vbr=0, start=0.0, mono=True).to_json()) == {"vbr": 0, "start": 0.0, "mono": True}
    assert Options.from_json('{"bitrate": 128, "track": 1}') == Options(bitrate=128, track=1)

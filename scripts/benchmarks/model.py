"""How long a conversion would take over many pods: arithmetic on measured costs, with one media store for all of them.

A pod has one core and one encoder. The parts follow each other: an event brings the video to convert, which reads it,
stores the track and cuts; events bring the pieces to the pods, which fetch the track and encode one after the other;
the last one's event brings everything to join. The store is one server: what all pods fetch goes through it, however
many they are. The pieces are as many as convert makes for that length (``fanout``), one where there is one pod. A piece
decodes all that is before it, unless encoders can leap (``leap``): then its pod fetches and decodes its part alone.
"""

import heapq
from dataclasses import asdict, dataclass
from itertools import pairwise

from functions.convert import distribution
from functions.convert.plan import DECODE_COST, LOOKAHEAD_FRAMES, PREROLL_FRAMES, split_frames
from functions.convert.seek import excerpt

PODS = (1, 2, 4, 8, 16, 32, 64)
LENGTHS = {"10 min": 600, "1 h": 3600, "10 h": 36000}
_FRAME = 1152 / 44100  # seconds
#: Seconds that a leaping encoder gets before its piece, pre-roll, warm-up and half a cluster, and behind it.
_BEFORE, _BEHIND = (
    PREROLL_FRAMES * _FRAME + excerpt.WARMUP_SECONDS + 2.5,
    LOOKAHEAD_FRAMES * _FRAME + excerpt.WARMUP_SECONDS + 2.5,
)


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds, each measured on one core.

    Attributes:
        read: for a megabyte of video in the store, to take the track out; of an mp4 not all of it is fetched.
        video: megabytes of a second of the video.
        track: megabytes of a second of its audio track.
        mp3: megabytes of a second of MP3.
        count: for a second of audio whose packets are counted.
        start: for an encoder that has next to nothing to do.
        decode: for a second of audio before the piece.
        encode: for a second of audio of the piece, beyond its decoding.
        sum: for a second of MP3 that is measured for the join.
        join: for a megabyte laid end to end.
        tag: for the tag of 64 pieces.
        row: for a claim or a report in SQL.
        event: from publish to the function.
        put: for a megabyte into the store.
        get: for a megabyte out of it.
        blob: for a blob put and got, however small.
    """

    read: float
    video: float
    track: float
    mp3: float
    count: float
    start: float
    decode: float
    encode: float
    sum: float
    join: float
    tag: float
    row: float
    event: float
    put: float
    get: float
    blob: float

    def to_json(self) -> dict[str, float]:
        """Plain data."""
        return asdict(self)


def stages(costs: Costs, length: float, pods: int, leaping: bool = False) -> dict[str, float]:
    """Seconds of each stage for so many seconds of audio; together they are the whole.

    Args:
        costs: as measured.
        length: seconds of audio.
        pods: how many encode at once.
        leaping: whether encoders can leap; they do from an hour on.
    """
    leaping = leaping and pods > 1 and length >= excerpt.MIN_SEEK_SECONDS
    most = distribution.MAX_SEEKING_PIECES if leaping else distribution.MAX_PIECES
    wanted = min(max(round(length / distribution.PIECE_SECONDS), 2), most) if pods > 1 else 1
    pieces = split_frames(int(length / _FRAME), wanted, 0.0 if leaping else DECODE_COST)
    ends = [length if piece.end is None else piece.end * _FRAME for piece in pieces]
    starts = [piece.start * _FRAME for piece in pieces]
    track, mp3 = costs.track * length, costs.mp3 * length
    # Each pod by when it is done, and what of that went into sound before its pieces; of the whole the same part did.
    done = [(0.0, 0.0)] * pods
    for start, end in zip(starts, ends, strict=True):
        busy, before = heapq.heappop(done)
        prefix = costs.decode * (min(start, _BEFORE) if leaping else start)
        own = (costs.decode + costs.encode + costs.sum) * (end - start)
        heapq.heappush(done, (busy + costs.start + prefix + own, before + prefix))
    last = max(busy for busy, _ in done)
    fetched = length + (_BEFORE + _BEHIND) * len(pieces) if leaping else length * len(pieces)
    before = last * sum(before for _, before in done) / max(sum(busy for busy, _ in done), 1e-9)
    return {
        "events": costs.event * 3 + costs.event * len(pieces) * 0.1,
        "rows": costs.row * (4 + len(pieces)),
        "read": costs.read * costs.video * length,
        "store the track": costs.put * track + costs.blob,
        "count the packets": costs.count * length * leaping,
        "fetch the track": costs.get * costs.track * fetched + costs.blob,
        "decode what is before the pieces": before,
        "encode": last - before,
        "store the pieces": costs.put * mp3 + costs.blob,
        "join": (costs.get + costs.join + costs.put) * mp3 + costs.blob * len(pieces) + costs.tag,
    }


def seconds(costs: Costs, length: float, pods: int, leaping: bool = False) -> float:
    """How long it takes."""
    return sum(stages(costs, length, pods, leaping).values())


def enough(costs: Costs, length: float, leaping: bool = False) -> int:
    """How many pods are worth having: twice as many would be done less than a tenth sooner."""
    for few, many in pairwise(PODS):
        if seconds(costs, length, many, leaping) > 0.9 * seconds(costs, length, few, leaping):
            return few
    return PODS[-1]


def bounds(costs: Costs, length: float, pods: int, leaping: bool = False) -> dict[str, float]:
    """The stages by their part of the whole, the largest first."""
    parts = stages(costs, length, pods, leaping)
    whole = sum(parts.values())
    return {name: round(part / whole, 3) for name, part in sorted(parts.items(), key=lambda item: -item[1])}

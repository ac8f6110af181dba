/**
 * Leaves the pictures out of an mp4 or mov: ISO/IEC 14496-12, QuickTime File Format. The command mp3burst does the same
 * (client/sound/mp4.py), and a test compares the bytes.
 *
 * Tables in `moov` have the offsets and sizes of samples. Everything stays but the samples of video tracks: their sizes
 * become 0, and the offsets of all chunks become those in the shorter file. Edit lists, times, tags, covers and chapters
 * are in `moov` too and stay as they are.
 */
import { countUpTo, read, UnsupportedLayout } from "./file";

/** Boxes whose contents are boxes. */
const CONTAINERS = new Set(["moov", "trak", "mdia", "minf", "stbl"]);
/** Boxes at the top that have no offsets of their own. */
const PLAIN = new Set(["ftyp", "moov", "mdat", "free", "skip", "wide", "pdin", "udta"]);
/** Codecs of moving pictures; tracks of others stay. */
const CODECS = new Set(
  ["avc1 avc3 hvc1 hev1 dvh1 dvhe vp08 vp09 av01 s263 h263", "mp4v jpeg mjpa mjpb apch apcn apcs apco ap4h ap4x"].flatMap(
    (codecs) => codecs.split(" "),
  ),
);
/** Bytes of the largest `moov` that is read. */
const MAX_TABLES = 64 << 20;
const MAX_DEPTH = 8;

/** A box: its type, and where it, its contents, and what follows it begin. */
interface Box {
  kind: string;
  start: number;
  body: number;
  end: number;
}

/** The boxes of a track that say where its samples are. */
interface Tables {
  isVideo: boolean;
  sizes: Box;
  chunks: Box;
  runs: Box;
}

interface Range {
  start: number;
  end: number;
}

type Move = (offset: number) => number;

/** Returns the file without its pictures. Throws UnsupportedLayout: it is something else, or more complicated. */
export async function withoutPictures(file: Blob): Promise<Blob> {
  const top = await boxesOf(file);
  const [movie, ...others] = top.filter((box) => box.kind === "moov");
  if (top[0]?.kind !== "ftyp" || !movie || others.length || !top.every((box) => PLAIN.has(box.kind))) {
    throw new UnsupportedLayout();
  }
  if (movie.end - movie.start > MAX_TABLES) throw new UnsupportedLayout();
  const head = new Head(await read(file, movie.start, movie.end - movie.start));
  const tracks = head.tracks();
  const dropped = droppedRanges(
    head,
    tracks,
    top.filter((box) => box.kind === "mdat"),
  );
  if (!dropped.length) throw new UnsupportedLayout();
  const move = moverBy(dropped);
  for (const track of tracks) {
    head.moveChunks(track.chunks, move);
    if (track.isVideo) head.bytes.fill(0, track.sizes.body + 12, track.sizes.end);
  }
  return new Blob(
    top.flatMap((box) => {
      if (box.kind === "moov") return [head.bytes];
      return box.kind === "mdat" ? media(file, box, dropped, move) : [file.slice(box.start, box.end)];
    }),
  );
}

/** Returns the boxes of the file; the last must be complete. */
async function boxesOf(file: Blob): Promise<Box[]> {
  const found: Box[] = [];
  for (let start = 0; start < file.size; start = found.at(-1)?.end ?? file.size) {
    found.push(boxAt(await read(file, start, 16), 0, start, file.size));
    // Every file begins with ftyp; one that does not has no boxes.
    if (found[0]?.kind !== "ftyp") throw new UnsupportedLayout();
  }
  return found;
}

/** Parses the header of the box that starts at `start`, and at `at` in the bytes, of what ends at `end`. */
function boxAt(bytes: Uint8Array<ArrayBuffer>, at: number, start: number, end: number): Box {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < at + 8) throw new UnsupportedLayout();
  let size = view.getUint32(at);
  let body = start + 8;
  if (size === 1) {
    if (bytes.length < at + 16) throw new UnsupportedLayout();
    size = Number(view.getBigUint64(at + 8));
    body = start + 16;
  }
  // 0 is "to the end of the file", as recorders leave it.
  if (start + size > end || start + size < body) throw new UnsupportedLayout();
  return { kind: kindAt(bytes, at + 4), start, body, end: start + size };
}

const kindAt = (bytes: Uint8Array, at: number) => String.fromCharCode(...bytes.subarray(at, at + 4));

/** The bytes of `moov`; offsets begin with it. */
class Head {
  private readonly view: DataView;

  constructor(readonly bytes: Uint8Array<ArrayBuffer>) {
    this.view = new DataView(bytes.buffer);
  }

  tracks(): Tables[] {
    const boxes = [...this.children(boxAt(this.bytes, 0, 0, this.bytes.length))];
    // It has offsets of its own; fragments follow; it is compressed.
    if (this.has("iloc") || boxes.some((box) => box.kind === "mvex" || box.kind === "cmov")) throw new UnsupportedLayout();
    const tracks = boxes.filter((box) => box.kind === "trak");
    const chapters = new Set(tracks.flatMap((track) => this.chapters(track)));
    return tracks.map((track) => this.tables(track, chapters));
  }

  offsets(chunks: Box): number[] {
    return this.numbers(chunks, 8, this.number(chunks.body + 4), chunks.kind === "co64" ? 8 : 4);
  }

  moveChunks(chunks: Box, move: Move): void {
    const isLong = chunks.kind === "co64";
    this.offsets(chunks).forEach((offset, n) => {
      const at = chunks.body + 8 + n * (isLong ? 8 : 4);
      if (isLong) this.view.setBigUint64(at, BigInt(move(offset)));
      else this.view.setUint32(at, move(offset));
    });
  }

  /** Returns where the chunks of a track are. */
  ranges(track: Tables): Range[] {
    const offsets = this.offsets(track.chunks);
    const uniform = this.number(track.sizes.body + 4);
    const count = this.number(track.sizes.body + 8);
    const sizes = uniform ? null : this.numbers(track.sizes, 12, count);
    const runs = this.numbers(track.runs, 8, 3 * this.number(track.runs.body + 4));
    const found: Range[] = [];
    let sample = 0;
    for (let run = 0; run < runs.length; run += 3) {
      const first = runs[run] as number;
      const last = runs[run + 3] ?? offsets.length + 1;
      if (!(first > 0 && first <= last && last <= offsets.length + 1)) throw new UnsupportedLayout();
      for (let number = first; number < last; number += 1) {
        const after = Math.min(sample + (runs[run + 1] as number), count);
        let size = uniform * (after - sample);
        for (; sizes && sample < after; sample += 1) size += sizes[sample] as number;
        sample = after;
        const start = offsets[number - 1] as number;
        found.push({ start, end: start + size });
      }
    }
    if (sample !== count) throw new UnsupportedLayout();
    return found;
  }

  private *children(parent: Box): Generator<Box> {
    let start = parent.body;
    // QuickTime's user data may end with four zeros.
    while (parent.end - start >= 8) {
      const box = boxAt(this.bytes, start, start, parent.end);
      yield box;
      start = box.end;
    }
  }

  /** Yields the boxes in a box, those in containers too. */
  private *inside(parent: Box, depth = 0): Generator<Box> {
    for (const box of this.children(parent)) {
      yield box;
      if (CONTAINERS.has(box.kind) && depth < MAX_DEPTH) yield* this.inside(box, depth + 1);
    }
  }

  /** Returns the ids of tracks with the titles and pictures of this track's chapters. */
  private chapters(track: Box): number[] {
    return [...this.children(track)]
      .filter((box) => box.kind === "tref")
      .flatMap((references) => [...this.children(references)])
      .filter((box) => box.kind === "chap")
      .flatMap((box) => this.numbers(box, 0, Math.floor((box.end - box.body) / 4)));
  }

  private tables(track: Box, chapters: ReadonlySet<number>): Tables {
    const found = new Map<string, Box>();
    // QuickTime has a second hdlr, of the data.
    for (const box of this.inside(track)) if (!found.has(box.kind)) found.set(box.kind, box);
    const [header, handler, descriptions, sizes, runs] = ["tkhd", "hdlr", "stsd", "stsz", "stsc"].map((kind) =>
      found.get(kind),
    );
    const chunks = found.get("co64") ?? found.get("stco");
    if (!header || !handler || !descriptions || !sizes || !runs || !chunks || found.has("saio") || found.has("senc")) {
      throw new UnsupportedLayout();
    }
    // A sample description is a box behind a count of 32 bits.
    const codec = kindAt(this.bytes, descriptions.body + 12);
    const isLong = this.bytes[header.body] === 1; // times of 64 bits before the id
    const id = this.number(header.body + (isLong ? 20 : 12));
    const isVideo =
      kindAt(this.bytes, handler.body + 8) === "vide" &&
      CODECS.has(codec) &&
      this.number(sizes.body + 8) > 1 && // one picture is a cover
      this.number(descriptions.body + 4) === 1 &&
      this.number(sizes.body + 4) === 0 &&
      !chapters.has(id);
    return { isVideo, sizes, chunks, runs };
  }

  /** Returns the number of 32 bits at an offset. */
  private number(at: number): number {
    if (at + 4 > this.bytes.length) throw new UnsupportedLayout();
    return this.view.getUint32(at);
  }

  /** Returns `count` numbers of `width` bytes in a box, after so many bytes. */
  private numbers(box: Box, skipped: number, count: number, width: 4 | 8 = 4): number[] {
    const start = box.body + skipped;
    if (start + count * width > box.end) throw new UnsupportedLayout();
    return Array.from({ length: count }, (_, n) =>
      width === 8 ? Number(this.view.getBigUint64(start + n * 8)) : this.view.getUint32(start + n * 4),
    );
  }

  private has(kind: string): boolean {
    for (let at = this.bytes.indexOf(kind.charCodeAt(0)); at >= 0; at = this.bytes.indexOf(kind.charCodeAt(0), at + 1)) {
      if (kindAt(this.bytes, at) === kind) return true;
    }
    return false;
  }
}

/** Returns the ranges that only video tracks use, in order. Throws UnsupportedLayout: samples overlap, or are elsewhere. */
function droppedRanges(head: Head, tracks: readonly Tables[], homes: readonly Box[]): Range[] {
  const ranges = tracks
    .flatMap((track) => head.ranges(track).map((range) => ({ ...range, isVideo: track.isVideo })))
    .filter((range) => range.end > range.start)
    .sort((a, b) => a.start - b.start || a.end - b.end || Number(a.isVideo) - Number(b.isVideo));
  const bounds = homes.map((box) => box.body);
  const dropped: Range[] = [];
  let reached = 0;
  for (const { start, end, isVideo } of ranges) {
    const home = homes[Math.max(countUpTo(bounds, start) - 1, 0)];
    if (!home || start < Math.max(reached, home.body) || end > home.end) throw new UnsupportedLayout();
    reached = end;
    const last = dropped.at(-1);
    if (isVideo && last?.end === start) last.end = end;
    else if (isVideo) dropped.push({ start, end });
  }
  return dropped;
}

/** Returns what maps offsets of the file to offsets of the file without some ranges. */
function moverBy(dropped: readonly Range[]): Move {
  const starts = dropped.map((range) => range.start);
  const before = [0]; // bytes dropped before each range
  for (const range of dropped) before.push((before.at(-1) ?? 0) + range.end - range.start);
  return (offset) => {
    const number = countUpTo(starts, offset) - 1;
    const last = dropped[number];
    return last ? offset - (before[number] ?? 0) - (Math.min(offset, last.end) - last.start) : offset;
  };
}

/** Returns a box of media without the dropped ranges. */
function media(file: Blob, box: Box, dropped: readonly Range[], move: Move): BlobPart[] {
  const length = box.body - box.start;
  const size = move(box.end) - move(box.body) + length;
  const header = new Uint8Array(length);
  const view = new DataView(header.buffer);
  view.setUint32(0, length === 16 ? 1 : size);
  header.set([...box.kind].map((letter) => letter.charCodeAt(0)), 4);
  if (length === 16) view.setBigUint64(8, BigInt(size));
  const found: BlobPart[] = [header];
  let start = box.body;
  for (const range of dropped) {
    if (range.start < box.body || range.start >= box.end) continue;
    found.push(file.slice(start, range.start));
    start = range.end;
  }
  found.push(file.slice(start, box.end));
  return found;
}

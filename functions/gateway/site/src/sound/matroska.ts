/**
 * Leaves the pictures out of a Matroska or WebM file: RFC 8794 (EBML), RFC 9559 (Matroska). The command mp3burst does the
 * same (client/sound/matroska.py), and a test compares the bytes.
 *
 * The first blocks of each video track stay, by which libavformat learns of the track what its header does not say. Of
 * each later one its header and one byte stay, so that every time in the file stays as it was. The elements around it
 * become shorter, and the positions in `SeekHead` and `Cues` those in the shorter file.
 */
import { countUpTo, read, UnsupportedLayout } from "./file";

const EBML = 0x1a45dfa3;
const SEGMENT = 0x18538067;
const SEEK_HEAD = 0x114d9b74;
const TRACKS = 0x1654ae6b;
const CLUSTER = 0x1f43b675;
const CUES = 0x1c53bb6b;
const CRC = 0xbf;
const VOID = 0xec;
const TRACK = 0xae;
const TRACK_NUMBER = 0xd7;
const TRACK_TYPE = 0x83;
const CODEC = 0x86;
const SIMPLE_BLOCK = 0xa3;
const BLOCK_GROUP = 0xa0;
const BLOCK = 0xa1;
const ADDITIONS = 0x75a1;
const POSITION = 0xa7;
const PREVIOUS_SIZE = 0xab;
/** Elements with positions: in the segment, or, the last one, in a cluster. */
const SEEK_POSITION = 0x53ac;
const CUE_CLUSTER = 0xf1;
const CUE_RELATIVE = 0xf0;
/** Elements of SeekHead and Cues whose contents are elements. */
const MASTERS = new Set([0x4dbb, 0xbb, 0xb7]);
const MAX_DEPTH = 4;
const VIDEO = 1;
/** Codecs of moving pictures that fill most of a file. */
const CODECS = [
  "V_MPEG4/ISO/",
  "V_MPEGH/ISO/",
  "V_VP8",
  "V_VP9",
  "V_AV1",
  "V_MPEG2",
  "V_THEORA",
  "V_PRORES",
];
const LACING = 0x06;
/** Blocks of each video track that stay: libavformat looks at 20 frames or so (avformat_find_stream_info). */
const PROBED = 40;
/** Bytes of the largest element other than a cluster that is read. */
const MAX_ELEMENT = 64 << 20;
/** Bytes that are read ahead while looking for the headers of elements. */
const WINDOW = 1 << 18;
/** Bytes up to which what stays is copied: a Blob of very many parts is slow. */
const SMALL = 1 << 16;
/** Bytes that are gathered before the browser gets them, which may keep them on disk. */
const GATHERED = 1 << 20;

type Bytes = Uint8Array<ArrayBuffer>;

/** An element: its id, and where it, its size, its contents, and what follows it begin. */
interface Element {
  id: number;
  start: number;
  sizeAt: number;
  body: number;
  end: number;
}

/** Parses elements of the file, and reads it in windows. */
class Scanner {
  private window: Bytes = new Uint8Array();
  private start = 0;

  constructor(readonly file: Blob) {}

  /** Returns bytes of the file, fewer at its end. They are valid until the next call. */
  async bytes(start: number, size: number): Promise<Bytes> {
    if (start < this.start || start + size > this.start + this.window.length) {
      this.window = await read(this.file, start, Math.max(size, WINDOW));
      this.start = start;
    }
    return this.window.subarray(start - this.start, start - this.start + size);
  }

  /** Returns the element at an offset, which must end before `end`. */
  async element(start: number, end: number): Promise<Element> {
    const head = await this.bytes(start, 12);
    const sizeAt = lengthAt(head, 0);
    if (sizeAt > 4) throw new UnsupportedLayout();
    const [size, body] = vint(head, sizeAt);
    const element = {
      id: unsigned(head.subarray(0, sizeAt)),
      start,
      sizeAt: start + sizeAt,
      body: start + body,
      end: start + body + size,
    };
    if (element.end > end) throw new UnsupportedLayout();
    return element;
  }

  /** Returns the elements of a range, which they must fill. */
  async children({ body, end }: Pick<Element, "body" | "end">): Promise<Element[]> {
    const found: Element[] = [];
    for (let start = body; start < end; start = found.at(-1)?.end ?? end) found.push(await this.element(start, end));
    return found;
  }

  async unsigned(element: Element): Promise<number> {
    return unsigned(await this.bytes(element.body, Math.min(element.end - element.body, 8)));
  }
}

/** Returns the length of the number at an offset, which its first byte has. */
function lengthAt(bytes: Bytes, at: number): number {
  const length = Math.clz32(bytes[at] ?? 0) - 23;
  if (length > 8 || bytes.length < at + length) throw new UnsupportedLayout();
  return length;
}

/** Returns a number of variable length, and the offset behind it. Throws UnsupportedLayout: its size is unknown. */
function vint(bytes: Bytes, at: number): [value: number, end: number] {
  const length = lengthAt(bytes, at);
  const digits = bytes.slice(at, at + length);
  digits[0] = (digits[0] ?? 0) & (0xff >> length);
  const value = unsigned(digits);
  if (value === 2 ** (7 * length) - 1 || !Number.isSafeInteger(value)) throw new UnsupportedLayout();
  return [value, at + length];
}

function unsigned(bytes: Bytes): number {
  return bytes.reduce((value, byte) => value * 256 + byte, 0);
}

/** Returns a number in this many bytes. */
function bytesOf(value: number, length: number): Bytes {
  const found = new Uint8Array(length);
  for (let at = length - 1, rest = value; at >= 0; at -= 1, rest = Math.floor(rest / 256)) found[at] = rest % 256;
  return found;
}

/** Returns a size as a number of this length in bytes. */
function size(value: number, length: number): Bytes {
  if (value >= 2 ** (7 * length) - 1) throw new UnsupportedLayout();
  const found = bytesOf(value, length);
  found[0] = (found[0] ?? 0) | (0x80 >> (length - 1));
  return found;
}

function shortest(value: number): Bytes {
  let length = 1;
  while (value >= 2 ** (7 * length) - 1) length += 1;
  return size(value, length);
}

function concat(...parts: Bytes[]): Bytes {
  const found = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  parts.reduce((at, part) => (found.set(part, at), at + part.length), 0);
  return found;
}

/** The parts of the new file, and where elements of the file are in it. */
class Parts {
  size = 0;
  private readonly parts: (Blob | Bytes)[] = [];
  private gathered: Bytes[] = [];
  private gatheredSize = 0;
  private readonly left: [number: number, element: Element][] = [];
  private readonly before: number[] = [];
  private readonly after: number[] = [];

  constructor(private readonly scanner: Scanner) {}

  /** Notes that what is `ahead` bytes behind the end is at this offset of the file. */
  mark(offset: number, ahead = 0): void {
    this.before.push(offset);
    this.after.push(this.size + ahead);
  }

  /** Adds bytes of the file. */
  async keep(start: number, end: number): Promise<void> {
    if (end - start <= SMALL) {
      this.write((await this.scanner.bytes(start, end - start)).slice());
      return;
    }
    this.flush();
    this.parts.push(this.scanner.file.slice(start, end));
    this.size += end - start;
  }

  /** Adds other bytes. */
  write(bytes: Bytes): void {
    this.gathered.push(bytes);
    this.gatheredSize += bytes.length;
    this.size += bytes.length;
    if (this.gatheredSize >= GATHERED) this.flush();
  }

  /** Adds an element, which `replace` replaces. */
  leave(element: Element, bytes: Bytes): void {
    this.flush();
    this.left.push([this.parts.length, element]);
    this.parts.push(bytes);
    this.size += bytes.length;
  }

  append(other: Parts): void {
    if (other.parts.length) {
      this.flush();
      this.parts.push(...other.all());
      this.size += other.size;
    } else {
      other.gathered.forEach((bytes) => this.write(bytes));
    }
  }

  /** Replaces the elements that were left to it by others of the same sizes. */
  async replace(by: (element: Element) => Promise<Bytes>): Promise<void> {
    for (const [number, element] of this.left) this.parts[number] = await by(element);
  }

  /** Returns where an element of the file is in the new one. */
  moved(offset: number): number {
    const number = countUpTo(this.before, offset) - 1;
    const found = this.after[number];
    if (this.before[number] !== offset || found === undefined) throw new UnsupportedLayout();
    return found;
  }

  all(): readonly (Blob | Bytes)[] {
    this.flush();
    return this.parts;
  }

  private flush(): void {
    if (this.gathered.length) this.parts.push(new Blob(this.gathered));
    this.gathered = [];
    this.gatheredSize = 0;
  }
}

/** Returns the file without its pictures. Throws UnsupportedLayout: it is something else, or more complicated. */
export async function withoutPictures(file: Blob): Promise<Blob> {
  const scanner = new Scanner(file);
  const header = await scanner.element(0, file.size);
  const segment = await scanner.element(header.end, file.size);
  if (header.id !== EBML || segment.id !== SEGMENT || segment.end !== file.size) throw new UnsupportedLayout();
  const top = await scanner.children(segment);
  const videos = new Map<number, number>();
  for (const tracks of top.filter((element) => element.id === TRACKS)) {
    for (const number of await videosOf(scanner, tracks)) videos.set(number, PROBED);
  }
  if (!videos.size) throw new UnsupportedLayout();
  const parts = new Parts(scanner);
  for (const element of top) {
    parts.mark(element.start);
    if (element.id === CLUSTER) await writeCluster(scanner, element, videos, parts);
    else if (element.id === SEEK_HEAD || element.id === CUES) parts.leave(element, await complete(scanner, element));
    else if (element.id === CRC) parts.write(await voidOf(scanner, element));
    else await parts.keep(element.start, element.end);
  }
  await parts.replace((element) => repointed(scanner, element, segment.body, parts));
  const head = (await scanner.bytes(0, segment.sizeAt)).slice();
  return new Blob([head, size(parts.size, segment.body - segment.sizeAt), ...parts.all()]);
}

/** Returns all bytes of an element, as a copy. */
async function complete(scanner: Scanner, element: Element): Promise<Bytes> {
  if (element.end - element.start > MAX_ELEMENT) throw new UnsupportedLayout();
  return (await scanner.bytes(element.start, element.end - element.start)).slice();
}

/** Returns an element of the same length in place of a checksum that is no longer right. */
async function voidOf(scanner: Scanner, checksum: Element): Promise<Bytes> {
  return concat(
    new Uint8Array([VOID]),
    await scanner.bytes(checksum.sizeAt, checksum.end - checksum.sizeAt),
  );
}

/** Returns the numbers of the video tracks. */
async function videosOf(scanner: Scanner, tracks: Element): Promise<number[]> {
  const found: number[] = [];
  for (const track of await scanner.children(tracks)) {
    if (track.id !== TRACK) continue;
    const fields = new Map((await scanner.children(track)).map((field) => [field.id, field]));
    const [number, type, codec] = [fields.get(TRACK_NUMBER), fields.get(TRACK_TYPE), fields.get(CODEC)];
    if (!number || !type || !codec) throw new UnsupportedLayout();
    const name = new TextDecoder().decode(await scanner.bytes(codec.body, Math.min(codec.end - codec.body, 64)));
    if ((await scanner.unsigned(type)) === VIDEO && CODECS.some((each) => name.startsWith(each))) {
      found.push(await scanner.unsigned(number));
    }
  }
  return found;
}

/** Writes a cluster; `videos` has how many blocks of each video track stay yet. */
async function writeCluster(
  scanner: Scanner,
  cluster: Element,
  videos: Map<number, number>,
  parts: Parts,
): Promise<void> {
  const inside = new Parts(scanner);
  const head = cluster.body - cluster.start;
  for (const element of await scanner.children(cluster)) {
    parts.mark(element.start, head + inside.size);
    if (element.id === SIMPLE_BLOCK) await writeBlock(scanner, element, videos, inside);
    else if (element.id === BLOCK_GROUP) await writeGroup(scanner, element, videos, inside);
    else if (element.id === CRC || element.id === POSITION || element.id === PREVIOUS_SIZE) {
      inside.write(await voidOf(scanner, element)); // players ignore the last two
    } else await inside.keep(element.start, element.end);
  }
  await parts.keep(cluster.start, cluster.sizeAt);
  parts.write(size(inside.size, cluster.body - cluster.sizeAt));
  parts.append(inside);
}

async function writeBlock(
  scanner: Scanner,
  block: Element,
  videos: Map<number, number>,
  parts: Parts,
): Promise<void> {
  const stub = await stubOf(scanner, block, videos);
  if (stub) parts.write(stub);
  else await parts.keep(block.start, block.end);
}

async function writeGroup(
  scanner: Scanner,
  group: Element,
  videos: Map<number, number>,
  parts: Parts,
): Promise<void> {
  const children = await scanner.children(group);
  const block = children.find((element) => element.id === BLOCK);
  const stub = block ? await stubOf(scanner, block, videos) : null;
  if (!stub) {
    await parts.keep(group.start, group.end);
    return;
  }
  const body: Bytes[] = [];
  for (const child of children) {
    if (child === block) body.push(stub);
    else if (child.id !== ADDITIONS && child.id !== CRC) body.push(await complete(scanner, child));
  }
  const whole = concat(...body);
  parts.write(concat(new Uint8Array([BLOCK_GROUP]), shortest(whole.length), whole));
}

/** Returns a block of a video track without its pictures; null for a block that stays. */
async function stubOf(scanner: Scanner, block: Element, videos: Map<number, number>): Promise<Bytes | null> {
  const head = await scanner.bytes(block.body, 12);
  const [number, at] = vint(head, 0);
  const staying = videos.get(number);
  if (staying === undefined) return null;
  if (staying > 0) {
    videos.set(number, staying - 1);
    return null;
  }
  const flags = head[at + 2];
  if (flags === undefined || flags & LACING || block.end - block.body < at + 4) return null;
  const content = head.subarray(0, at + 4); // the track, the time in 16 bits, flags, and a byte of the frame
  return concat(new Uint8Array([block.id]), shortest(content.length), content);
}

/** Returns SeekHead or Cues with the positions of the new file, whose segment begins at `origin`, too. */
async function repointed(scanner: Scanner, element: Element, origin: number, parts: Parts): Promise<Bytes> {
  const found = await complete(scanner, element);
  let cluster = origin;
  const put = (field: Element, value: number) =>
    found.set(bytesOf(value, field.end - field.body), field.body - element.start);

  const visit = async (parent: Element, depth: number): Promise<void> => {
    for (const field of await scanner.children(parent)) {
      if (MASTERS.has(field.id)) {
        if (depth >= MAX_DEPTH) throw new UnsupportedLayout();
        await visit(field, depth + 1);
      } else if (field.id === CRC) {
        found[field.start - element.start] = VOID;
      } else if (field.id === SEEK_POSITION || field.id === CUE_CLUSTER) {
        cluster = origin + (await scanner.unsigned(field));
        put(field, parts.moved(cluster));
      } else if (field.id === CUE_RELATIVE) {
        const { body } = await scanner.element(cluster, scanner.file.size);
        const old = body + (await scanner.unsigned(field));
        put(field, parts.moved(old) - parts.moved(cluster) - (body - cluster));
      }
    }
  };
  await visit(element, 0);
  return found;
}

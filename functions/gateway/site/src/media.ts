/** Opens the sound and the pictures of a file in the browser, piece by piece: for the editor, which loads it on demand. */
import {
  ADTS,
  AudioBufferSink,
  AudioSampleSink,
  BlobSource,
  CanvasSink,
  FLAC,
  Input,
  MATROSKA,
  MP3,
  MP4,
  MPEG_TS,
  OGG,
  QTFF,
  WAVE,
  WEBM,
  type AudioSample,
  type InputAudioTrack,
  type InputVideoTrack,
} from "mediabunny";

/** What mediabunny reads, without playlists: they name other files, which would be fetched. */
const FORMATS = [MP4, QTFF, MATROSKA, WEBM, WAVE, OGG, MP3, FLAC, ADTS, MPEG_TS];
/** Seconds up to which the waveform shows every sample; of longer files it shows a moment of each bar. */
const WHOLE = 600;
/** Seconds of sound that are decoded ahead of what is heard. */
const AHEAD = 1;
/** Milliseconds between two updates of a waveform that is being drawn. */
const UPDATE = 100;

/** The loudest sample of each bar, from 0 to 1. */
export type Peaks = Float32Array;

export interface Selection {
  /** Seconds of the sound. */
  start: number;
  end: number;
  fadeIn: number;
  fadeOut: number;
}

export class Media {
  private isOpen = true;
  private context: AudioContext | null = null;

  private constructor(
    private readonly input: Input,
    private readonly audio: InputAudioTrack | null,
    private readonly video: InputVideoTrack | null,
    /** The timestamp of the first sample: the server counts from there. */
    private readonly first: number,
    /** Seconds of sound. */
    readonly duration: number,
    /** Seconds of pictures; 0 if there are none that this browser can show. */
    readonly pictures: number,
  ) {}

  /** Returns the file, or null if it is none that can be opened here. */
  static async open(file: Blob): Promise<Media | null> {
    const input = new Input({ source: new BlobSource(file), formats: FORMATS });
    try {
      const audio = await input.getPrimaryAudioTrack();
      if (!audio) return null;
      const [first, end] = [await audio.getFirstTimestamp(), await audio.computeDuration()];
      const isAudible = await audio.canDecode();
      const video = await input.getPrimaryVideoTrack();
      const isVisible = video !== null && (await video.canDecode());
      const pictures = isVisible ? await video.computeDuration() : 0;
      return new Media(input, isAudible ? audio : null, isVisible ? video : null, first, end - first, pictures);
    } catch {
      input.dispose();
      return null; // the server knows more formats
    }
  }

  /** Whether the browser can decode the sound. */
  get isAudible(): boolean {
    return this.audio !== null;
  }

  /** Fills in the peaks, and calls `show` now and then, until the file is closed. */
  async draw(peaks: Peaks, show: () => void): Promise<void> {
    if (!this.audio) return;
    const sink = new AudioSampleSink(this.audio);
    // The middle of each bar: at its beginning the sample before it may still last.
    const times = Array.from(peaks, (_, n) => this.first + ((n + 0.5) / peaks.length) * this.duration);
    let shownAt = performance.now();
    for await (const sample of this.duration <= WHOLE ? sink.samples() : sink.samplesAtTimestamps(times)) {
      if (!this.isOpen) {
        sample?.close();
        return;
      }
      if (!sample) continue;
      const bar = Math.floor(((sample.timestamp - this.first) / this.duration) * peaks.length);
      if (bar >= 0 && bar < peaks.length) peaks[bar] = Math.max(peaks[bar] ?? 0, loudest(sample));
      sample.close();
      if (performance.now() - shownAt > UPDATE) {
        shownAt = performance.now();
        show();
      }
    }
    show();
  }

  /** Plays a selection with its fades, and calls `move` with the position until it ends or `pause` is called. */
  async play(selection: Selection, move: (seconds: number | null) => void): Promise<void> {
    if (!this.audio) return;
    this.pause();
    const context = new AudioContext();
    this.context = context;
    await context.resume();
    const gain = fading(context, selection);
    const begin = context.currentTime;
    const isPlaying = () => this.context === context && this.isOpen;
    const step = () => {
      const position = selection.start + context.currentTime - begin;
      if (isPlaying() && position < selection.end) {
        move(position);
        requestAnimationFrame(step);
      } else {
        if (isPlaying()) this.pause();
        move(null);
      }
    };
    step();
    const [start, end] = [this.first + selection.start, this.first + selection.end];
    for await (const { buffer, timestamp, duration } of new AudioBufferSink(this.audio).buffers(start, end)) {
      if (!isPlaying()) return;
      const skipped = Math.max(0, start - timestamp);
      const kept = Math.min(duration, end - timestamp) - skipped;
      if (kept <= 0) continue;
      const source = context.createBufferSource();
      source.buffer = buffer;
      source.connect(gain);
      source.start(begin + timestamp + skipped - start, skipped, kept);
      const early = timestamp - start - (context.currentTime - begin) - AHEAD;
      if (early > 0) await new Promise((resolve) => setTimeout(resolve, early * 1000));
    }
  }

  pause(): void {
    void this.context?.close();
    this.context = null;
  }

  /** Draws the picture at this second of the video. */
  async picture(canvas: HTMLCanvasElement, seconds: number): Promise<void> {
    if (!this.video) return;
    const found = await new CanvasSink(this.video, { height: canvas.height }).getCanvas(seconds);
    if (!found || !this.isOpen) return;
    canvas.width = found.canvas.width;
    canvas.getContext("2d")?.drawImage(found.canvas, 0, 0);
  }

  close(): void {
    this.isOpen = false;
    this.pause();
    this.input.dispose();
  }
}

function loudest(sample: AudioSample): number {
  const samples = new Float32Array(sample.numberOfFrames);
  let most = 0;
  for (let plane = 0; plane < Math.min(2, sample.numberOfChannels); plane += 1) {
    sample.copyTo(samples, { planeIndex: plane, format: "f32-planar" });
    for (const value of samples) most = Math.max(most, Math.abs(value));
  }
  return Math.min(1, most);
}

function fading(context: AudioContext, { start, end, fadeIn, fadeOut }: Selection): GainNode {
  const node = context.createGain();
  const [begin, length] = [context.currentTime, end - start];
  if (fadeIn > 0) node.gain.setValueAtTime(0, begin).linearRampToValueAtTime(1, begin + fadeIn);
  if (fadeOut > 0) {
    node.gain.setValueAtTime(1, begin + Math.max(fadeIn, length - fadeOut)).linearRampToValueAtTime(0, begin + length);
  }
  node.connect(context.destination);
  return node;
}

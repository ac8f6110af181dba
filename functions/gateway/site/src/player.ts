/** The one MP3 that plays: the position, and the keys of keyboards and headsets. */
import { signal } from "@preact/signals";
import { getWaveform, mp3Address, type Job, type Waveform } from "./api";
import { announce } from "./notices";

export const current = signal<Job | null>(null);
export const isPlaying = signal(false);
export const position = signal(0);
export const length = signal(0);
/** The waveform of the MP3; null until it is there, or if there is none. */
export const waveform = signal<Waveform | null>(null);

/** Seconds that a key on a headset moves. */
const STEP = 10;

const audio = new Audio();
audio.preload = "metadata";
audio.addEventListener("timeupdate", () => {
  position.value = audio.currentTime;
});
audio.addEventListener("durationchange", () => {
  if (Number.isFinite(audio.duration)) length.value = audio.duration;
});
for (const name of ["play", "pause", "ended"] as const) {
  audio.addEventListener(name, () => {
    isPlaying.value = !audio.paused;
  });
}
audio.addEventListener("error", () => {
  if (current.peek()) announce((strings) => strings.cannotPlay);
});

export const title = (job: Job) => job.filename.replace(/\.[^.]{1,5}$/, "");

/** Plays a job's MP3, or pauses it if it plays. */
export function toggle(job: Job): void {
  load(job);
  if (audio.paused) void audio.play().catch(() => undefined); // the event "error" tells why
  else audio.pause();
}

export function playFrom(job: Job, seconds: number): void {
  load(job);
  seek(seconds);
  void audio.play().catch(() => undefined);
}

function load(job: Job): void {
  if (current.peek()?.job === job.job || !job.mp3) return;
  current.value = job;
  position.value = 0;
  length.value = job.duration ?? 0;
  waveform.value = null;
  getWaveform(job.job).then(
    (found) => {
      if (current.peek()?.job === job.job) waveform.value = found;
    },
    () => undefined, // the plain bar does as well
  );
  audio.src = mp3Address(job.mp3);
  showOnDevice(job);
}

export function seek(seconds: number): void {
  audio.currentTime = seconds;
  position.value = seconds;
}

export function close(): void {
  audio.pause();
  audio.removeAttribute("src");
  audio.load();
  current.value = null;
}

function showOnDevice(job: Job): void {
  if (!("mediaSession" in navigator)) return;
  navigator.mediaSession.metadata = new MediaMetadata({ title: title(job), artist: "mp3burst" });
  navigator.mediaSession.setActionHandler("play", () => void audio.play());
  navigator.mediaSession.setActionHandler("pause", () => audio.pause());
  navigator.mediaSession.setActionHandler("seekbackward", () => seek(Math.max(0, audio.currentTime - STEP)));
  navigator.mediaSession.setActionHandler("seekforward", () => seek(audio.currentTime + STEP));
}

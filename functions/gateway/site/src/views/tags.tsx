import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import * as api from "../api";
import * as i18n from "../i18n";
import { strings } from "../i18n";
import * as jobs from "../jobs";
import { announce } from "../notices";
import * as player from "../player";
import { Dialog } from "./dialog";
import { Form, sentence } from "./form";
import { Play } from "./icons";

const FIELDS = ["title", "artist", "album", "genre", "date"] as const;

interface TagEditorProps {
  job: api.Job;
  name: string;
  onClose: () => void;
}

/** Changes the tags of an MP3 in place, without encoding its sound again. */
export function TagEditor({ job, name, onClose }: TagEditorProps) {
  const s = strings.value;
  const tags = useSignal<api.Tags | null>(null);
  const problem = useSignal("");
  const changes = useSignal<api.TagChange>({});
  useEffect(() => {
    api.getTags(job.job).then(
      (found) => (tags.value = found),
      (error) => (problem.value = sentence(error)),
    );
  }, []);

  const submit = async () => {
    await api.changeTags(job.job, changes.value);
    announce((each) => each.tagsChanged(name));
    onClose();
  };
  return (
    <Dialog title={s.editTags} onClose={onClose}>
      <p class="faint ellipsis">{name}</p>
      {problem.value && (
        <p class="problem" role="alert">
          {problem.value}
        </p>
      )}
      {!tags.value && !problem.value && <p aria-busy="true">{s.loading}</p>}
      {tags.value && (
        <Form action={s.save} submit={submit}>
          {FIELDS.map((field) => (
            <label key={field} class="field">
              <span>{s.tagFields[field]}</span>
              <input
                type="text"
                maxLength={1000}
                value={changes.value[field] ?? tags.value?.[field] ?? ""}
                onInput={(event) => (changes.value = { ...changes.value, [field]: event.currentTarget.value })}
              />
            </label>
          ))}
          <Cover has={tags.value.cover !== null} change={(cover) => (changes.value = { ...changes.value, cover })} />
        </Form>
      )}
      {tags.value && tags.value.chapters.length > 0 && <Chapters job={job} chapters={tags.value.chapters} />}
    </Dialog>
  );
}

/** Plays from a chapter, and makes an MP3 of each. */
function Chapters({ job, chapters }: { job: api.Job; chapters: readonly api.Chapter[] }) {
  const s = strings.value;
  const split = async () => {
    const count = await api.split(job.job);
    await jobs.catchUp();
    announce((each) => each.wasSplit(count));
  };
  return (
    <section>
      <h3>{s.chapters}</h3>
      <ul class="entries">
        {chapters.map(({ start, title }) => (
          <li key={start} class="entry">
            <button
              class="icon round"
              aria-label={s.actionOn(s.play, title || i18n.clock(start))}
              onClick={() => player.playFrom(job, start)}
            >
              <Play />
            </button>
            <span class="text ellipsis">{title}</span>
            <span class="faint small">{i18n.clock(start)}</span>
          </li>
        ))}
      </ul>
      {chapters.length > 1 && <Form action={s.splitByChapters} submit={split} isQuiet />}
    </section>
  );
}

/** Chooses another picture, or none. */
function Cover({ has, change }: { has: boolean; change: (cover: string) => void }) {
  const s = strings.value;
  const chosen = useSignal<string | null>(null);
  const choose = async (file: File | undefined) => {
    if (!file) return;
    change(await base64(file));
    chosen.value = file.name;
  };
  const status = chosen.value ?? (has ? s.coverIsThere : s.noCover);
  return (
    <div class="row">
      <p class="field">
        <span>{s.cover}</span>
        <span class="faint ellipsis" role="status">
          {status}
        </span>
      </p>
      <label class="button">
        <input
          type="file"
          accept="image/jpeg,image/png"
          onChange={(event) => void choose(event.currentTarget.files?.[0])}
        />
        {s.choosePicture}
      </label>
      {has && (
        <button
          type="button"
          onClick={() => {
            change("");
            chosen.value = s.noCover;
          }}
        >
          {s.removePicture}
        </button>
      )}
    </div>
  );
}

function base64(file: File): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).replace(/^.*,/, ""));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

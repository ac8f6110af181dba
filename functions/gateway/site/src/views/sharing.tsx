import { useSignal } from "@preact/signals";
import * as api from "../api";
import * as i18n from "../i18n";
import { strings } from "../i18n";
import { Dialog } from "./dialog";
import { Form } from "./form";
import { Cross } from "./icons";
import { Entry, Listed, Secret, useList } from "./lists";
import { Action } from "./progress";

const DAY = 86_400;
/** For how many days a link may work. */
const DAYS = [1, 7, 30, 365];

/** Makes links to an MP3 for others, and takes them back. */
export function Sharing({ job, name, onClose }: { job: string; name: string; onClose: () => void }) {
  const s = strings.value;
  const list = useList(() => api.getLinks(job));
  const days = useSignal(7);
  const url = useSignal<string | null>(null);
  const create = async () => {
    url.value = (await api.createLink(job, days.value * DAY)).url;
    await list.reload();
  };
  return (
    <Dialog title={s.share} onClose={onClose}>
      <p class="faint ellipsis">{name}</p>
      <Form action={s.createLink} submit={create}>
        <label class="field">
          <span>{s.linkWorks}</span>
          <select value={days.value} onChange={(event) => (days.value = Number(event.currentTarget.value))}>
            {DAYS.map((each) => (
              <option key={each} value={each}>
                {i18n.days(each)}
              </option>
            ))}
          </select>
        </label>
      </Form>
      {url.value && <Secret label={s.newLinkIs} value={url.value} />}
      <Listed list={list} empty={s.noLinks}>
        {(link) => (
          <Entry key={link.id} name={s.linkUntil(i18n.date(link.expires))} facts={[s.linkMade(i18n.date(link.created))]}>
            <Action
              label={s.endLink}
              name={s.linkUntil(i18n.date(link.expires))}
              act={() => void list.change(() => api.deleteLink(link.id)).then(() => (url.value = null))}
            >
              <Cross />
            </Action>
          </Entry>
        )}
      </Listed>
    </Dialog>
  );
}

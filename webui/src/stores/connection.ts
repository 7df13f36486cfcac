// One event stream keeps every store up to date. When it breaks it is opened again, and everything is fetched anew.
import { defineStore } from 'pinia';
import { ref } from 'vue';
import { api, ApiError, onUnauthorized, setApiKey } from '@/api/client';
import type { Alert, Job, MemoryEvent, Picture, Preview, WorkerEvent } from '@/api/types';
import { debounce } from '@/lib/storage';
import { useAlerts } from './alerts';
import { useForm } from './form';
import { useGallery } from './gallery';
import { useJobs } from './jobs';
import { useModels } from './models';
import { useUi } from './ui';
import { useWorkers } from './workers';

export type Link = 'connecting' | 'online' | 'offline';

const FIRST_RETRY_MS = 500;
const LAST_RETRY_MS = 5000;
const HIDDEN_MS = 30_000;
const LAST_ID = 'mysti.lastEvent';

export const useConnection = defineStore('connection', () => {
  const link = ref<Link>('connecting');
  const keyWanted = ref(false);
  const keyWrong = ref(false);
  let source: EventSource | null = null;
  let retryMs = FIRST_RETRY_MS;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let lastId = sessionStorage.getItem(LAST_ID);

  const alerts = useAlerts();
  const form = useForm();
  const gallery = useGallery();
  const jobs = useJobs();
  const models = useModels();
  const ui = useUi();
  const workers = useWorkers();

  onUnauthorized(() => {
    keyWrong.value = keyWanted.value && localStorage.getItem('mysti.key') !== null;
    keyWanted.value = true;
  });

  /** Fetches the present state; what cannot be fetched stays as it is until the next change. */
  async function resync(): Promise<void> {
    await Promise.allSettled([workers.sync(), jobs.sync(), models.sync(), gallery.sync(), form.sync()]);
    if (!ui.shown) ui.shown = gallery.recent[0] ?? null;
  }
  const modelsChanged = debounce(() => void models.sync().catch(() => {}), 150);

  /** Which models are loaded and active changes with the workers; the `models` event only tells of files. */
  function workerChanged(event: WorkerEvent): void {
    const before = workers[event.worker];
    workers.applyEvent(event);
    if (before?.model !== event.model || before?.loaded !== event.loaded) modelsChanged();
  }
  function finished(picture: Picture): void {
    gallery.added(picture);
    form.lastSeed = picture.seed;
    if (ui.live || !ui.shown) ui.shown = picture;
  }
  function deleted(id: number): void {
    gallery.removed(id);
    if (ui.shown?.id === id) ui.shown = gallery.recent[0] ?? null;
  }

  const handlers: Record<string, (data: never) => void> = {
    hello: () => {
      link.value = 'online';
      retryMs = FIRST_RETRY_MS;
      keyWanted.value = keyWrong.value = false;
      void resync();
    },
    reset: () => void resync(),
    worker: (e: WorkerEvent) => workerChanged(e),
    memory: (e: MemoryEvent) => workers.applyMemory(e),
    job: (j: Job) => jobs.apply(j),
    preview: (p: Preview) => jobs.applyPreview(p),
    image: (p: Picture) => finished(p),
    image_deleted: (e: { id: number }) => deleted(e.id),
    alert: (a: Alert) => alerts.add(a),
    models: () => modelsChanged(),
  };

  function receive(name: string, event: MessageEvent<string>): void {
    if (event.lastEventId) {
      lastId = event.lastEventId;
      sessionStorage.setItem(LAST_ID, lastId);
    }
    try {
      handlers[name]?.(JSON.parse(event.data) as never);
    } catch (error) {
      console.warn(`event ${name} could not be read`, error);
    }
  }

  /** Why the stream broke: no server at all, or one that wants a key. */
  async function diagnose(): Promise<void> {
    try {
      await api.jobs({ limit: 1 });
    } catch (error) {
      if (!(error instanceof ApiError) || error.status !== 401) link.value = 'offline';
    }
  }

  function open(): void {
    clearTimeout(timer);
    source?.close();
    source = new EventSource(api.eventsUrl(lastId));
    for (const name of Object.keys(handlers))
      source.addEventListener(name, (e) => receive(name, e as MessageEvent<string>));
    source.onerror = () => {
      source?.close();
      if (link.value === 'online') link.value = 'connecting';
      void diagnose();
      timer = setTimeout(open, retryMs);
      retryMs = Math.min(LAST_RETRY_MS, retryMs * 2);
    };
  }

  // A browser opens six connections to one server, over all its tabs: a hidden page with nothing to wait for lets go
  // of its stream, and catches up when it is looked at again.
  const letGo = debounce(() => {
    if (document.visibilityState !== 'hidden' || keyWanted.value) return;
    if (jobs.current) return letGo();
    clearTimeout(timer);
    source?.close();
    source = null;
  }, HIDDEN_MS);
  function visibilityChanged(): void {
    if (document.visibilityState === 'hidden') letGo();
    else if (!source) open();
  }

  function start(): void {
    document.addEventListener('visibilitychange', visibilityChanged);
    void form.restoreInit();
    void form.restoreFromServer();
    open();
    addEventListener('online', open);
  }
  function giveKey(key: string): void {
    setApiKey(key);
    keyWanted.value = false;
    retryMs = FIRST_RETRY_MS;
    open();
  }

  return { link, keyWanted, keyWrong, start, retry: open, giveKey };
});

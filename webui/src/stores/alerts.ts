// What went wrong and what came of it: toasts that pass, and a list behind the bell that stays.
import { defineStore } from 'pinia';
import { computed, ref } from 'vue';
import type { Alert, WorkerName } from '@/api/types';
import { ApiError } from '@/api/client';
import { load, save } from '@/lib/storage';

export interface AlertEntry extends Alert {
  seen: boolean;
}
export interface Toast {
  id: number;
  level: Alert['level'] | 'success';
  title: string;
  text?: string;
  worker?: WorkerName; // the one whose trouble it tells of
  failed?: boolean; // something of it did not come right by itself
  changes: number; // each lets it stay for its full time again
}
type ToastWords = Omit<Toast, 'id' | 'changes'>;

/** Codes that tell of a worker's trouble. */
const TROUBLE = /^(worker_|restore_failed|job_interrupted|job_failed)/;

/** What a crash sets off, from its news to its end, is one story, and one toast that goes on with it. */
function goOn(story: Toast, alert: Alert): ToastWords {
  const { level, message, code } = alert;
  if (code === 'job_interrupted')
    return { ...story, text: 'Your picture is not lost: it goes on when the worker is back.' };
  if (code === 'job_failed') return { ...story, level, text: message, failed: true };
  if (code !== 'worker_ready') return begin(alert);
  const before = [story.title.replace(' It is being restarted.', ''), story.text ?? ''];
  return { ...story, level: story.failed ? story.level : level, title: message, text: before.join(' ').trim() };
}
function begin({ level, message, code, worker }: Alert): ToastWords {
  const own = (TROUBLE.test(code) && worker) || undefined;
  return { level, title: message, worker: own, failed: code === 'restore_failed' };
}

const MAX_LIST = 50;
const MAX_TOASTS = 4;

export const useAlerts = defineStore('alerts', () => {
  const list = ref<AlertEntry[]>(load('alerts', []));
  const toasts = ref<Toast[]>([]);
  const unseen = computed(() => list.value.filter((a) => !a.seen).length);
  let lastToast = 0;

  function toast(level: Toast['level'], title: string, text?: string): void {
    show({ level, title, text });
  }
  function show(words: ToastWords): void {
    toasts.value = [...toasts.value, { ...words, id: ++lastToast, changes: 0 }].slice(-MAX_TOASTS);
  }
  function tell(alert: Alert): void {
    const own = TROUBLE.test(alert.code) && alert.worker;
    const story = own ? toasts.value.find((t) => t.worker === own) : undefined;
    if (!story) return show(begin(alert));
    const next = { ...goOn(story, alert), id: story.id, changes: story.changes + 1 };
    toasts.value = toasts.value.map((t) => (t.id === story.id ? next : t));
  }
  function dismiss(id: number): void {
    toasts.value = toasts.value.filter((t) => t.id !== id);
  }

  /** The server replays alerts after a reconnect: the same one is listed once. */
  function add(alert: Alert): void {
    const known = list.value.some((a) => a.at_ms === alert.at_ms && a.message === alert.message);
    if (known) return;
    list.value = [{ ...alert, seen: false }, ...list.value].slice(0, MAX_LIST);
    save('alerts', list.value);
    tell(alert);
  }
  function markSeen(): void {
    list.value = list.value.map((a) => ({ ...a, seen: true }));
    save('alerts', list.value);
  }
  function clear(): void {
    list.value = [];
    save('alerts', []);
  }

  /** Shows why something the user asked for did not happen, in the server's words. */
  function failed(what: string, error: unknown): void {
    if (error instanceof ApiError && error.status === 401) return; // the key dialog is already asking
    toast('error', what, error instanceof Error ? error.message : String(error));
  }

  return { list, toasts, unseen, toast, dismiss, add, markSeen, clear, failed };
});

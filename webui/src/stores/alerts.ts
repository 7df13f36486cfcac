// What went wrong and what came of it: toasts that pass, and a list behind the bell that stays.
import { defineStore } from 'pinia';
import { computed, ref } from 'vue';
import type { Alert } from '@/api/types';
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
}

const MAX_LIST = 50;
const MAX_TOASTS = 4;

export const useAlerts = defineStore('alerts', () => {
  const list = ref<AlertEntry[]>(load('alerts', []));
  const toasts = ref<Toast[]>([]);
  const unseen = computed(() => list.value.filter((a) => !a.seen).length);
  let lastToast = 0;

  function toast(level: Toast['level'], title: string, text?: string): void {
    toasts.value = [...toasts.value, { id: ++lastToast, level, title, text }].slice(-MAX_TOASTS);
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
    toast(alert.level, alert.message);
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

// Finished pictures: the newest ones beside the canvas, and the gallery's own searchable, endless list.
import { defineStore } from 'pinia';
import { computed, ref } from 'vue';
import { api } from '@/api/client';
import type { Picture } from '@/api/types';
import { useAlerts } from './alerts';

const PAGE = 48;
const RECENT = 30;

const matches = (p: Picture, q: string) =>
  q
    .toLowerCase()
    .split(/\s+/)
    .every((word) => p.prompt.toLowerCase().includes(word));

export const useGallery = defineStore('gallery', () => {
  const recent = ref<Picture[]>([]);
  const items = ref<Picture[]>([]);
  const next = ref<number | null>(null);
  const total = ref(0);
  const search = ref('');
  const loading = ref(false);
  const fetched = ref(false);
  const known = ref(false); // the newest ones have been fetched once
  const error = ref('');
  const openId = ref<number | null>(null); // shown in full

  const open = computed(() => find(openId.value));
  let asked = 0; // answers to older searches are dropped

  function find(id: number | null): Picture | null {
    if (id === null) return null;
    return items.value.find((p) => p.id === id) ?? recent.value.find((p) => p.id === id) ?? null;
  }

  async function fetchPage(before: number | null): Promise<void> {
    const ticket = ++asked;
    loading.value = true;
    error.value = '';
    try {
      const page = await api.pictures({ limit: PAGE, before, q: search.value.trim() });
      if (ticket !== asked) return;
      const have = new Set(before === null ? [] : items.value.map((p) => p.id));
      items.value = [...(before === null ? [] : items.value), ...page.data.filter((p) => !have.has(p.id))];
      next.value = page.next;
      total.value = page.total ?? items.value.length;
      fetched.value = true;
    } catch (e) {
      if (ticket === asked) error.value = e instanceof Error ? e.message : String(e);
    } finally {
      if (ticket === asked) loading.value = false;
    }
  }
  const reload = () => fetchPage(null);
  async function more(): Promise<void> {
    if (!loading.value && next.value !== null) await fetchPage(next.value);
  }
  function setSearch(text: string): Promise<void> {
    search.value = text;
    return reload();
  }

  async function sync(): Promise<void> {
    recent.value = (await api.pictures({ limit: RECENT })).data;
    known.value = true;
    if (fetched.value) await reload();
  }

  function added(p: Picture): void {
    recent.value = [p, ...recent.value.filter((x) => x.id !== p.id)].slice(0, RECENT);
    if (!fetched.value || items.value.some((x) => x.id === p.id) || !matches(p, search.value)) return;
    items.value = [p, ...items.value];
    total.value++;
  }
  function removed(id: number): void {
    const had = items.value.length;
    recent.value = recent.value.filter((p) => p.id !== id);
    items.value = items.value.filter((p) => p.id !== id);
    if (items.value.length < had) total.value = Math.max(0, total.value - 1);
    if (openId.value === id) openId.value = null;
  }
  async function remove(p: Picture): Promise<void> {
    const around = neighbour(p.id, 1) ?? neighbour(p.id, -1);
    const wasOpen = openId.value === p.id;
    try {
      await api.deletePicture(p.id);
      removed(p.id);
      if (wasOpen) openId.value = around?.id ?? null;
    } catch (e) {
      useAlerts().failed('The picture was not deleted', e);
    }
  }

  /** The picture `by` places after (older) or before (newer) one, in whichever list shows it. */
  function neighbour(id: number, by: 1 | -1): Picture | null {
    const inItems = items.value.findIndex((p) => p.id === id);
    const list = inItems >= 0 ? items.value : recent.value;
    const at = inItems >= 0 ? inItems : recent.value.findIndex((p) => p.id === id);
    return at < 0 ? null : (list[at + by] ?? null);
  }

  return {
    recent,
    items,
    next,
    total,
    search,
    loading,
    fetched,
    known,
    error,
    openId,
    open,
    find,
    reload,
    more,
    setSearch,
    sync,
    added,
    removed,
    remove,
    neighbour,
  };
});

// What belongs to the page alone: theme, dialogs, which pane a phone shows, which picture the canvas shows.
import { defineStore } from 'pinia';
import { computed, ref, watch } from 'vue';
import type { Picture } from '@/api/types';

export type Theme = 'system' | 'light' | 'dark';
export type Pane = 'create' | 'canvas' | 'queue';
export interface Question {
  title: string;
  text: string;
  yes: string;
  answer: (ok: boolean) => void;
}

const darkSystem = matchMedia('(prefers-color-scheme: dark)');

function savedTheme(): Theme {
  try {
    const t = localStorage.getItem('mysti.theme');
    return t === 'light' || t === 'dark' ? t : 'system';
  } catch {
    return 'system';
  }
}

export const useUi = defineStore('ui', () => {
  const theme = ref<Theme>(savedTheme());
  const systemDark = ref(darkSystem.matches);
  darkSystem.addEventListener('change', (e) => (systemDark.value = e.matches));
  const dark = computed(() => theme.value === 'dark' || (theme.value === 'system' && systemDark.value));
  watch(dark, (d) => (document.documentElement.dataset.theme = d ? 'dark' : 'light'), { immediate: true });

  function setTheme(t: Theme): void {
    theme.value = t;
    try {
      if (t === 'system') localStorage.removeItem('mysti.theme');
      else localStorage.setItem('mysti.theme', t);
    } catch {
      /* kept until the page closes */
    }
  }

  const pane = ref<Pane>('create');
  const help = ref(false);
  const question = ref<Question | null>(null);
  /** Asks in a dialog; resolves to what was answered. */
  function confirm(title: string, text: string, yes: string): Promise<boolean> {
    return new Promise((resolve) => {
      question.value = {
        title,
        text,
        yes,
        answer: (ok) => {
          question.value = null;
          resolve(ok);
        },
      };
    });
  }

  const shown = ref<Picture | null>(null); // on the canvas
  const live = ref(true); // the canvas follows the running job
  function show(p: Picture): void {
    shown.value = p;
    live.value = false;
    pane.value = 'canvas';
  }
  function follow(): void {
    live.value = true;
  }

  return { theme, dark, setTheme, pane, help, question, confirm, shown, live, show, follow };
});

// The page's keyboard shortcuts. The help dialog shows the same list.
import { onMounted, onUnmounted } from 'vue';
import { useRouter } from 'vue-router';
import { useForm } from '@/stores/form';
import { useStudio } from '@/stores/studio';
import { useUi } from '@/stores/ui';
import { useWand } from '@/stores/wand';

export const shortcuts = [
  { keys: 'Ctrl Enter', what: 'Generate' },
  { keys: 'Esc', what: 'Close what is open; else stop the wand; else stop the picture' },
  { keys: 'Alt W', what: 'Magic Wand: improve the prompt' },
  { keys: 'Alt Z', what: "Undo the wand's change" },
  { keys: 'Alt R', what: 'Random seed' },
  { keys: 'Ctrl ↑ / Ctrl ↓', what: 'Weight of the selected words in a prompt: (words:1.1)' },
  { keys: 'Alt 1 / 2 / 3 / 4', what: 'Studio, Gallery, Models, Chat' },
  { keys: '← / →', what: 'Newer or older picture in the full view' },
  { keys: '/', what: 'Search in gallery or models' },
  { keys: '?', what: 'This list' },
];

const isTyping = (target: EventTarget | null) =>
  target instanceof HTMLElement && (target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName));
const dialogOpen = () => document.querySelector('[role="dialog"], [role="alertdialog"], [role="listbox"]') !== null;

export function useShortcuts(): void {
  const form = useForm();
  const router = useRouter();
  const studio = useStudio();
  const ui = useUi();
  const wand = useWand();

  const plain: Record<string, () => void> = {
    '?': () => (ui.help = true),
    '/': () => document.querySelector<HTMLInputElement>('[data-search]')?.focus(),
  };
  // By physical key: with Alt, some layouts type other characters.
  const withAlt: Record<string, () => void> = {
    Digit1: () => void router.push('/'),
    Digit2: () => void router.push('/gallery'),
    Digit3: () => void router.push('/models'),
    Digit4: () => void router.push('/chat'),
    KeyW: () => void wand.cast(),
    KeyZ: () => wand.undo(),
    KeyR: () => (form.fields.seed = -1),
  };

  function onKey(event: KeyboardEvent): void {
    if (event.defaultPrevented || event.isComposing) return;
    const command = event.ctrlKey || event.metaKey;
    let action: (() => void) | undefined;
    const here = router.currentRoute.value.name === 'studio';
    if (dialogOpen()) return;
    if (event.key === 'Enter' && command && here) action = () => void studio.generate();
    else if (event.key === 'Escape' && here) action = () => studio.interrupt();
    else if (event.altKey && !command) action = withAlt[event.code];
    else if (!command && !isTyping(event.target)) action = plain[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  }
  onMounted(() => addEventListener('keydown', onKey));
  onUnmounted(() => removeEventListener('keydown', onKey));
}

import { Boxes, Images, MessageSquareText, Sparkles } from '@lucide/vue';

/** The page's views, in the order of both navigation bars. */
export const views = [
  { to: '/', label: 'Studio', icon: Sparkles },
  { to: '/gallery', label: 'Gallery', icon: Images },
  { to: '/models', label: 'Models', icon: Boxes },
  { to: '/chat', label: 'Chat', icon: MessageSquareText },
];

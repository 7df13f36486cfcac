import { createRouter, createWebHistory } from 'vue-router';
import StudioView from './views/StudioView.vue';

export const router = createRouter({
  history: createWebHistory(),
  routes: [
    { path: '/', name: 'studio', component: StudioView, meta: { title: 'Studio' } },
    {
      path: '/gallery',
      name: 'gallery',
      component: () => import('./views/GalleryView.vue'),
      meta: { title: 'Gallery' },
    },
    { path: '/models', name: 'models', component: () => import('./views/ModelsView.vue'), meta: { title: 'Models' } },
    { path: '/chat', name: 'chat', component: () => import('./views/ChatView.vue'), meta: { title: 'Chat' } },
    { path: '/:rest(.*)*', redirect: '/' },
  ],
});

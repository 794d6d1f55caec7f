/** The pages of the application. A page that does not exist yet has no route and no link. */
import { createRouter, createWebHistory } from 'vue-router'

export const router = createRouter({
  history: createWebHistory(),
  routes: [
    {
      // One record with an alias, so that the page stays mounted when a new chat becomes a conversation.
      path: '/c/:id?',
      alias: '/',
      name: 'chat',
      component: () => import('@/pages/ChatPage.vue'),
    },
    { path: '/:rest(.*)*', redirect: '/' },
  ],
})

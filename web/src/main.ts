import '@/styles/app.css'
import { createPinia } from 'pinia'
import { createApp } from 'vue'
import App from '@/App.vue'
import { i18n } from '@/i18n'
import { router } from '@/router'
import { useBackend } from '@/stores/backend'
import { usePreferences } from '@/stores/preferences'

const app = createApp(App)
app.use(createPinia())
app.use(i18n)
usePreferences()
useBackend().start()
app.use(router)
app.mount('#app')

/** Language and theme, remembered in this browser and put on the document at once. */
import { defineStore } from 'pinia'
import { computed, ref, watch } from 'vue'
import { i18n, isLocale, preferredLocale, type Locale } from '@/i18n'
import { readStored, writeStored } from './storage'

export const THEMES = ['light', 'dark', 'system'] as const
export type Theme = (typeof THEMES)[number]

const GROUND = { light: '#FBFAF7', dark: '#16181B' }

function isTheme(value: unknown): value is Theme {
  return (THEMES as readonly unknown[]).includes(value)
}

export const usePreferences = defineStore('preferences', () => {
  const storedLocale = readStored('danlu.locale')
  const storedTheme = readStored('danlu.theme')
  const locale = ref<Locale>(isLocale(storedLocale) ? storedLocale : preferredLocale(navigator.languages))
  const theme = ref<Theme>(isTheme(storedTheme) ? storedTheme : 'system')

  const systemDark = window.matchMedia('(prefers-color-scheme: dark)')
  const systemIsDark = ref(systemDark.matches)
  systemDark.addEventListener('change', (event) => (systemIsDark.value = event.matches))
  const shownTheme = computed(() => (theme.value === 'system' ? (systemIsDark.value ? 'dark' : 'light') : theme.value))

  watch(
    locale,
    (value) => {
      i18n.global.locale.value = value
      document.documentElement.lang = value === 'zh' ? 'zh-CN' : 'en'
    },
    { immediate: true, flush: 'sync' },
  )
  watch(
    shownTheme,
    (value) => {
      document.documentElement.dataset.theme = value
      document.querySelector('meta[name="theme-color"]')?.setAttribute('content', GROUND[value])
    },
    { immediate: true, flush: 'sync' },
  )

  function setLocale(value: Locale): void {
    locale.value = value
    writeStored('danlu.locale', value)
  }

  function setTheme(value: Theme): void {
    theme.value = value
    writeStored('danlu.theme', value)
  }

  return { locale, theme, shownTheme, setLocale, setTheme }
})

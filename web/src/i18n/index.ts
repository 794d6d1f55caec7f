/** The two languages of the page. Both catalogues are loaded, so that switching is a matter of one frame. */
import { createI18n } from 'vue-i18n'
import { en, type Catalogue } from './en'
import { zh } from './zh'

export const LOCALES = ['zh', 'en'] as const
export type Locale = (typeof LOCALES)[number]

/** Each language is listed by its own name: who cannot read the page must find theirs. */
export const LOCALE_NAMES: Record<Locale, string> = { zh: '中文', en: 'English' }

declare module 'vue-i18n' {
  // eslint-disable-next-line @typescript-eslint/no-empty-object-type -- the library's way of typing keys
  export interface DefineLocaleMessage extends Catalogue {}
}

export function isLocale(value: unknown): value is Locale {
  return (LOCALES as readonly unknown[]).includes(value)
}

/** The first of the reader's languages that the page speaks. */
export function preferredLocale(languages: readonly string[]): Locale {
  for (const language of languages) {
    const main = language.toLowerCase().split('-')[0]
    if (isLocale(main)) return main
  }
  return 'en'
}

export const i18n = createI18n<[Catalogue], Locale, false>({
  legacy: false,
  locale: 'en',
  fallbackLocale: 'en',
  messages: { en, zh },
})

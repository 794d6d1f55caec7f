import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { i18n, preferredLocale } from '@/i18n'
import { en } from '@/i18n/en'
import { zh } from '@/i18n/zh'

function flatten(catalogue: object, prefix = ''): Map<string, string> {
  const flat = new Map<string, string>()
  for (const [key, value] of Object.entries(catalogue)) {
    if (typeof value === 'string') flat.set(prefix + key, value)
    else for (const [inner, text] of flatten(value as object, `${prefix}${key}.`)) flat.set(inner, text)
  }
  return flat
}

function sources(folder: string): string {
  return readdirSync(folder, { withFileTypes: true })
    .filter(({ name }) => name !== 'i18n')
    .map((entry) => (entry.isDirectory() ? sources(join(folder, entry.name)) : readFileSync(join(folder, entry.name), 'utf8')))
    .join('\n')
}

const english = flatten(en)
const chinese = flatten(zh)
const placeholders = (text: string) => [...text.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).sort()

describe('the two languages', () => {
  it('have the same messages', () => {
    expect([...chinese.keys()].sort()).toEqual([...english.keys()].sort())
  })

  it('have the same parts in each message, and no empty one', () => {
    for (const [key, text] of english) {
      expect(placeholders(chinese.get(key) ?? ''), key).toEqual(placeholders(text))
      expect(chinese.get(key)?.trim(), key).not.toBe('')
      expect(text.trim(), key).not.toBe('')
    }
  })

  it('are each in their own language, with its punctuation', () => {
    for (const [key, text] of english) expect(text, key).not.toMatch(/[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]/)
    for (const [key, text] of chinese) {
      expect(text, key).toMatch(/[\u4e00-\u9fff]/)
      expect(text, key).not.toMatch(/[\u4e00-\u9fff}][,;:?!(]|[,;:?!)][\u4e00-\u9fff]/)
    }
  })

  it('can be compiled, every message of them', () => {
    for (const locale of ['zh', 'en'] as const) {
      for (const [key, text] of locale === 'zh' ? chinese : english) {
        const named = Object.fromEntries(placeholders(text).map((name) => [name, `<${name}>`]))
        const expected = text.replace(/\{(\w+)\}/g, '<$1>')
        expect(i18n.global.t(key, named, { locale }), key).toBe(expected)
      }
    }
  })

  it('have no message that nothing uses', () => {
    const code = sources(join(import.meta.dirname, '../src'))
    const dynamic = ['days.', 'assistant.state.', 'settings.light', 'settings.dark', 'settings.system']
    const unused = [...english.keys()].filter(
      (key) => !code.includes(`'${key}'`) && !dynamic.some((prefix) => key.startsWith(prefix)),
    )
    expect(unused).toEqual([])
  })
})

describe('the first language', () => {
  it('is the first of the reader that the page speaks', () => {
    expect(preferredLocale(['fr-FR', 'zh-TW', 'en'])).toBe('zh')
    expect(preferredLocale(['en-GB', 'zh'])).toBe('en')
    expect(preferredLocale(['fr'])).toBe('en')
    expect(preferredLocale([])).toBe('en')
  })
})

/** Colours for code; each language is fetched when an answer first uses it. */
import hljs from 'highlight.js/lib/core'
import type { LanguageFn } from 'highlight.js'
import { ref } from 'vue'

type Loader = () => Promise<{ default: LanguageFn }>

const LOADERS: Record<string, Loader> = {
  bash: () => import('highlight.js/lib/languages/bash'),
  c: () => import('highlight.js/lib/languages/c'),
  cpp: () => import('highlight.js/lib/languages/cpp'),
  csharp: () => import('highlight.js/lib/languages/csharp'),
  css: () => import('highlight.js/lib/languages/css'),
  diff: () => import('highlight.js/lib/languages/diff'),
  dockerfile: () => import('highlight.js/lib/languages/dockerfile'),
  go: () => import('highlight.js/lib/languages/go'),
  ini: () => import('highlight.js/lib/languages/ini'),
  java: () => import('highlight.js/lib/languages/java'),
  javascript: () => import('highlight.js/lib/languages/javascript'),
  json: () => import('highlight.js/lib/languages/json'),
  kotlin: () => import('highlight.js/lib/languages/kotlin'),
  lua: () => import('highlight.js/lib/languages/lua'),
  makefile: () => import('highlight.js/lib/languages/makefile'),
  markdown: () => import('highlight.js/lib/languages/markdown'),
  matlab: () => import('highlight.js/lib/languages/matlab'),
  php: () => import('highlight.js/lib/languages/php'),
  powershell: () => import('highlight.js/lib/languages/powershell'),
  python: () => import('highlight.js/lib/languages/python'),
  r: () => import('highlight.js/lib/languages/r'),
  ruby: () => import('highlight.js/lib/languages/ruby'),
  rust: () => import('highlight.js/lib/languages/rust'),
  scala: () => import('highlight.js/lib/languages/scala'),
  sql: () => import('highlight.js/lib/languages/sql'),
  swift: () => import('highlight.js/lib/languages/swift'),
  typescript: () => import('highlight.js/lib/languages/typescript'),
  xml: () => import('highlight.js/lib/languages/xml'),
  yaml: () => import('highlight.js/lib/languages/yaml'),
}

const ALIASES: Record<string, string> = {
  sh: 'bash', shell: 'bash', zsh: 'bash', console: 'bash',
  'c++': 'cpp', cc: 'cpp', h: 'c', hpp: 'cpp', cs: 'csharp', 'c#': 'csharp',
  docker: 'dockerfile', golang: 'go', toml: 'ini',
  js: 'javascript', jsx: 'javascript', mjs: 'javascript', ts: 'typescript', tsx: 'typescript',
  jsonc: 'json', json5: 'json', jsonl: 'json', kt: 'kotlin', make: 'makefile', md: 'markdown',
  ps1: 'powershell', pwsh: 'powershell', py: 'python', python3: 'python', rb: 'ruby', rs: 'rust',
  html: 'xml', svg: 'xml', vue: 'xml', yml: 'yaml', patch: 'diff', mysql: 'sql', postgresql: 'sql', sqlite: 'sql',
} // prettier-ignore

/** Beyond this, colours cost more time than they save the reader. */
const MOST_CHARACTERS = 40_000

const loading = new Map<string, Promise<void>>()

/** Counts up when a language arrives; whatever rendered code before then must render again. */
export const highlightGeneration = ref(0)

export function canonicalLanguage(name: string): string | null {
  const lower = name.toLowerCase()
  const canonical = ALIASES[lower] ?? lower
  return Object.hasOwn(LOADERS, canonical) ? canonical : null
}

export function loadLanguage(canonical: string): Promise<void> {
  const known = loading.get(canonical)
  if (known) return known
  const loader = LOADERS[canonical]
  if (!loader) throw new RangeError(`no highlighting for ${canonical}`)
  const started = loader().then(
    (module) => {
      hljs.registerLanguage(canonical, module.default)
      highlightGeneration.value++
    },
    (error: unknown) => {
      // Not fetched (the server is restarting): code stays plain, and the next block tries again.
      loading.delete(canonical)
      throw error
    },
  )
  loading.set(canonical, started)
  return started
}

/** Escaped, coloured HTML; null while the language is on its way, unknown, or the code is too long to colour. */
export function highlightToHtml(code: string, language: string): string | null {
  const canonical = canonicalLanguage(language)
  if (!canonical || code.length > MOST_CHARACTERS) return null
  if (!hljs.getLanguage(canonical)) {
    loadLanguage(canonical).catch(() => undefined)
    return null
  }
  return hljs.highlight(code, { language: canonical, ignoreIllegals: true }).value
}

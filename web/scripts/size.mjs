/** Fails when the first screen is heavier than it may be: everything the browser must fetch before the chat appears. */
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'

const MOST_BYTES = 150_000
const FIRST_SCREEN = ['index.html', 'src/pages/ChatPage.vue']

const folder = fileURLToPath(new URL('../../src/danlu/server/static/', import.meta.url))
const manifestFile = `${folder}.vite/manifest.json`
if (!existsSync(manifestFile)) {
  console.error(`no build in ${folder}: run "npm run build" first`)
  process.exit(1)
}
const manifest = JSON.parse(readFileSync(manifestFile, 'utf8'))

const files = new Set(['index.html', 'theme.js', 'favicon.svg'])
const visited = new Set()
function visit(key) {
  if (visited.has(key)) return
  visited.add(key)
  const chunk = manifest[key]
  if (!chunk) {
    console.error(`the build has no ${key}`)
    process.exit(1)
  }
  files.add(chunk.file)
  for (const css of chunk.css ?? []) files.add(css)
  for (const imported of chunk.imports ?? []) visit(imported)
}
FIRST_SCREEN.forEach(visit)

let total = 0
for (const file of [...files].sort()) {
  const bytes = gzipSync(readFileSync(folder + file), { level: 9 }).length
  total += bytes
  console.log(`${String(bytes).padStart(8)}  ${file}`)
}
const verdict = total <= MOST_BYTES ? 'within' : 'OVER'
console.log(`${String(total).padStart(8)}  first screen, gzipped: ${verdict} the limit of ${MOST_BYTES}`)
process.exit(total <= MOST_BYTES ? 0 : 1)

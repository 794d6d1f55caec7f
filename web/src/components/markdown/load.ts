/** Fetches the Markdown renderer apart from the first screen, which has no answer to show yet. */
import { shallowRef } from 'vue'
import type MarkdownView from './MarkdownView.vue'

export const markdownView = shallowRef<typeof MarkdownView | null>(null)

const RETRY_MS = 2000

export async function loadMarkdown(): Promise<void> {
  if (markdownView.value) return
  try {
    markdownView.value = (await import('./MarkdownView.vue')).default
  } catch (error) {
    // The server is restarting: answers stand as plain text until the renderer can be had.
    if (!(error instanceof TypeError)) throw error
    setTimeout(() => void loadMarkdown(), RETRY_MS)
  }
}

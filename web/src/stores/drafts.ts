/** What was typed and not sent, per conversation, across refreshes. `new` is the chat that does not exist yet. */
import { defineStore } from 'pinia'
import { ref } from 'vue'
import { readStored, writeStored } from './storage'

const KEY = 'danlu.drafts'
/** Older ones make room: nobody comes back to the fifty-first draft. */
const MOST = 50

function parse(stored: string | null): [string, string][] {
  if (!stored) return []
  try {
    const value: unknown = JSON.parse(stored)
    if (!Array.isArray(value)) return []
    return value.filter(
      (pair): pair is [string, string] =>
        Array.isArray(pair) && pair.length === 2 && typeof pair[0] === 'string' && typeof pair[1] === 'string',
    )
  } catch (error) {
    if (error instanceof SyntaxError) return []
    throw error
  }
}

export const useDrafts = defineStore('drafts', () => {
  const drafts = ref(new Map(parse(readStored(KEY))))

  function get(conversationId: string | null): string {
    return drafts.value.get(conversationId ?? 'new') ?? ''
  }

  function set(conversationId: string | null, text: string): void {
    const key = conversationId ?? 'new'
    // Another tab may have drafts of other conversations: change one entry of what is stored, not the whole.
    const stored = new Map(parse(readStored(KEY)))
    for (const map of [drafts.value, stored]) {
      map.delete(key)
      if (text) map.set(key, text)
    }
    writeStored(KEY, JSON.stringify([...stored].slice(-MOST)))
  }

  return { get, set }
})

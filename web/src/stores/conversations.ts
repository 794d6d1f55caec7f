/** The list of conversations: pages of it, search, and the changes a person makes in it. */
import { defineStore } from 'pinia'
import { computed, ref } from 'vue'
import { failureOf, type Failure } from '@/api/failure'
import type { Conversation } from '@/api/types'
import { inListOrder } from '@/chat/days'
import { useBackend } from './backend'
import { isDomException } from './dom'

/** How long a deleted conversation can be taken back from its place in the list. */
export const UNDO_MS = 10_000

export const useConversations = defineStore('conversations', () => {
  const backend = useBackend()
  const known = ref(new Map<string, Conversation>())
  const results = ref<string[] | null>(null)
  const query = ref('')
  const nextCursor = ref<string | null>(null)
  const loading = ref(false)
  const loaded = ref(false)
  const failure = ref<Failure | null>(null)
  /** What went wrong with one conversation of the list; shown at that conversation. */
  const itemFailures = ref(new Map<string, Failure>())
  /** Deleted here and still to be undone. They keep their place in the list until the time is over. */
  const deleted = ref(new Map<string, Conversation>())
  const undoTimers = new Map<string, ReturnType<typeof setTimeout>>()
  let searching: AbortController | null = null

  const items = computed(() => {
    const shown = results.value
      ? results.value.flatMap((id) => known.value.get(id) ?? [])
      : [...known.value.values(), ...deleted.value.values()]
    return shown.sort(inListOrder)
  })

  function upsert(conversation: Conversation): void {
    if (!deleted.value.has(conversation.id)) known.value.set(conversation.id, conversation)
  }

  /** Loads the first page for the current query, or the following one with `more`. */
  async function load({ more = false } = {}): Promise<void> {
    searching?.abort()
    const request = new AbortController()
    searching = request
    loading.value = true
    try {
      const page = await backend.api.conversations(query.value, more ? nextCursor.value : null, request.signal)
      const ids = page.items.map(({ id }) => id)
      if (query.value) results.value = more ? [...(results.value ?? []), ...ids] : ids
      else {
        results.value = null
        // The first page of the whole list is the truth about it: what was deleted elsewhere meanwhile goes.
        if (!more) known.value = new Map()
      }
      for (const conversation of page.items) upsert(conversation)
      nextCursor.value = page.next_cursor
      failure.value = null
      loaded.value = true
    } catch (error) {
      if (isDomException(error)) return
      failure.value = failureOf(error)
    } finally {
      if (searching === request) loading.value = false
    }
  }

  async function search(text: string): Promise<void> {
    query.value = text.trim()
    await load()
  }

  async function attempt(id: string, action: () => Promise<void>): Promise<void> {
    itemFailures.value.delete(id)
    try {
      await action()
    } catch (error) {
      itemFailures.value.set(id, failureOf(error))
    }
  }

  const update = (id: string, change: { title?: string; pinned?: boolean }) =>
    attempt(id, async () => upsert(await backend.api.updateConversation(id, change)))

  const remove = (conversation: Conversation) =>
    attempt(conversation.id, async () => {
      await backend.api.deleteConversation(conversation.id)
      deleted.value.set(conversation.id, conversation)
      known.value.delete(conversation.id)
      undoTimers.set(conversation.id, setTimeout(() => forget(conversation.id), UNDO_MS))
    })

  const undo = (id: string) =>
    attempt(id, async () => {
      const conversation = await backend.api.restoreConversation(id)
      forget(id)
      upsert(conversation)
    })

  function forget(id: string): void {
    clearTimeout(undoTimers.get(id))
    undoTimers.delete(id)
    deleted.value.delete(id)
    itemFailures.value.delete(id)
  }

  backend.listen((frame) => {
    if (frame.type !== 'conversations') return
    if (frame.change === 'delete') known.value.delete(frame.conversation.id)
    else {
      // Another tab took the deletion back.
      if (deleted.value.has(frame.conversation.id)) forget(frame.conversation.id)
      upsert(frame.conversation)
    }
  })

  return { items, known, deleted, itemFailures, query, nextCursor, loading, loaded, failure, load, search, update, remove, undo, upsert }
})

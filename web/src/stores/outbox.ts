/**
 * Questions on their way. Each bears an id of its own by which the server knows it, so it can be sent again after a
 * break or a refresh without being asked twice. Kept in the browser until the server has acknowledged it.
 */
import { defineStore } from 'pinia'
import { ref } from 'vue'
import { ApiError, failureOf, type Failure } from '@/api/failure'
import { useBackend } from './backend'
import { readStored, writeStored } from './storage'

const KEY = 'danlu.outbox'

export interface Outgoing {
  clientId: string
  conversationId: string
  parentId: string | null
  content: string
  /** Messages that stood beside it when it was sent. */
  siblings: string[]
  failure: Failure | null
  /** The server has it; the entry leaves as soon as its message is on the page. */
  messageId: string | null
}

type Stored = Pick<Outgoing, 'clientId' | 'conversationId' | 'parentId' | 'content'>

function parse(stored: string | null): Stored[] {
  if (!stored) return []
  try {
    const value: unknown = JSON.parse(stored)
    return Array.isArray(value) ? value.filter((entry): entry is Stored => typeof entry?.clientId === 'string') : []
  } catch (error) {
    if (error instanceof SyntaxError) return []
    throw error
  }
}

export const useOutbox = defineStore('outbox', () => {
  const backend = useBackend()
  const entries = ref<Outgoing[]>([])

  /** Changes this entry in what is stored and leaves those of other tabs alone. */
  function persist(clientId: string, entry: Outgoing | null): void {
    const others = parse(readStored(KEY)).filter((stored) => stored.clientId !== clientId)
    const kept: Stored[] = entry
      ? [...others, { clientId, conversationId: entry.conversationId, parentId: entry.parentId, content: entry.content }]
      : others
    writeStored(KEY, kept.length ? JSON.stringify(kept) : null)
  }

  async function transmit(clientId: string): Promise<void> {
    const entry = entries.value.find((candidate) => candidate.clientId === clientId)
    if (!entry) return
    entry.failure = null
    try {
      const ack = await backend.connection().request(
        {
          type: 'send',
          client_id: entry.clientId,
          conversation_id: entry.conversationId,
          parent_id: entry.parentId,
          content: entry.content,
        },
        { durable: true },
      )
      persist(clientId, null)
      if (ack.user_message_id) entry.messageId = ack.user_message_id
      else drop(clientId)
    } catch (error) {
      if (!(error instanceof ApiError)) throw error
      entry.failure = failureOf(error)
    }
  }

  function send(
    question: Pick<Outgoing, 'conversationId' | 'parentId' | 'content' | 'siblings'>,
  ): Promise<void> {
    const entry: Outgoing = {
      ...question,
      clientId: crypto.randomUUID(),
      failure: null,
      messageId: null,
    }
    entries.value.push(entry)
    persist(entry.clientId, entry)
    return transmit(entry.clientId)
  }

  function drop(clientId: string): void {
    entries.value = entries.value.filter((entry) => entry.clientId !== clientId)
    persist(clientId, null)
  }

  /** Sends what a refresh interrupted. */
  function resume(): void {
    for (const stored of parse(readStored(KEY))) {
      if (entries.value.some(({ clientId }) => clientId === stored.clientId)) continue
      entries.value.push({ ...stored, siblings: [], failure: null, messageId: null })
      void transmit(stored.clientId)
    }
  }

  /** The page shows these messages now; the entries that became them are done. */
  function arrived(messageIds: ReadonlySet<string>): void {
    entries.value = entries.value.filter(({ messageId }) => messageId === null || !messageIds.has(messageId))
  }

  return { entries, send, retry: transmit, drop, resume, arrived }
})

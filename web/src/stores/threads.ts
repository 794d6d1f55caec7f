/** The conversation on show: its timeline, kept in step with the server, and what a person does in it. */
import { defineStore } from 'pinia'
import { computed, reactive, ref } from 'vue'
import { failureOf, type Failure } from '@/api/failure'
import type { Conversation, Message, ThreadSnapshot } from '@/api/types'
import { applyEvent, applySnapshot, fromSnapshot, type Timeline } from '@/chat/timeline'
import { childrenOf, leafBelow, pathTo } from '@/chat/tree'
import { useBackend } from './backend'
import { useConversations } from './conversations'
import { useOutbox } from './outbox'

/** Conversations whose messages stay in memory, so that going back to one shows it at once. */
const MOST_KEPT = 20

export const useThreads = defineStore('threads', () => {
  const backend = useBackend()
  const conversations = useConversations()
  const outbox = useOutbox()

  const timelines = reactive(new Map<string, Timeline>())
  const currentId = ref<string | null>(null)
  const loadFailure = ref<Failure | null>(null)
  /** What went wrong when a person did something to a message; shown under that message. */
  const actionFailures = reactive(new Map<string, Failure>())
  const stopping = reactive(new Set<string>())
  const resyncing = new Set<string>()
  /** The branch a person chose here and the server has not confirmed. */
  const chosenLeaf = reactive(new Map<string, string>())

  const current = computed(() => (currentId.value === null ? null : (timelines.get(currentId.value) ?? null)))

  const path = computed<Message[]>(() => {
    const timeline = current.value
    if (!timeline) return []
    return pathTo(timeline.messages, chosenLeaf.get(timeline.conversation.id) ?? timeline.conversation.leaf_id)
  })

  /** The answer being written at the end of the branch on show, if any. */
  const active = computed(() => {
    const last = path.value.at(-1)
    return last && (last.status === 'generating' || last.status === 'queued') ? last : null
  })

  /** Questions of this conversation that the server does not show yet, at the place where they will stand. */
  const outgoing = computed(() =>
    outbox.entries.filter((entry) => {
      if (entry.conversationId !== currentId.value) return false
      const messages = current.value?.messages
      if (!messages) return true
      if (entry.messageId !== null) return !messages.has(entry.messageId)
      // The message may come before its acknowledgement: a sibling that was not there before, with the same words.
      return !childrenOf(messages.values(), entry.parentId).some(
        ({ id, role, content }) => role === 'user' && content === entry.content && !entry.siblings.includes(id),
      )
    }),
  )

  /** A question is on its way; another one now would become its sibling instead of its successor. */
  const sending = computed(() => outgoing.value.some(({ failure }) => failure === null))

  async function open(id: string): Promise<void> {
    if (currentId.value === id) return
    close()
    currentId.value = id
    loadFailure.value = null
    await refresh(id)
  }

  async function refresh(id: string): Promise<void> {
    try {
      receive(await backend.api.thread(id))
      loadFailure.value = null
    } catch (error) {
      if (currentId.value === id) loadFailure.value = failureOf(error)
    }
    // Followed even when it could not be loaded: the connection may come back before the person tries again.
    if (currentId.value === id) follow(id)
  }

  function follow(id: string): void {
    backend
      .connection()
      .subscribe(id, () => cursor(id))
      .catch((error: unknown) => {
        if (currentId.value === id && !timelines.has(id)) loadFailure.value = failureOf(error)
      })
  }

  function cursor(id: string): { epoch: string | null; last_seq: number | null } {
    const timeline = timelines.get(id)
    return { epoch: timeline?.epoch ?? null, last_seq: timeline?.seq ?? null }
  }

  function close(): void {
    if (currentId.value !== null) backend.connection().unsubscribe(currentId.value)
    currentId.value = null
  }

  function receive(snapshot: ThreadSnapshot): void {
    const { id } = snapshot.conversation
    const timeline = timelines.get(id)
    if (timeline) applySnapshot(timeline, snapshot)
    else timelines.set(id, fromSnapshot(snapshot))
    settle(id)
    for (const old of timelines.keys()) {
      if (timelines.size <= MOST_KEPT) break
      if (old !== currentId.value && old !== id) timelines.delete(old)
    }
  }

  /** After a change: what was waited for may have come. */
  function settle(id: string): void {
    const timeline = timelines.get(id)
    if (!timeline) return
    outbox.arrived(new Set(timeline.messages.keys()))
    for (const messageId of stopping) {
      const status = timeline.messages.get(messageId)?.status
      if (status && status !== 'generating' && status !== 'queued') stopping.delete(messageId)
    }
    if (chosenLeaf.get(id) === timeline.conversation.leaf_id) chosenLeaf.delete(id)
  }

  /** Asks for what is missing, once, however many events told that something is. */
  async function resync(id: string, whole: boolean): Promise<void> {
    if (resyncing.has(id)) return
    resyncing.add(id)
    const timeline = timelines.get(id)
    if (whole && timeline) timeline.epoch = ''
    try {
      await backend.connection().resubscribe(id)
    } catch (error) {
      failureOf(error) // a refusal or a break: the next connection subscribes anew
    } finally {
      resyncing.delete(id)
    }
  }

  backend.listen((frame) => {
    if (frame.type === 'snapshot') {
      receive(frame)
      if (frame.conversation_id === currentId.value) loadFailure.value = null
    } else if (frame.type === 'event') {
      const timeline = timelines.get(frame.conversation_id)
      const outcome = timeline ? applyEvent(timeline, frame, backend.epoch ?? '', Date.now()) : 'gap'
      if (outcome === 'gap' || outcome === 'broken') void resync(frame.conversation_id, outcome === 'broken')
      else if (outcome === 'applied' && frame.event.kind !== 'delta') {
        if (frame.event.kind === 'conversation') conversations.upsert(frame.event.conversation)
        settle(frame.conversation_id)
      }
    } else if (frame.type === 'conversations' && frame.change === 'upsert') {
      const timeline = timelines.get(frame.conversation.id)
      if (timeline) timeline.conversation = frame.conversation
    }
  })

  /** Creates the conversation of a new chat. Throws `ApiError`; nothing was sent then. */
  async function create(assistantId: string | null): Promise<Conversation> {
    const conversation = await backend.api.createConversation(assistantId)
    conversations.upsert(conversation)
    return conversation
  }

  /** Asks under `parentId` (null: a new first question), or at the end of the branch on show. */
  function send(conversationId: string, content: string, parentId?: string | null): Promise<void> {
    const end = conversationId === currentId.value ? (path.value.at(-1)?.id ?? null) : null
    const parent = parentId === undefined ? end : parentId
    const messages = timelines.get(conversationId)?.messages
    const siblings = messages ? childrenOf(messages.values(), parent).map(({ id }) => id) : []
    return outbox.send({ conversationId, parentId: parent, content, siblings })
  }

  async function act(messageId: string, action: () => Promise<unknown>): Promise<void> {
    actionFailures.delete(messageId)
    try {
      await action()
    } catch (error) {
      actionFailures.set(messageId, failureOf(error))
    }
  }

  const regenerate = (message: Message) =>
    act(message.id, () => {
      chosenLeaf.delete(message.conversation_id)
      return backend.connection().request(
        {
          type: 'regenerate',
          client_id: crypto.randomUUID(),
          conversation_id: message.conversation_id,
          message_id: message.id,
        },
        { durable: true },
      )
    })

  const stop = (message: Message) =>
    act(message.id, async () => {
      stopping.add(message.id)
      try {
        await backend
          .connection()
          .request(
            { type: 'stop', conversation_id: message.conversation_id, message_id: message.id },
            { durable: true },
          )
      } catch (error) {
        stopping.delete(message.id)
        throw error
      }
    })

  /** Shows the branch on which `messageId` lies, and remembers it on the server. */
  const showBranch = (at: Message, messageId: string) =>
    act(at.id, async () => {
      const id = at.conversation_id
      const timeline = timelines.get(id)
      if (!timeline) return
      const leaf = leafBelow(timeline.messages, messageId)
      chosenLeaf.set(id, leaf)
      try {
        await backend.api.updateConversation(id, { leaf_id: leaf })
        if (chosenLeaf.get(id) === leaf) timeline.conversation.leaf_id = leaf
      } finally {
        if (chosenLeaf.get(id) === leaf) chosenLeaf.delete(id)
      }
    })

  return {
    currentId,
    current,
    path,
    active,
    outgoing,
    sending,
    loadFailure,
    actionFailures,
    stopping,
    open,
    refresh,
    close,
    create,
    send,
    regenerate,
    stop,
    showBranch,
  }
})

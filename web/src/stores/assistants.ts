/** The assistants one can talk to, and which of them the next new chat is with. */
import { defineStore } from 'pinia'
import { computed, ref } from 'vue'
import { failureOf, type Failure } from '@/api/failure'
import type { Assistant } from '@/api/types'
import { useBackend } from './backend'
import { readStored, writeStored } from './storage'

export const useAssistants = defineStore('assistants', () => {
  const backend = useBackend()
  const items = ref<Assistant[]>([])
  const loaded = ref(false)
  const failure = ref<Failure | null>(null)
  const chosenId = ref(readStored('danlu.assistant'))

  /** The chosen one; else one that can answer now; else the first. */
  const chosen = computed(
    () =>
      items.value.find(({ id }) => id === chosenId.value) ??
      items.value.find(({ engine }) => engine.state === 'ready') ??
      items.value[0] ??
      null,
  )

  async function load(): Promise<void> {
    try {
      items.value = (await backend.api.assistants()).items
      loaded.value = true
      failure.value = null
    } catch (error) {
      failure.value = failureOf(error)
    }
  }

  function choose(id: string): void {
    chosenId.value = id
    writeStored('danlu.assistant', id)
  }

  function byId(id: string): Assistant | null {
    return items.value.find((assistant) => assistant.id === id) ?? null
  }

  backend.listen((frame) => {
    if (frame.type !== 'engine') return
    const at = items.value.findIndex(({ id }) => id === frame.assistant.id)
    if (at < 0) items.value.push(frame.assistant)
    else items.value[at] = frame.assistant
  })

  return { items, loaded, failure, chosen, load, choose, byId }
})

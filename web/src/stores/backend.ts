/**
 * The way to the server: one API client and one live connection for the page, and who hears which frame.
 * Stores ask for it here; tests give their own `fetch` and `WebSocket`.
 */
import { defineStore } from 'pinia'
import { ref, shallowRef, watch } from 'vue'
import { createApi } from '@/api/http'
import { LiveSocket, type SocketOptions, type SocketState } from '@/api/socket'
import type { ServerFrame } from '@/api/types'
import { usePreferences } from './preferences'

export interface BackendOptions {
  fetch?: typeof fetch
  WebSocket?: SocketOptions['WebSocket']
  origin?: string
}

type Listener = (frame: ServerFrame) => void

export const useBackend = defineStore('backend', () => {
  const preferences = usePreferences()
  const state = ref<SocketState>('stopped')
  const retryAt = ref<number | null>(null)
  /** Which life of the server the connection speaks with. */
  const epoch = ref<string | null>(null)
  const listeners = new Set<Listener>()
  const options = shallowRef<BackendOptions>({})

  const api = createApi({
    language: () => (preferences.locale === 'zh' ? 'zh-CN' : 'en'),
    fetch: (input, init) => (options.value.fetch ?? fetch)(input, init),
  })

  const socket = shallowRef<LiveSocket | null>(null)

  function start(given: BackendOptions = {}): void {
    if (socket.value) return
    options.value = given
    const created = new LiveSocket({
      url: socketUrl,
      ...(given.WebSocket ? { WebSocket: given.WebSocket } : {}),
      onFrame(frame) {
        if (frame.type === 'welcome') epoch.value = frame.epoch
        for (const listener of listeners) listener(frame)
      },
      onState(next, at) {
        state.value = next
        retryAt.value = at
      },
    })
    socket.value = created
    created.start()
  }

  function stop(): void {
    socket.value?.stop()
    socket.value = null
  }

  function socketUrl(): string {
    const url = new URL('/ws', options.value.origin ?? location.href)
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:'
    // A browser cannot set headers on a WebSocket; problems that come over it should be in the reader's language too.
    url.searchParams.set('lang', preferences.locale)
    return url.href
  }

  function connection(): LiveSocket {
    if (!socket.value) throw new Error('the connection is used before it was started')
    return socket.value
  }

  function listen(listener: Listener): () => void {
    listeners.add(listener)
    return () => listeners.delete(listener)
  }

  watch(
    () => preferences.locale,
    () => socket.value?.reconnect(),
  )

  return { api, state, retryAt, epoch, start, stop, connection, listen }
})

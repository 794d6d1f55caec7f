/** A browser's worth of stores against the stand-in server, over real HTTP and real WebSockets. */
import { createPinia, setActivePinia } from 'pinia'
import { expect, vi } from 'vitest'
import { WebSocket as NodeWebSocket } from 'ws'
import { createMockServer } from '../dev/mock-server.mjs'
import { useBackend } from '@/stores/backend'

export type MockServer = ReturnType<typeof createMockServer>

export function stubMatchMedia(): void {
  vi.stubGlobal('matchMedia', (query: string) => ({
    media: query,
    matches: false,
    addEventListener: () => undefined,
    removeEventListener: () => undefined,
  }))
}

/** A tab of its own: fresh stores, connected to the server. `fetchFails` stands for a server that is away. */
export async function openTab(port: number, { fetchFails = () => false }: { fetchFails?: () => boolean } = {}) {
  stubMatchMedia()
  const pinia = createPinia()
  setActivePinia(pinia)
  const origin = `http://127.0.0.1:${port}`
  const backend = useBackend(pinia)
  backend.start({
    origin,
    fetch: (input, init) => (fetchFails() ? Promise.reject(new TypeError('failed')) : fetch(origin + String(input), init)),
    WebSocket: NodeWebSocket as unknown as new (url: string) => WebSocket,
  })
  await vi.waitFor(() => expect(backend.state).toBe('online'), { timeout: 60_000 })
  return { pinia, backend }
}

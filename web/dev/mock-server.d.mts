import type { Conversation, Message } from '../src/api/types'

export interface MockThread {
  conversation: Conversation
  messages: Map<string, Message>
}

export function createMockServer(options?: {
  serveStatic?: boolean
  empty?: boolean
  seed?: boolean
  delayMs?: number
  keepEvents?: number
}): {
  conversations: Map<string, MockThread>
  sockets: Set<{ terminate(): void }>
  restart(): { epoch: string }
  listen(port?: number): Promise<number>
  close(): Promise<void>
}

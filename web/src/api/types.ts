/** The shapes that the server and this page exchange. Nothing but types. */

/** A problem document (RFC 9457) with Danlu's own fields: what happened, where, and what to do about it. */
export interface Problem {
  type?: string
  title: string
  status: number
  detail?: string | null
  code?: string
  where?: string | null
  fix?: string | null
}

export type EngineState = 'stopped' | 'loading' | 'ready' | 'restarting' | 'failed'

export interface Engine {
  kind: string
  state: EngineState
  detail: string | null
  running: number
  waiting: number
  capacity: number
}

export interface Assistant {
  id: string
  name: string
  greeting: string
  suggestions: string[]
  system: string
  model: { version_id: string; name: string; base: string }
  engine: Engine
}

export interface Conversation {
  id: string
  title: string
  assistant_id: string
  pinned: boolean
  created_at: string
  updated_at: string
  leaf_id: string | null
  generating: boolean
}

export type MessageStatus = 'complete' | 'queued' | 'generating' | 'stopped' | 'interrupted' | 'failed'

export interface Provenance {
  assistant: string
  version: string
  engine: string
  tokens: number
  tokens_per_second: number | null
  seconds: number
  finish_reason: string
  reasoning_seconds: number | null
}

export interface Message {
  id: string
  conversation_id: string
  parent_id: string | null
  role: 'user' | 'assistant'
  content: string
  reasoning: string | null
  status: MessageStatus
  error: Problem | null
  created_at: string
  finished_at: string | null
  provenance: Provenance | null
}

export interface AppInfo {
  version: string
  language: string
  assistants_ready: boolean
  loopback_only: boolean
}

export interface Page<T> {
  items: T[]
  next_cursor: string | null
}

/** All of a conversation at one point of its event log. */
export interface ThreadSnapshot {
  conversation: Conversation
  messages: Message[]
  seq: number
  epoch: string
}

export type ThreadEvent =
  | { kind: 'message'; message: Message }
  | { kind: 'delta'; message_id: string; content: string; reasoning: string }
  | { kind: 'queue'; message_id: string; position: number; eta_seconds: number | null }
  | { kind: 'conversation'; conversation: Conversation }

export interface EventFrame {
  type: 'event'
  conversation_id: string
  seq: number
  event: ThreadEvent
}

export type SnapshotFrame = { type: 'snapshot'; conversation_id: string } & ThreadSnapshot

export interface Ack {
  type: 'ack'
  id: string
  user_message_id?: string
  assistant_message_id?: string
}

export type ServerFrame =
  | { type: 'welcome'; protocol: number; epoch: string }
  | Ack
  | { type: 'error'; id: string | null; problem: Problem }
  | SnapshotFrame
  | EventFrame
  | { type: 'conversations'; change: 'upsert' | 'delete'; conversation: Conversation }
  | { type: 'engine'; assistant: Assistant }
  | { type: 'pong'; id: string }

/** A question to the server over the socket; the socket adds the id. */
export type ClientRequest =
  | { type: 'subscribe'; conversation_id: string; epoch: string | null; last_seq: number | null }
  | { type: 'unsubscribe'; conversation_id: string }
  | { type: 'send'; client_id: string; conversation_id: string; parent_id: string | null; content: string }
  | { type: 'regenerate'; client_id: string; conversation_id: string; message_id: string }
  | { type: 'stop'; conversation_id: string; message_id: string }
  | { type: 'ping' }

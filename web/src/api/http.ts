/** The web application's own API over HTTP: typed calls, problem documents as `ApiError`. Live events are in `socket.ts`. */
import { ApiError, isProblem } from './failure'
import type { AppInfo, Assistant, Conversation, Page, ThreadSnapshot } from './types'

export type ExportFormat = 'markdown' | 'json'

export interface HttpOptions {
  /** The language in which the server should word its problems. */
  language: () => string
  fetch?: typeof fetch
}

export function createApi({ language, fetch: fetcher }: HttpOptions) {
  async function call(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
    const headers: Record<string, string> = { Accept: 'application/json', 'Accept-Language': language() }
    if (body !== undefined) headers['Content-Type'] = 'application/json'
    let response: Response
    try {
      response = await (fetcher ?? fetch)(path, {
        method,
        headers,
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        ...(signal ? { signal } : {}),
      })
    } catch (error) {
      if (error instanceof DOMException && error.name === 'AbortError') throw error
      throw new ApiError({ kind: 'network' })
    }
    if (response.ok) return response
    throw await problemIn(response)
  }

  async function json<T>(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<T> {
    const response = await call(method, path, body, signal)
    try {
      return (await response.json()) as T
    } catch (error) {
      if (error instanceof DOMException && error.name === 'AbortError') throw error
      throw new ApiError({ kind: 'unexpected', status: response.status })
    }
  }

  const conversation = (id: string) => `/api/conversations/${encodeURIComponent(id)}`

  return {
    app: () => json<AppInfo>('GET', '/api/app'),
    assistants: () => json<{ items: Assistant[] }>('GET', '/api/assistants'),
    conversations(query: string, cursor: string | null, signal?: AbortSignal) {
      const search = new URLSearchParams({ limit: '50' })
      if (query) search.set('query', query)
      if (cursor) search.set('cursor', cursor)
      return json<Page<Conversation>>('GET', `/api/conversations?${search}`, undefined, signal)
    },
    createConversation: (assistantId: string | null) =>
      json<Conversation>('POST', '/api/conversations', assistantId ? { assistant_id: assistantId } : {}),
    thread: (id: string) => json<ThreadSnapshot>('GET', conversation(id)),
    updateConversation: (id: string, change: Partial<Pick<Conversation, 'title' | 'pinned' | 'leaf_id'>>) =>
      json<Conversation>('PATCH', conversation(id), change),
    async deleteConversation(id: string): Promise<void> {
      await call('DELETE', conversation(id))
    },
    restoreConversation: (id: string) => json<Conversation>('POST', `${conversation(id)}/restore`),
    /** The file as the server names it. */
    async exportConversation(id: string, format: ExportFormat): Promise<{ name: string; blob: Blob }> {
      const response = await call('GET', `${conversation(id)}/export?format=${format}`)
      const fallback = `conversation.${format === 'json' ? 'json' : 'md'}`
      return { name: fileNameIn(response.headers.get('Content-Disposition')) ?? fallback, blob: await response.blob() }
    },
  }
}

export type Api = ReturnType<typeof createApi>

async function problemIn(response: Response): Promise<ApiError> {
  try {
    const body: unknown = await response.json()
    if (isProblem(body)) return new ApiError({ kind: 'problem', problem: body })
  } catch (error) {
    if (!(error instanceof SyntaxError || error instanceof TypeError)) throw error
  }
  return new ApiError({ kind: 'unexpected', status: response.status })
}

/** The name in a Content-Disposition header (RFC 6266); the `filename*` form carries names beyond ASCII. */
export function fileNameIn(header: string | null): string | null {
  if (!header) return null
  const extended = /filename\*\s*=\s*utf-8''([^;]+)/i.exec(header)?.[1]
  if (extended) {
    try {
      return decodeURIComponent(extended.trim())
    } catch (error) {
      if (!(error instanceof URIError)) throw error
    }
  }
  return /filename\s*=\s*"?([^";]+)"?/i.exec(header)?.[1]?.trim() ?? null
}

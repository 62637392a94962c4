// The operator's side of a check: the few REST calls by which outputs are sent, sessions ended or
// detached, and their state is read. It reports the status as it came and judges nothing; only
// transport failures are thrown.

export interface AdminAnswer {
  readonly status: number
  readonly body: any
}

export interface Admin {
  session(sessionId: string): Promise<AdminAnswer>
  terminate(sessionId: string): Promise<AdminAnswer>
  detach(sessionId: string): Promise<AdminAnswer>
  /** The answer's body has the `seq` that the output was given. */
  message(sessionId: string, event: string, payload: unknown): Promise<AdminAnswer>
  /** To every session of the user. */
  messageUser(userId: string, event: string, payload: unknown): Promise<AdminAnswer>
}

export function createAdmin (base: string, token: string | undefined, timeoutMs: number): Admin {
  async function call (method: string, path: string, body?: unknown): Promise<AdminAnswer> {
    for (;;) {
      const headers: Record<string, string> = {}
      if (token !== undefined) headers['authorization'] = `Bearer ${token}`
      if (body !== undefined) headers['content-type'] = 'application/json'
      const response = await fetch(new URL(path, base), {
        method,
        headers,
        signal: AbortSignal.timeout(timeoutMs),
        ...(body === undefined ? {} : { body: JSON.stringify(body) })
      })
      const text = await response.text()
      const retryAfter = Number(response.headers.get('retry-after') ?? Number.NaN)
      // An operator's limit is not under test, nor a server that is busy; the kit waits it out
      // where that is a matter of seconds.
      if ((response.status === 429 || response.status === 503) && retryAfter <= 10) {
        await new Promise((resolve) => setTimeout(resolve, retryAfter * 1000 + 50))
        continue
      }
      return { status: response.status, body: readJson(text) }
    }
  }
  const at = (sessionId: string) => `/sessions/${encodeURIComponent(sessionId)}`
  return {
    session: (sessionId) => call('GET', at(sessionId)),
    terminate: (sessionId) => call('DELETE', at(sessionId)),
    detach: (sessionId) => call('DELETE', `${at(sessionId)}/connection`),
    message: (sessionId, event, payload) => call('POST', `${at(sessionId)}/messages`, { event, payload }),
    messageUser: (userId, event, payload) => call(
      'POST', `/users/${encodeURIComponent(userId)}/messages`, { event, payload }
    )
  }
}

function readJson (text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}

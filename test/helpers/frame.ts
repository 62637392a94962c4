/** A frame of the server, as a test reads it. */
export interface Frame {
  type: string
  seq?: number
  id?: number | string
  event?: string
  code?: string
  expected?: number
  retryAfterMs?: number
  // A test reads into whatever the server sent.
  payload?: any
  [member: string]: unknown
}

// A log that keeps its lines, for tests of what is and what is not logged.

import type { Log } from '../../src/io/types.js'

export interface LogLine {
  level: 'debug' | 'info' | 'warn' | 'error'
  fields: Record<string, unknown>
  message: string
}
export interface RecordingLog extends Log { readonly lines: LogLine[] }

export function createRecordingLog (): RecordingLog {
  const lines: LogLine[] = []
  const at = (level: LogLine['level']) => (fields: object, message: string): void => {
    lines.push({ level, fields: fields as Record<string, unknown>, message })
  }
  return { lines, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

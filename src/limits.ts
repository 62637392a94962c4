// The configuration in the words and units of the domain: what each plugin is given as `limits`. For the server and for applications that register
// the plugins themselves and want the server's defaults.

import type { Config } from './config.js'
import type { DispatcherLimits } from './io/dispatcher/dispatcher.js'
import type { GatewayLimits } from './io/gateway/gateway.js'
import type { SessionLimits } from './io/session/manager.js'
import type { Millis } from './io/types.js'

export interface Limits {
  /** For the plugin session-manager. */
  sessions: SessionLimits
  /** For the plugin dispatcher. */
  commands: DispatcherLimits
  /** For the plugin websocket-gateway. */
  connections: GatewayLimits
}

/** The limits that a configuration says; `limitsOf(configWith())` are the server's defaults. */
export function limitsOf (config: Config): Limits {
  const {
    resumeWindowSeconds, sessionTimeoutSeconds, maxSessions, maxSessionsPerUser, outboxMessages, outboxBytes, outboxTotalBytes, commandsPerSecond, maxInFlight,
    commandTimeoutSeconds, maxContextBytes, maxMessageBytes, maxBufferedBytes, heartbeatSeconds
  } = config
  const rates = { commandsPerSecond, maxInFlight }
  return {
    sessions: {
      idleTimeoutMs: toMs(sessionTimeoutSeconds),
      resumeWindowMs: toMs(resumeWindowSeconds),
      maxSessions,
      maxSessionsPerUser,
      outboxMessages,
      outboxBytes,
      outboxTotalBytes
    },
    commands: { ...rates, commandTimeoutMs: toMs(commandTimeoutSeconds), maxContextBytes },
    connections: { ...rates, maxMessageBytes, maxBufferedBytes, heartbeatMs: toMs(heartbeatSeconds) }
  }
}

/** Rounded, since 1.001 × 1000 is not 1001. */
export function toMs (seconds: number): Millis {
  return Math.round(seconds * 1000)
}

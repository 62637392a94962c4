// The public names of the package, and nothing else. What is not listed here, in ./client or under
// ./plugins/* may change without notice.

export { default, type HoldfastOptions } from '../plugins/holdfast.js'
// By these a project that imports nothing else knows what the plugins add to Fastify.
export type { DispatcherPluginOptions } from '../plugins/dispatcher.js'
export type { OperatorAuthOptions } from '../plugins/operator-auth.js'
export type { SessionManagerPluginOptions } from '../plugins/session-manager.js'
export type { GatewayDecorator, WebsocketGatewayOptions } from '../plugins/websocket-gateway.js'
export { buildApp, PLACEHOLDER_USER, type AppOverrides } from './app.js'
export {
  placeholderAuthenticator, type AuthRequest, type Authenticate, type Principal, type Refusal
} from './auth/authenticate.js'
export { createJwtAuthenticator, type JwtAuthenticatorOptions } from './auth/jwt.js'
export { configWith, loadConfig, type Config, type ConfigSources } from './config.js'
export { createHttpCore, type HttpCoreOptions } from './cores/http.js'
export {
  defineCommand, defineEvents, type Before, type Register, type CommandContext, type CommandDefinition,
  type CommandHandler, type CommandMap, type CommandOptions, type CommandSession,
  type CoreCommandDefinition, type EventMap, type PayloadOf, type ResultOf
} from './io/dispatcher/command.js'
export type { CoreAnswer, CoreMessage, CoreRequest, CoreSession, PlatformCore } from './io/dispatcher/core.js'
export type { Dispatcher, DispatcherLimits } from './io/dispatcher/dispatcher.js'
export type { CommandStats } from './io/dispatcher/stats.js'
export { COMMAND_ERROR_CODE, ERRORS, HoldfastError, commandError, type ErrorCode, type ErrorRow } from './io/errors.js'
export type { GatewayLimits } from './io/gateway/gateway.js'
export { CLOSE, type CloseAction, type CloseCode } from './io/protocol/close-codes.js'
export { SUBPROTOCOL } from './io/protocol/frames.js'
export type { ListQuery, SessionCounts, SessionManager, SessionPage } from './io/session/manager.js'
export type { SessionLimits, SessionSeed, SessionTotals } from './io/session/runtime.js'
export type {
  CommitBatch, CommitResult, CreateResult, CreateStore, EndResult, Fence, OpenCommand, SessionStore, StoreHealth,
  StoreHooks, StoreSurroundings, StoreTraits,
  StoredAccess, StoredBlame, StoredOutput, StoredProgress, StoredSession, StoredTombstone, WallMillis
} from './io/session/store.js'
export {
  createEmbeddedStore, type Durability, type EmbeddedStore, type EmbeddedStoreOptions
} from './stores/embedded/store.js'
export type {
  Clock, EndReason, InboundMessage, JsonCompatible, JsonObject, JsonValue, Jsonify, LifecycleEvent, LifecycleEventType,
  Log, SendOptions, Session, SessionState, SessionView, Target, Tombstone
} from './io/types.js'
export { limitsOf, type Limits } from './limits.js'
export { redisStore, type RedisStoreSettings } from './create-store.js'
export { createMemoryStore } from './stores/memory.js'
export { systemClock } from './system-clock.js'
